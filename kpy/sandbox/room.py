"""Room for an emulated mount: what is at its target is set aside before a RUN, and comes back after it. By descriptors
that were opened before the RUN, so nothing that the RUN renamed or replaced is followed. Knows nothing of what is mounted.
"""

import errno
import os
import secrets
import stat
from contextlib import suppress

from kpy.errors import SandboxError
from kpy.linux.beneath import STEP, At, is_directory, status
from kpy.sandbox.rootpath import RootPaths, Spot
from kpy.util import unclaimed
from kpy.util.erase import remove


class Room:
    """The target of one mount, and how it was: what was there, which parents were not, the times of the directory that
    all this happens in (the image must not show that something was mounted)."""

    def __init__(self, spot: Spot, shelf: int, paths: RootPaths) -> None:
        if not spot.name:
            raise SandboxError("nothing can be mounted at /")
        self.path = spot.path
        self._spot = spot
        self._paths = paths
        self._shelf: At = (shelf, b"%s" % secrets.token_hex(8).encode())
        self._top = spot.parent
        self._before = self._ready = self._done = os.fstat(spot.parent)
        self._made: list[tuple[At, tuple[int, int]]] = []
        self._at: At = (spot.parent, os.fsencode(spot.name))
        self._aside: At | None = None
        self.old: os.stat_result | None = None

    @property
    def at(self) -> At:
        """Where the mount goes: a name in a directory that is there once `clear` has made it."""
        return self._at

    def clear(self) -> None:
        """Make the parents, set aside what is there. Raises OSError; `give_up` then."""
        directory = self._spot.parent
        for name in map(os.fsencode, self._spot.missing):
            try:
                os.mkdir(name, dir_fd=directory)
            except FileExistsError as error:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(name)) from error
            inner = self._paths.hold(os.open(name, STEP, dir_fd=directory))
            os.chmod(b"/proc/self/fd/%d" % inner, 0o755)  # noqa: S103 - a directory of every image
            found = os.fstat(inner)
            self._made.append(((directory, name), (found.st_dev, found.st_ino)))
            directory = inner
        self._at = directory, os.fsencode(self._spot.name)
        old = status(self._at)
        if old is not None:
            self._aside = self._set_aside()
            self.old = old

    def _set_aside(self) -> At:
        directory, name = self._at
        try:
            os.rename(name, self._shelf[1], src_dir_fd=directory, dst_dir_fd=self._shelf[0])
            return self._shelf
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        # The shelf is on another file system (a volume): a hidden name beside it, then. The scan comes after.
        return directory, unclaimed.take(lambda beside: os.rename(name, beside, src_dir_fd=directory, dst_dir_fd=directory))

    def give_up(self) -> None:
        """`clear` failed. What is at the target was not moved: it is not ours to remove."""
        for (directory, name), _ in reversed(self._made):
            with suppress(OSError):
                os.rmdir(name, dir_fd=directory)

    def ready(self) -> None:
        """The mount is in place, the RUN starts."""
        self._ready = self._done = os.fstat(self._top)

    def done(self) -> None:
        """The RUN has ended."""
        self._done = os.fstat(self._top)

    def has_directory(self) -> bool:
        """Is there a real directory at the target now? A link or a file there is the RUN's: what was mounted is gone."""
        return is_directory(status(self._at))

    def restore(self) -> None:
        """Take the target away and put back what was there. If the RUN removed the directory that it was in, it is gone
        with that. Of the parents, those that the RUN put something into are the RUN's now. Only a RUN's own change shows in
        the time of the directory. Raises OSError."""
        directory, name = self._at
        remove(name, directory)
        if self._aside is not None:
            try:
                os.rename(self._aside[1], name, src_dir_fd=self._aside[0], dst_dir_fd=directory)
            except FileNotFoundError:
                remove(self._aside[1], self._aside[0])  # the directory is gone, or the RUN took what was beside the target
        for (above, inner), identity in reversed(self._made):
            found = status((above, inner))
            if found is None or not stat.S_ISDIR(found.st_mode) or (found.st_dev, found.st_ino) != identity:
                break
            try:
                os.rmdir(inner, dir_fd=above)
            except OSError:
                break
        same = self._done.st_mtime_ns == self._ready.st_mtime_ns
        mtime = (self._before if same else self._done).st_mtime_ns
        with suppress(PermissionError, FileNotFoundError):  # a directory of the container's, that we may write to
            os.utime(b"/proc/self/fd/%d" % self._top, ns=(self._done.st_atime_ns, mtime))
