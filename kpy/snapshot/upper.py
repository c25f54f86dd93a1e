"""The upper directory of an overlay becomes the changes of a layer: exact, and in time proportional to the changes.
Reads the lower side only where the upper one has something. Mounts nothing.

The walk is done before the first item is given: hard links and parents need to know what follows.
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from kpy.errors import ContentError
from kpy.layer.device import DEVICE_XATTR, PRIVATE_XATTRS, decode_device
from kpy.layer.entry import KIND_OF_FORMAT, Entry, Kind, LayerItem
from kpy.linux import overlay
from kpy.linux.beneath import LIST, At, Beneath, is_directory, join, link_path, names, status
from kpy.snapshot.diff import kept_xattr
from kpy.util.checkpoint import checked, checkpoint
from kpy.util.nesting import Paths
from kpy.util.streams import pieces

_BLOCK = 1 << 18
_SELF = b"."
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_LAYER_HOLDS = stat.S_IFSOCK


@dataclass(slots=True)
class _Node:
    """Something in the upper directory, or a mark. `wanted`: it is part of the layer."""

    entry: Entry
    wanted: bool
    inode: tuple[int, int] | None = None
    parent: "_Node | None" = field(default=None, repr=False)


def changes(upper: str, lower: str) -> Iterator[LayerItem]:
    """What `upper` changes in the merged directory `lower`, in the order of a layer (L03).

    - A whiteout is one only for what `lower` has (L01); a directory deleted and made again is an entry, and an
      OPAQUE if the old one had anything in it.
    - A directory is a change when mode, owner or xattrs differ; else it is there only above a change (L02). Hence
      stubs that came and went leave no trace (R07).
    - A file is a change when anything differs: type, mode, owner, xattrs, size, mtime, device, target or content
      (L05); what was only opened for writing is none.
    - Names of one file are hard links of each other where each is a change by itself. A new name of an old file is a
      file of its own, as it is in BuildKit's layers: the old name is no change, and a layer cannot link below itself.
    - The root directory is never an entry: BuildKit's layers do not have it.
    Raises ContentError for what no layer can hold, OSError when the disk fails.
    """
    with Beneath(upper) as up, Beneath(lower) as low:
        nodes = _Walk(up, low).nodes()
    links, twins = _settle_links(nodes)
    for node in nodes:
        above = node.parent if node.wanted else None
        while above is not None and not above.wanted and above.entry.path:
            above.wanted = True
            above = above.parent
    for node in nodes:
        if node.wanted:
            yield _item(upper, links.get(id(node), node.entry), twins.get(id(node), ""))


def _item(upper: str, entry: Entry, twin: str) -> LayerItem:
    if entry.kind is not Kind.FILE:
        return LayerItem(entry)
    return LayerItem(entry, lambda: _open_later(upper, _bytes(entry.path)), twin)


def _settle_links(nodes: list[_Node]) -> tuple[dict[int, Entry], dict[int, str]]:
    """By id of a node: the entries of all but the first name of each file that is a change, and the old names of new
    ones, which are no change."""
    groups: dict[tuple[int, int], list[_Node]] = {}
    for node in nodes:
        if node.inode is not None:
            groups.setdefault(node.inode, []).append(node)
    found, twins = {}, {}
    for group in groups.values():
        names = [node for node in group if node.wanted]
        old = next((node.entry.path for node in group if not node.wanted), "")
        if names and old:
            twins[id(names[0])] = old
        for node in names[1:]:
            found[id(node)] = replace(node.entry, kind=Kind.HARDLINK, link=names[0].entry.path, size=0, xattrs={})
    return found, twins


class _Walk:
    """Both sides, by descriptors: a path that a RUN made may be longer than the kernel takes at once."""

    def __init__(self, upper: Beneath, lower: Beneath) -> None:
        self._upper = upper
        self._lower = lower
        self._nodes: list[_Node] = []
        self._paths = Paths()

    def nodes(self) -> list[_Node]:
        """All of the upper directory, a directory before what is in it, names sorted as in a layer."""
        root = _node((self._upper.top, _SELF), "", os.fstat(self._upper.top), wanted=False)
        # Without recursion: a RUN may nest deeper than Python's stack. `on`: lower has this directory too.
        waiting: list[tuple[bytes, _Node, bool]] = [(b"", root, True)]
        while waiting:
            checkpoint()
            path, node, on = waiting.pop()
            if path:
                self._nodes.append(node)
                if node.entry.kind is not Kind.DIR:
                    continue
            waiting += reversed(self._inside(path, node, on=on))
        return self._nodes

    def _inside(self, path: bytes, node: _Node, *, on: bool) -> list[tuple[bytes, _Node, bool]]:
        """What is in a directory of the upper side."""
        place, below = self._upper.open(path, LIST), -1
        try:
            if on:
                below = self._enter(path, node, place)
            # As str, as sort_key compares: surrogates of bytes that are no UTF-8 sort elsewhere than the bytes.
            found = [_child(self._paths.add(join(path, name)), name, node, place, below) for name in checked(sorted(names(place), key=_text))]
        finally:
            os.close(place)
            if below >= 0:
                os.close(below)
        return [child for child in found if child is not None]

    def _enter(self, path: bytes, node: _Node, place: int) -> int:
        """The lower directory at the path, if it shows through this one, else -1. If it is hidden, say so."""
        try:
            below = self._lower.open(path, LIST)
        except (FileNotFoundError, NotADirectoryError):
            return -1
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return -1  # a link is there
        if not path or not overlay.is_opaque(link_path((place, _SELF))):
            return below
        try:
            if os.listdir(below):
                self._nodes.append(_Node(Entry(node.entry.path, Kind.OPAQUE), wanted=True, parent=node))
        finally:
            os.close(below)
        return -1


def _child(path: bytes, name: bytes, parent: _Node, place: int, lower: int) -> tuple[bytes, _Node, bool] | None:
    """What is at a path, by its name in an open directory; `lower` is the same directory of the lower side, -1 if that has none."""
    now = place, name
    found = os.stat(name, dir_fd=place, follow_symlinks=False)
    below = status((lower, name)) if lower >= 0 else None
    if below is not None and stat.S_IFMT(below.st_mode) == _NO_LAYER_HOLDS:
        below = None
    if overlay.is_whiteout(found) or stat.S_IFMT(found.st_mode) == _NO_LAYER_HOLDS:
        if below is None:
            return None
        return path, _Node(Entry(_text(path), Kind.WHITEOUT), wanted=True, parent=parent), False
    hidden = stat.S_ISDIR(found.st_mode) and overlay.is_opaque(link_path(now))
    wanted = below is None or hidden or _differs(now, (lower, name), found, below)
    node = _node(now, _text(path), found, wanted=wanted)
    node.parent = parent
    if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
        node.inode = (found.st_dev, found.st_ino)
    return path, node, is_directory(below)


def _differs(now: At, before: At, found: os.stat_result, below: os.stat_result) -> bool:
    """Is what both sides have at the path different in anything that a layer says?"""
    same = (found.st_mode, found.st_uid, found.st_gid) == (below.st_mode, below.st_uid, below.st_gid)
    if not same or _xattrs(now) != _xattrs(before):
        return True
    if stat.S_ISDIR(found.st_mode):
        return False
    if (found.st_size, found.st_mtime_ns, found.st_rdev) != (below.st_size, below.st_mtime_ns, below.st_rdev):
        return True
    if stat.S_ISLNK(found.st_mode):
        return _target(now) != _target(before)
    return stat.S_ISREG(found.st_mode) and not _same_content(now, before)


def _node(at: At, path: str, found: os.stat_result, *, wanted: bool) -> _Node:
    kind = KIND_OF_FORMAT[stat.S_IFMT(found.st_mode)]
    device = (os.major(found.st_rdev), os.minor(found.st_rdev)) if kind in {Kind.CHAR, Kind.BLOCK} else (0, 0)
    xattrs = _xattrs(at)
    placeholder = xattrs.pop(DEVICE_XATTR, None)
    if placeholder is not None and kind is Kind.FILE and not found.st_size:
        kind, device = decode_device(placeholder) or (kind, device)
    entry = Entry(
        path=path,
        kind=kind,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        size=found.st_size if kind is Kind.FILE else 0,
        mtime=found.st_mtime_ns,
        link=_text(_target(at)) if kind is Kind.SYMLINK else "",
        device=device,
        xattrs=xattrs,
    )
    return _Node(entry, wanted)


def _target(at: At) -> bytes:
    return os.readlink(at[1], dir_fd=at[0])


def _xattrs(at: At) -> dict[str, bytes]:
    """What a layer keeps, and the mark of a placeholder."""
    path = link_path(at)
    try:
        found_names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    found = {}
    for name in sorted(found_names):
        if name == DEVICE_XATTR or (kept_xattr(name) and not name.startswith(PRIVATE_XATTRS)):
            try:
                found[name] = os.getxattr(path, name, follow_symlinks=False)
            except OSError:
                continue  # a namespace that we may not read
    return found


def _same_content(one: At, other: At) -> bool:
    with _open(one) as left, _open(other) as right:
        for block in pieces(left, _BLOCK):
            if block != right.read(_BLOCK):
                return False
        return not right.read(1)


def _open(at: At) -> BinaryIO:
    return _regular(os.open(at[1], _READ, dir_fd=at[0]), at[1])


def _open_later(upper: str, path: bytes) -> BinaryIO:
    """A file of the upper directory, also when the changes have come to their end."""
    with Beneath(upper) as tree:
        return _regular(tree.open(path, _READ), path)


def _regular(descriptor: int, path: bytes) -> BinaryIO:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ContentError(f"{_text(path)} changed while it was read")
    return os.fdopen(descriptor, "rb", buffering=0)


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


