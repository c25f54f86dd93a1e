"""How deep a tree may be that a RUN made. Who walks one remembers the path of each file: paths of 1 MB, four thousand of
them, take all memory, and a layer that had them could be read by nobody."""

import errno

LONGEST = 1 << 14
"""Bytes of a path below the top, and one more: what layers are read with (layer.tarread). The kernel takes 4096 at once."""

TOGETHER = 512 << 20
"""Bytes of all paths of one tree: five million of usual ones."""

_SHOWN = 100


class TooDeepError(OSError):
    """A tree that is too deep, or has too many names. `strerror` says what is wrong."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.ENAMETOOLONG, text)


class Paths:
    """Counts the paths of one walk."""

    def __init__(self, longest: int = LONGEST, together: int = TOGETHER) -> None:
        self._longest = longest
        self._left = self._together = together

    def add(self, path: bytes) -> bytes:
        """Count the path, and give it back. Raises TooDeepError."""
        size = len(path)
        if size >= self._longest:
            raise TooDeepError(f"directories are nested too deep: a path has more than {self._longest - 1} bytes, {_begin(path)}")
        self._left -= size
        if self._left < 0:
            raise TooDeepError(f"there are too many files: their paths have more than {self._together >> 20} MiB, up to {_begin(path)}")
        return path


def _begin(path: bytes) -> str:
    return repr(path[:_SHOWN].decode("utf-8", "backslashreplace")) + ("..." if len(path) > _SHOWN else "")
