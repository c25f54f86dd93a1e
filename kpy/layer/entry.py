"""One file of a layer or a tree, as plain data. The word for it everywhere: tar, tree, COPY, snapshot."""

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO


class Kind(StrEnum):
    """What an entry is. WHITEOUT and OPAQUE occur in layers only, never in merged trees."""

    FILE = "f"
    DIR = "d"
    SYMLINK = "l"
    HARDLINK = "h"
    CHAR = "c"
    BLOCK = "b"
    FIFO = "p"
    WHITEOUT = "w"
    OPAQUE = "o"


_FORMATS = {Kind.FILE: stat.S_IFREG, Kind.DIR: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK, Kind.CHAR: stat.S_IFCHR,
            Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}  # fmt: skip
KIND_OF_FORMAT = {number: kind for kind, number in _FORMATS.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a layer.

    `path` is relative to the root, without `./`, leading or trailing `/`, `.` or `..`; the root itself is "".
    Bytes that are not UTF-8 are surrogate-escaped. For WHITEOUT it is the path that goes (`a/b`, not `a/.wh.b`),
    for OPAQUE the directory whose lower content goes. `mode` is 07777 only. `mtime` is in nanoseconds.
    `link` is the target of a SYMLINK as it stands, or of a HARDLINK the path in the same form as `path`.
    `sha256` is the hex digest of a FILE's content, "" where nobody computed it. `stat` is of a FILE on a disk: device,
    inode, size, mtime and ctime; it says which file it is, nothing of the layer.
    """

    path: str
    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict, hash=False)
    sha256: str = ""
    stat: tuple[int, ...] = field(default=(), compare=False, repr=False)

    @property
    def name(self) -> str:
        """The last component."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> str:
        """The path of the directory it is in ("" at the top)."""
        return self.path.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class LayerItem:
    """An entry to be written, and for a FILE with content, how to open it.

    What `open` gives must yield exactly `entry.size` bytes; the writer closes it, and raises ContentError if the
    file changed its size meanwhile. `twin` is for the layer's index alone: another name, which the chain below has, of
    the very file that the tar holds as one of its own (see snapshot/upper.py); COPY keeps such names linked (C14).
    `alone`: no later item is a hard link to it, so that nothing has to be remembered of it.
    """

    entry: Entry
    open: Callable[[], BinaryIO] | None = None
    twin: str = ""
    alone: bool = False


def sort_key(entry: Entry) -> str:
    """Order of a layer (L03): by path components, so that a directory comes right before what is in it."""
    return entry.path.replace("/", "\0")  # as tuples of the components compare, and much smaller
