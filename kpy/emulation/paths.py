"""Paths as another process means them, said so that this process means the same: its working directory and its
descriptors are reached through /proc/PID, in one lookup and without passing descriptors. Both have one root directory.
"""

import errno
import os

AT_FDCWD = 0xFFFFFF9C
_PATH_MAX = 4096

_OF_DEV = {b"stdin": b"fd/0", b"stdout": b"fd/1", b"stderr": b"fd/2"}


class Place:
    """A path for the functions of os. `base` is the part of it that is the other process's directory, or ""."""

    __slots__ = ("base", "dir_fd", "path")

    def __init__(self, path: bytes, base: bytes = b"", dir_fd: int | None = None) -> None:
        self.path = path
        self.base = base
        self.dir_fd = dir_fd

    def parent(self) -> "Place":
        """The directory that the last name is in."""
        path = self.path.rstrip(b"/")
        if not path:
            return Place(b"/")
        directory, slash, name = path.rpartition(b"/")
        if not slash:
            return Place(b".", self.base, self.dir_fd)
        if name in (b".", b".."):
            return Place(self.path + b"/..", self.base, self.dir_fd)
        return Place(directory or b"/", self.base, self.dir_fd)

    def beside(self, name: bytes) -> "Place":
        """What a symlink here with that content points to."""
        if name.startswith(b"/"):
            return Place(name)
        return Place(self.parent().path + b"/" + name, self.base, self.dir_fd)


class Places:
    """Makes places, and holds the descriptors of those that are too long to be said otherwise until `done`."""

    def __init__(self) -> None:
        self._opened: list[int] = []
        self._descriptor: bytes = b""

    def of_path(self, pid: int, directory: int, path: bytes) -> Place:
        """`path` relative to a descriptor of the process or AT_FDCWD. Raises OSError ENOENT for the empty path."""
        if path[:1] == b"/":
            if path.startswith((b"/proc/", b"/dev/")):
                return Place(_own(pid, path))
            return Place(path)
        if not path:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        base = self._base(pid, directory)
        if len(base) + len(path) < _PATH_MAX - 1:
            return Place(base + b"/" + path, base)
        opened = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._opened.append(opened)
        return Place(path, base, opened)

    def of_descriptor(self, pid: int, descriptor: int) -> Place:
        """What a descriptor of the process (AT_FDCWD: its directory) is open on. To be followed."""
        base = self._base(pid, descriptor)
        return Place(base, base)

    def _base(self, pid: int, directory: int) -> bytes:
        if directory & 0xFFFFFFFF == AT_FDCWD:
            return b"/proc/%d/cwd" % pid
        base = b"/proc/%d/fd/%d" % (pid, directory & 0xFFFFFFFF)
        self._descriptor = base
        return base

    def is_bad(self) -> bool:
        """Something was not found: was it because the descriptor is not open?"""
        return bool(self._descriptor) and not os.path.lexists(self._descriptor)

    def done(self) -> None:
        """The call is answered."""
        self._descriptor = b""
        while self._opened:
            os.close(self._opened.pop())


def _own(pid: int, path: bytes) -> bytes:
    """Replace names that mean something else to each process."""
    parts = path.split(b"/", 3)
    if parts[1] == b"proc":
        if parts[2] in (b"self", b"thread-self"):
            parts[2] = b"%d" % pid
            return b"/".join(parts)
    elif parts[2] == b"fd":
        return b"/".join([b"", b"proc", b"%d" % pid, *parts[2:]])
    elif parts[2] in _OF_DEV and len(parts) == 3:
        return b"/proc/%d/%s" % (pid, _OF_DEV[parts[2]])
    return path
