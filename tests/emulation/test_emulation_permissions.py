"""permissions.py, guard.py, paths.py: who may do what, and what a path means."""

import os
import stat
from pathlib import Path

import pytest

from kpy.emulation import permissions as p
from kpy.emulation.credentials import CAP_FOWNER, Credentials, of_user
from kpy.emulation.files import Files
from kpy.emulation.guard import Guard, is_unrestricted
from kpy.emulation.paths import AT_FDCWD, Place, Places
from kpy.linux.ledger import Ledger
from kpy.linux.syscalls import native

FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR
ROOT, USER, MEMBER = of_user(0, 0), of_user(1000, 1000), of_user(1001, 1001, (44,))


@pytest.mark.parametrize(
    ("who", "mode", "uid", "gid", "bits"),
    [
        (USER, FILE | 0o640, 1000, 44, 6),
        (USER, FILE | 0o046, 1000, 44, 0),  # the owner's bits count, even if others have more
        (MEMBER, FILE | 0o640, 1000, 44, 4),
        (MEMBER, FILE | 0o604, 1000, 44, 0),
        (USER, FILE | 0o604, 0, 44, 4),
        (ROOT, FILE | 0o000, 1000, 44, 6),
        (ROOT, FILE | 0o001, 1000, 44, 7),  # to execute, somebody must be allowed to
        (ROOT, DIRECTORY | 0o000, 1000, 44, 7),
        (USER, DIRECTORY | 0o711, 0, 0, 1),
    ],
)
def test_granted(who: Credentials, mode: int, uid: int, gid: int, bits: int) -> None:
    assert p.granted(who, mode, uid, gid) == bits


def test_chown() -> None:
    assert p.may_chown(ROOT, 5, 5, 6, 6)
    assert p.may_chown(MEMBER, 1001, 1001, None, 44)
    assert p.may_chown(MEMBER, 1001, 44, 1001, 44)
    assert not p.may_chown(MEMBER, 1001, 1001, None, 45)
    assert not p.may_chown(MEMBER, 1001, 1001, 0, None)
    assert not p.may_chown(MEMBER, 0, 44, None, 44)


def test_set_id_bits_over_chown_and_chmod() -> None:
    assert p.after_chown(ROOT, FILE | 0o6755, 0) == FILE | 0o755
    assert p.after_chown(ROOT, FILE | 0o6745, 0) == FILE | 0o2745  # mandatory locking, once
    assert p.after_chown(USER, FILE | 0o2644, 44) == FILE | 0o644
    assert p.after_chown(ROOT, DIRECTORY | 0o2755, 0) == DIRECTORY | 0o2755
    assert p.after_chmod(USER, FILE, 0o2755, 44) == FILE | 0o755
    assert p.after_chmod(MEMBER, FILE, 0o2755, 44) == FILE | 0o2755
    assert p.after_chmod(ROOT, FILE, 0o102755, 44) == FILE | 0o2755


def test_sticky_directories() -> None:
    assert not p.may_remove(USER, DIRECTORY | 0o1777, 0, 5)
    assert p.may_remove(USER, DIRECTORY | 0o1777, 0, 1000)
    assert p.may_remove(USER, DIRECTORY | 0o1777, 1000, 5)
    assert p.may_remove(USER, DIRECTORY | 0o777, 0, 5)
    assert p.may_remove(ROOT, DIRECTORY | 0o1777, 1, 5)
    assert p.may_remove(USER._replace(effective=CAP_FOWNER), DIRECTORY | 0o1777, 1, 5)


def test_who_needs_no_check() -> None:
    assert is_unrestricted(ROOT)
    assert not is_unrestricted(ROOT._replace(fsgid=5)), "what it makes is group 5's"
    assert not is_unrestricted(USER)


@pytest.fixture
def files() -> Files:
    arch = native()
    assert arch is not None
    return Files(Ledger(), arch)


def test_the_directories_on_the_way(files: Files, tmp_path: Path) -> None:
    """Each of them, also those that symlinks lead through."""
    tmp_path.chmod(0o755)
    for name in ("open/closed/inner", "open/free"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "open/closed").chmod(0o700)
    (tmp_path / "open/closed/inner/file").touch()
    (tmp_path / "open/closed/back").symlink_to("../free")
    (tmp_path / "open/way").symlink_to("closed/back")
    guard, base = Guard(files), os.fsencode(tmp_path)

    def reaches(who: Credentials, path: bytes, *, follow: bool = True) -> bool:
        try:
            # From a directory that is open already: what is above it is no obstacle.
            guard.search(who, Place(b"/proc/self/cwd/" + path, b"/proc/self/cwd"), follow=follow)
        except PermissionError:
            return False
        return True

    before = os.getcwd()
    os.chdir(base)
    try:
        assert reaches(ROOT, b"open/closed/inner/file")
        assert not reaches(USER, b"open/closed/inner/file")
        assert not reaches(USER, b"open/closed/inner/missing")
        assert not reaches(USER, b"open/closed/../free")
        assert reaches(USER, b"open/closed")
        assert reaches(USER, b"open/free/missing/more")
        assert reaches(USER, b"open/way", follow=False)
        assert not reaches(USER, b"open/way")
        assert not reaches(USER, b"open/way/x", follow=False)
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    ("directory", "path", "expected"),
    [
        (AT_FDCWD, b"/etc/passwd", b"/etc/passwd"),
        (AT_FDCWD, b"a/b", b"/proc/7/cwd/a/b"),
        (3, b"a", b"/proc/7/fd/3/a"),
        (0xFFFFFFFFFFFFFF9C, b"a", b"/proc/7/cwd/a"),  # as the kernel passes on a negative int
        (AT_FDCWD, b"/proc/self/fd/3", b"/proc/7/fd/3"),
        (AT_FDCWD, b"/proc/thread-self/x", b"/proc/7/x"),
        (AT_FDCWD, b"/proc/selfish", b"/proc/selfish"),
        (AT_FDCWD, b"/dev/stdout", b"/proc/7/fd/1"),
        (AT_FDCWD, b"/dev/fd/9", b"/proc/7/fd/9"),
        (AT_FDCWD, b"/dev/fd", b"/proc/7/fd"),
        (AT_FDCWD, b"/dev/null", b"/dev/null"),
    ],
)
def test_paths_of_another_process(directory: int, path: bytes, expected: bytes) -> None:
    assert Places().of_path(7, directory, path).path == expected


def test_the_empty_path_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        Places().of_path(7, AT_FDCWD, b"")


@pytest.mark.parametrize(
    ("path", "parent"),
    [(b"/a/b", b"/a"), (b"/a", b"/"), (b"/", b"/"), (b"/a/b//", b"/a"), (b"b", b"."), (b"/a/..", b"/a/../..")],
)
def test_parents(path: bytes, parent: bytes) -> None:
    assert Place(path).parent().path == parent


def test_paths_that_do_not_fit_behind_the_directory() -> None:
    places = Places()
    place = places.of_path(os.getpid(), AT_FDCWD, b"./" * 2047 + b".")
    assert place.dir_fd is not None
    assert os.stat(place.path, dir_fd=place.dir_fd).st_ino == os.stat(".").st_ino
    places.done()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(place.dir_fd)
