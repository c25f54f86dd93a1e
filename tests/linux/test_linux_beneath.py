"""beneath.py: paths below a directory that hostile code wrote, with openat2(2) and without."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kpy.linux import beneath
from kpy.linux.beneath import LIST, Beneath, open_beneath, step_by_step

Open = Callable[[int, bytes, int], int]
WAYS = pytest.mark.parametrize("opening", [open_beneath, step_by_step], ids=["openat2", "steps"])


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "root" / "a" / "b" / "file").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    for name, target in (("up", "../outside"), ("abs", str(tmp_path / "outside")), ("in", "a/b"), ("a/b/leaf", "file")):
        (tmp_path / "root" / name).symlink_to(target)
    return tmp_path / "root"


def _read(opening: Open, top: Path, path: bytes) -> str:
    root = os.open(top, os.O_PATH | os.O_DIRECTORY)
    try:
        with open(opening(root, path, os.O_RDONLY), encoding="utf-8") as file:
            return file.read()
    finally:
        os.close(root)


@WAYS
def test_a_file_of_the_tree(opening: Open, top: Path) -> None:
    assert _read(opening, top, b"a/b/file") == "inside"


@WAYS
@pytest.mark.parametrize("path", [b"up/file", b"abs/file", b"in/file", b"a/b/leaf", b"../outside/file", b"a/../../outside/file", b"/etc/passwd"])
def test_no_link_is_followed_and_nothing_leaves(opening: Open, top: Path, path: bytes) -> None:
    if path == b"/etc/passwd" and opening is step_by_step:
        path = b"/a/up/etc/passwd"  # from the root it would be a relative path; there is no such thing
    with pytest.raises(OSError):
        _read(opening, top, path)


def test_a_profile_that_does_not_know_openat2(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> int:
        raise PermissionError(1, "openat2")

    monkeypatch.setattr(beneath.libc, "openat2", refused)
    assert _read(open_beneath, top, b"a/b/file") == "inside"
    with pytest.raises(OSError):
        _read(open_beneath, top, b"in/file")


def test_paths_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    name = "d" * 200
    before = len(os.listdir("/proc/self/fd"))
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(60):
        os.mkdir(name, dir_fd=place)
        inner = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)
    path = b"/".join([name.encode()] * 60)
    with Beneath(str(tmp_path)) as tree:
        assert [found for found, _, _ in tree.directories()][-1] == path
        directory, last = tree.at(path + b"/file")
        assert os.stat(last, dir_fd=directory).st_size == 0
        os.close(tree.open(path, LIST))
    assert len(os.listdir("/proc/self/fd")) == before


def test_slots_are_elsewhere_whatever_has_their_name(top: Path, tmp_path: Path) -> None:
    (top / "slot").symlink_to("/")
    with Beneath(str(top), {b"slot": os.fsencode(tmp_path / "outside")}) as tree:
        directory, name = tree.at(b"slot/file")
        assert os.path.samestat(os.stat(name, dir_fd=directory), (tmp_path / "outside" / "file").stat())
        directory, name = tree.at(b"slot")
        assert os.path.samestat(os.stat(name, dir_fd=directory), (tmp_path / "outside").stat())
