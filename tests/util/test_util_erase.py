"""util/erase.py, linux/copytree.py, mountinfo.py: trees that hostile code wrote."""

import errno
import os
import stat
from pathlib import Path

import pytest

from kpy.linux.copytree import copy
from kpy.util import unclaimed
from kpy.util.erase import ancestors, empty, remove
from kpy.util.mountinfo import below, parse


def _deep(path: Path, depth: int) -> None:
    """A chain of directories deeper than paths and descriptors reach."""
    descriptor = os.open(path, os.O_RDONLY)
    for number in range(depth):
        os.mkdir("dddddddddd", dir_fd=descriptor)
        if number % 7 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        inner = os.open("dddddddddd", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)


def _copy(source: Path, target: Path) -> None:
    places = [os.open(path.parent, os.O_PATH | os.O_DIRECTORY) for path in (source, target)]
    try:
        copy((places[0], os.fsencode(source.name)), (places[1], os.fsencode(target.name)))
    finally:
        for place in places:
            os.close(place)


def test_kept_paths_stay_with_what_is_below_and_their_parents(tmp_path: Path) -> None:
    for name in ("etc/hosts", "etc/passwd", "a/b/c/kept/x/y", "a/b/d", "kpyx/z", "kpy/lib/z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a").chmod(0o1777)

    assert empty(str(tmp_path), {b"etc/hosts", b"a/b/c/kept", b"kpy"}) == []

    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["a/b/c/kept/x/y", "etc/hosts", "kpy/lib/z"]
    assert not (tmp_path / "kpyx").exists()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755


def test_symlinks_are_removed_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "etc").symlink_to(tmp_path / "outside")

    empty(str(root), {b"etc/hosts"})

    assert os.listdir(tmp_path / "outside") == ["file"]
    assert os.listdir(root) == ["etc"]


def test_deeper_than_descriptors_and_recursion(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    _deep(tmp_path / "root", 1500)

    assert empty(str(tmp_path / "root")) == []
    assert os.listdir(tmp_path / "root") == []


@pytest.mark.parametrize("contested", [0, 3])
def test_names_that_somebody_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contested: int) -> None:
    """What is too deep is moved to names that no RUN knows; if one were taken, to others."""
    (tmp_path / "cache" / ".kpy-erase-1" / "x").mkdir(parents=True)
    for name in ("aa", "zz"):
        (tmp_path / "cache" / name).mkdir()
        _deep(tmp_path / "cache" / name, 300)
    names = [f"{number:016x}" for number in range(20)]
    for number in range(contested):
        (tmp_path / "cache" / f".kpy-{names[number]}" / "x").mkdir(parents=True)
    if contested:
        (tmp_path / "cache" / f".kpy-{names[contested]}").touch()
        monkeypatch.setattr(unclaimed.secrets, "token_hex", lambda _: names.pop(0))

    remove(str(tmp_path / "cache"))

    assert os.listdir(tmp_path) == []


def test_names_that_are_always_taken_are_no_endless_loop(tmp_path: Path) -> None:
    def take(name: bytes) -> None:
        raise FileExistsError(errno.EEXIST, "taken")

    with pytest.raises(OSError, match="busy"):
        unclaimed.take(take)


def test_deep_directories_that_may_not_be_moved(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    _deep(tmp_path / "root", 150)
    for name in (["dddddddddd"] * count for count in range(95, 110)):
        os.chmod(tmp_path.joinpath("root", *name), 0o500)

    remove(str(tmp_path / "root"))

    assert os.listdir(tmp_path) == []


def test_directories_that_may_not_be_entered(tmp_path: Path) -> None:
    (tmp_path / "top" / "inner").mkdir(parents=True)
    (tmp_path / "top" / "inner" / "file").touch()
    (tmp_path / "top" / "inner").chmod(0)
    (tmp_path / "top").chmod(0o500)

    remove(str(tmp_path / "top"))

    assert os.listdir(tmp_path) == []


def test_missing_is_fine(tmp_path: Path) -> None:
    remove(str(tmp_path / "none"))


def test_ancestors() -> None:
    assert ancestors({b"a/b/c", b"x"}) == {b"a", b"a/b"}


def test_copy_keeps_everything(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    (source / "dir" / "file").write_bytes(os.urandom(3_000_000))
    (source / "dir" / "file").chmod(0o4711)
    os.utime(source / "dir" / "file", ns=(1, 123_456_789))
    os.link(source / "dir" / "file", source / "name")
    (source / "link").symlink_to("/nowhere")
    os.mkfifo(source / "pipe")
    os.utime(source / "dir", ns=(1, 987_654_321))

    _copy(source, tmp_path / "target")

    target = tmp_path / "target"
    assert (target / "dir" / "file").read_bytes() == (source / "dir" / "file").read_bytes()
    assert (target / "dir" / "file").samefile(target / "name")
    assert stat.S_IMODE((target / "name").stat().st_mode) == 0o4711
    assert (target / "name").stat().st_mtime_ns == 123_456_789
    assert (target / "dir").stat().st_mtime_ns == 987_654_321
    assert os.readlink(target / "link") == "/nowhere"
    assert stat.S_ISFIFO((target / "pipe").stat().st_mode)


def test_copy_writes_over_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").symlink_to("c")

    with pytest.raises(FileExistsError):
        _copy(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "c").exists()


MOUNTINFO = rb"""22 1 254:0 / / rw - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
24 22 254:0 /x/hosts /etc/hosts rw - ext4 /dev/vda rw
25 22 0:30 / /mnt/with\040blank\134 rw - tmpfs tmpfs rw
26 22 0:31 / /proc rw - tmpfs tmpfs rw
broken
"""


def test_mount_points() -> None:
    assert parse(MOUNTINFO) == [b"/", b"/etc/hosts", b"/mnt/with blank\\", b"/proc"]
    assert below(b"/", parse(MOUNTINFO)) == [b"etc/hosts", b"mnt/with blank\\", b"proc"]
    assert below(b"/mnt", parse(MOUNTINFO)) == [b"with blank\\"]
    assert below(b"/mn", parse(MOUNTINFO)) == []
