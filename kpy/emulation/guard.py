"""What an emulated user who is not root may not do, though the builder's user could: asked before the kernel is.

A directory that only a symlink in the middle of a path leads through is not asked about. Nobody is kept out by this who wants in: it makes a build behave, and is no protection.
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
        self._reach(who, place)
        links = 0
        while follow and links < _MOST_LINKS and (link := _link(place)) is not None:
            place = place.beside(link)
            self._reach(who, place)
            links += 1

    def _reach(self, who: Credentials, place: Place) -> None:
        """May it enter the directories above, from where it starts?"""
        parent = _real(place.parent())
        if parent is None:
            return  # the kernel will say that there is none
        directory, rest = b"", parent
        if place.base:
            base = _real(Place(place.base))
            if base is not None and (parent + b"/").startswith(base.rstrip(b"/") + b"/"):
                directory, rest = base.rstrip(b"/"), parent[len(base.rstrip(b"/")) :]
        self._may_enter(who, directory or b"/")
        for name in rest.split(b"/"):
            if name:
                directory += b"/" + name
                self._may_enter(who, directory)

    def _may_enter(self, who: Credentials, path: bytes) -> None:
        try:
            file = self._files.look(Place(path), follow=True)
        except OSError:
            return
        if not permissions.granted(who, file.mode, file.uid, file.gid) & EXECUTE:
            raise _denied()

    def use(self, who: Credentials, file: File, wanted: int) -> None:
        """May it read, write, execute (bits of rwx) the file?"""
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


def _link(place: Place) -> bytes | None:
    try:
        return os.readlink(place.path, dir_fd=place.dir_fd)
    except OSError:
        return None
