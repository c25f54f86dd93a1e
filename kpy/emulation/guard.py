"""What an emulated user who is not root may not do, though the builder's user could: asked before the kernel is.

Nobody is kept out by this who wants in: it makes a build behave, and is no protection.
"""

import errno
import os
import stat

from kpy.emulation import permissions
from kpy.emulation.credentials import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, Credentials
from kpy.emulation.files import File, Files
from kpy.emulation.paths import Place
from kpy.emulation.permissions import EXECUTE, WRITE

_MOST_LINKS = 40  # as the kernel (MAXSYMLINKS)


def _denied() -> OSError:
    return OSError(errno.EACCES, os.strerror(errno.EACCES))


def is_unrestricted(who: Credentials) -> bool:
    """Does it pass all checks, and own what it makes as root does?"""
    return bool(who.effective & CAP_DAC_OVERRIDE) and who.fsuid == 0 and who.fsgid == 0


class Guard:
    """Raises OSError as the kernel would."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def search(self, who: Credentials, place: Place, *, follow: bool) -> None:
        """May `who` reach it, through the directories above it?"""
        if place.path == place.base or who.effective & (CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH):
            return  # what it has open already, it has reached
        current, rest = b"", place.path
        if place.base:
            current, rest = os.readlink(place.base).rstrip(b"/"), rest.removeprefix(place.base)
        if current and not current.startswith(b"/"):
            return  # not a directory
        todo = [name for name in reversed(rest.split(b"/")) if name not in (b"", b".")]
        links = 0
        while todo and links <= _MOST_LINKS and self._may_enter(who, current or b"/"):
            name = todo.pop()
            if name == b"..":
                current = current.rpartition(b"/")[0]
                continue
            link = _link(current + b"/" + name) if todo or follow or rest.endswith(b"/") else None
            if link is None:
                current += b"/" + name
                continue
            links += 1
            if link.startswith(b"/"):
                current = b""
            todo += [name for name in reversed(link.split(b"/")) if name not in (b"", b".")]

    def _may_enter(self, who: Credentials, path: bytes) -> bool:
        """Is it a directory, and one of the image's? If so, and `who` may not search it: EACCES."""
        try:
            file = self._files.look(Place(path), follow=False)
        except OSError:
            return False
        if not stat.S_ISDIR(file.mode) or file.key[0] in self._files.kernels:
            return False
        self.use(who, file, EXECUTE)
        return True

    def contains(self, directory: Place, place: Place) -> bool:
        """Is the second, a directory, the first or below it?"""
        above, below = _real(directory), _real(place)
        return above is not None and below is not None and (below + b"/").startswith(above + b"/")

    def use(self, who: Credentials, file: File, wanted: int) -> None:
        """May it read, write, execute (bits of rwx) the file?"""
        if file.key[0] in self._files.kernels:
            return  # /proc has its own rules
        if wanted & ~permissions.granted(who, file.mode, file.uid, file.gid):
            raise _denied()

    def make_in(self, who: Credentials, directory: File) -> None:
        """May it make names in the directory?"""
        if stat.S_ISDIR(directory.mode):
            self.use(who, directory, WRITE | EXECUTE)

    def remove_from(self, who: Credentials, directory: File, file: File) -> None:
        """May it take a name from the directory?"""
        self.make_in(who, directory)
        if not permissions.may_remove(who, directory.mode, directory.uid, file.uid):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _real(directory: Place) -> bytes | None:
    """The path of a directory without symlinks; None if it is not there."""
    flags = os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY
    try:
        descriptor = os.open(directory.path, flags, dir_fd=directory.dir_fd)
    except OSError:
        return None
    try:
        path = os.readlink(b"/proc/self/fd/%d" % descriptor)
    finally:
        os.close(descriptor)
    return path if path.startswith(b"/") else None


def _link(path: bytes) -> bytes | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
