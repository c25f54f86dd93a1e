"""scan.py: what is in an index, what is not, and the wait that makes ctimes tell (EXECUTION D)."""

import os
import socket
import stat
import time
from pathlib import Path

import pytest

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
