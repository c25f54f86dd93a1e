"""The directory of a context, held open: all that is looked at and read in it goes by here, so that nothing else is.

Whoever fills a context may make links in it, also while we read. No symlink is followed here, in no component; who wants
them followed reads them, and asks for what they lead to.
"""

import errno
import os
import stat

from kpy.linux.beneath import open_beneath

# Never waits for the writer of a fifo, takes no terminal.
_READ = os.O_RDONLY | os.O_LARGEFILE | os.O_NONBLOCK | os.O_NOCTTY


class Root:
    """Open until `close`; for any number of threads. Paths are as in Entry: "" is the directory itself.

    Descriptors are the caller's to close. Raises OSError, where a component is a link ELOOP or ENOTDIR; ValueError for a
    path with a NUL.
    """

    def __init__(self, directory: str) -> None:
        self._number = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the directory. Idempotent."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def _open(self, path: str, flags: int) -> int:
        name = os.fsencode(path)
        if b"\0" in name:
            raise ValueError("embedded null byte")
        return open_beneath(self._number, name, flags | os.O_NOFOLLOW | os.O_CLOEXEC)

    def directory(self, path: str) -> int:
        """A directory, to look below it by `dir_fd`."""
        return self._open(path, os.O_PATH | os.O_DIRECTORY)

    def listed(self, path: str) -> int:
        """A directory, to list."""
        return self._open(path, os.O_RDONLY | os.O_DIRECTORY)

    def regular(self, path: str) -> int:
        """A regular file, to read. Raises OSError: EINVAL for anything else."""
        return _regular(self._open(path, _READ), path)

    def status(self, path: str) -> os.stat_result:
        """What is there, also a symlink."""
        number = self._open(path, os.O_PATH)
        try:
            return os.fstat(number)
        finally:
            os.close(number)


def open_regular(directory: int, name: str) -> int:
    """As `Root.regular`, for a name in an open directory."""
    return _regular(os.open(name, _READ | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory), name)


def _regular(number: int, path: str) -> int:
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return number
