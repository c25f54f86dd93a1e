"""scan.py: what is in an index, what is not, and the wait that makes ctimes tell (EXECUTION D)."""

import os
import socket
import stat
import time
from pathlib import Path

import pytest

from kpy.errors import ContentError
from kpy.snapshot.diff import differences
from kpy.snapshot.scan import CTIME, INO, MODE, NLINK, SIZE, scan, settle


def test_every_kind_is_indexed_by_its_relative_path(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").write_bytes(b"12345")
    os.link(tmp_path / "dir" / "file", tmp_path / "name")
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")

    index = scan(str(tmp_path))

    assert sorted(index) == [b"", b"dir", b"dir/file", b"link", b"name", b"pipe"]
    assert index[b"dir/file"][SIZE] == 5
    assert index[b"dir/file"][NLINK] == 2
    assert index[b"dir/file"][INO] == index[b"name"][INO]
    assert stat.S_ISLNK(index[b"link"][MODE])
    assert stat.S_ISFIFO(index[b"pipe"][MODE])


def test_what_is_skipped_is_absent_with_all_below_it(tmp_path: Path) -> None:
    (tmp_path / "proc" / "1").mkdir(parents=True)
    (tmp_path / "process").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "hosts").touch()

    assert sorted(scan(str(tmp_path), frozenset({b"proc", b"etc/hosts"}))) == [b"", b"etc", b"process"]


def test_names_are_bytes(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9\n")).touch()

    assert b"caf\xe9\n" in scan(str(tmp_path))


def test_a_symlink_to_a_directory_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to("../outside")

    assert sorted(scan(str(tmp_path / "root"))) == [b"", b"link"]


def test_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # sun_path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")

        assert sorted(scan(str(tmp_path))) == [b""]


def test_after_settling_a_same_size_rewrite_with_the_old_mtime_has_another_ctime(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for turn in range(20):
        file.write_bytes(b"a%04d" % turn)
        index = scan(str(tmp_path))
        settle(index)
        times = file.stat()
        file.write_bytes(b"b%04d" % turn)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

        assert scan(str(tmp_path))[b"file"][CTIME] != index[b"file"][CTIME]


def test_files_from_the_future_are_not_waited_for(tmp_path: Path) -> None:
    index = scan(str(tmp_path))
    root = list(index[b""])
    root[CTIME] += 3600 * 10**9 + 1
    start = time.monotonic()

    settle({b"": tuple(root)}, patience=0.05)

    assert time.monotonic() - start < 1


def test_a_link_in_the_place_of_a_slot_is_not_entered(tmp_path: Path) -> None:
    """/kroot/usr leads to /usr, where `/` is not ours. A RUN can make it lead to the builder's logins."""
    (tmp_path / "builder").mkdir()
    (tmp_path / "builder" / "login").write_text("secret")
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr" / "file").write_text("of the image")
    (tmp_path / "kroot").mkdir()
    slots = {b"usr": os.fsencode(tmp_path / "usr")}
    for link in (tmp_path / "usr", tmp_path / "builder"):
        (tmp_path / "kroot" / "usr").unlink(missing_ok=True)
        (tmp_path / "kroot" / "usr").symlink_to(link)
        assert sorted(scan(str(tmp_path / "kroot"), slots=slots)) == [b"", b"usr", b"usr/file"]
    items = list(differences(str(tmp_path / "kroot"), {}, scan(str(tmp_path / "kroot"), slots=slots), slots=slots))
    (content,) = [item.open for item in items if item.entry.path == "usr/file"]
    assert content is not None
    with content() as file:
        assert file.read() == b"of the image"


def test_a_directory_that_became_a_link_after_the_scan_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "root" / "dir").mkdir(parents=True)
    (tmp_path / "root" / "dir" / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("secret")
    items = list(differences(str(tmp_path / "root"), {}, scan(str(tmp_path / "root"))))
    (tmp_path / "root" / "dir").rename(tmp_path / "root" / "old")
    (tmp_path / "root" / "dir").symlink_to(tmp_path / "other")

    (content,) = [item.open for item in items if item.entry.path == "dir/file"]
    assert content is not None
    with pytest.raises(ContentError, match="cannot read dir/file"):
        content()
