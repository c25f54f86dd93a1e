"""What an emulated user who is not root may not do, though the builder's user could: asked before the kernel is.

Where a symlink leads through a directory that the user may not search, we look only at the directories of where it
ends. Nobody is kept out by this who wants in: it makes a build behave, and is no protection.
"""

import errno
import os
import stat

from kpy.emulation import permissions
from kpy.emulation.credentials import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, Credentials
from kpy.emulation.files import File, Files
from kpy.emulation.paths import Place
from kpy.emulation.permissions import EXECUTE, WRITE


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
        real = _real(place, follow=follow)
        if real is None:
            parent = _real(place.parent(), follow=True)
            if parent is None:
                return  # the kernel will say that there is none
            real = parent.rstrip(b"/") + b"/."
        start = b""
        if place.base:
            base = _real(Place(place.base), follow=True)
            if base is not None and (real == base or real.startswith(base.rstrip(b"/") + b"/")):
                if real == base:
                    return
                start = base.rstrip(b"/")
        rest = real[len(start) :].split(b"/")[1:-1]
        directory = start
        for name in [b"", *rest]:
            directory = directory + b"/" + name if name else directory
            self._may_enter(who, directory or b"/")

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


def _real(place: Place, *, follow: bool) -> bytes | None:
    """The path without symlinks; None if it is not there, or has none."""
    flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(place.path, flags, dir_fd=place.dir_fd)
    except OSError:
        return None
    try:
        path = os.readlink(b"/proc/self/fd/%d" % descriptor)
    finally:
        os.close(descriptor)
    return path if path.startswith(b"/") else None
