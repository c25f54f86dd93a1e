"""The upper directory of an overlay becomes the changes of a layer: exact, and in time proportional to the changes.
Reads the lower side only where the upper one has something. Mounts nothing.

The walk is done before the first item is given: hard links and parents need to know what follows.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from kpy.errors import ContentError
from kpy.layer.device import DEVICE_XATTR, PRIVATE_XATTRS, decode_device
from kpy.layer.entry import KIND_OF_FORMAT, Entry, Kind, LayerItem
from kpy.linux import overlay
from kpy.snapshot.diff import kept_xattr

_BLOCK = 1 << 18
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
    nodes = _Walk(os.fsencode(upper), os.fsencode(lower)).nodes()
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
    path = _join(os.fsencode(upper), _bytes(entry.path))
    return LayerItem(entry, lambda: _open(path), twin)


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
    def __init__(self, upper: bytes, lower: bytes) -> None:
        self._upper = upper
        self._lower = lower
        self._nodes: list[_Node] = []

    def nodes(self) -> list[_Node]:
        """All of the upper directory, a directory before what is in it, names sorted as in a layer."""
        found = os.lstat(self._upper)
        root = self._node("", found, wanted=False)
        # Without recursion: a RUN may nest deeper than Python's stack. `on`: lower has this directory too.
        waiting: list[tuple[bytes, _Node, bool]] = [(b"", root, True)]
        while waiting:
            path, node, on = waiting.pop()
            if path:
                self._nodes.append(node)
                if node.entry.kind is not Kind.DIR:
                    continue
                on = self._enter(path, node, on=on)
            inside = [self._child(_join(path, name), node, on=on) for name in self._names(path)]
            waiting += reversed([child for child in inside if child is not None])
        return self._nodes

    def _names(self, path: bytes) -> list[bytes]:
        # As str, as sort_key compares: surrogates of bytes that are no UTF-8 sort elsewhere than the bytes.
        return sorted(os.listdir(_join(self._upper, path)), key=_text)

    def _enter(self, path: bytes, node: _Node, *, on: bool) -> bool:
        """Does the lower directory show through this one? If it is hidden, say so."""
        if not on or not _is_dir(self._below(path)):
            return False
        if not overlay.is_opaque(_join(self._upper, path)):
            return True
        if os.listdir(_join(self._lower, path)):
            self._nodes.append(_Node(Entry(node.entry.path, Kind.OPAQUE), wanted=True, parent=node))
        return False

    def _child(self, path: bytes, parent: _Node, *, on: bool) -> tuple[bytes, _Node, bool] | None:
        found = os.lstat(_join(self._upper, path))
        below = self._below(path) if on else None
        if overlay.is_whiteout(found) or stat.S_IFMT(found.st_mode) == _NO_LAYER_HOLDS:
            if below is None:
                return None
            return path, _Node(Entry(_text(path), Kind.WHITEOUT), wanted=True, parent=parent), False
        wanted = below is None or self._hidden(path, found) or self._differs(path, found)
        node = self._node(_text(path), found, wanted=wanted)
        node.parent = parent
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            node.inode = (found.st_dev, found.st_ino)
        return path, node, on

    def _hidden(self, path: bytes, found: os.stat_result) -> bool:
        return stat.S_ISDIR(found.st_mode) and overlay.is_opaque(_join(self._upper, path))

    def _below(self, path: bytes) -> os.stat_result | None:
        try:
            found = os.lstat(_join(self._lower, path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if stat.S_IFMT(found.st_mode) == _NO_LAYER_HOLDS else found

    def _differs(self, path: bytes, found: os.stat_result) -> bool:
        """Is what both sides have at the path different in anything that a layer says?"""
        below = self._below(path)
        if below is None:
            return True
        now, before = _join(self._upper, path), _join(self._lower, path)
        same = (found.st_mode, found.st_uid, found.st_gid) == (below.st_mode, below.st_uid, below.st_gid)
        if not same or _xattrs(now) != _xattrs(before):
            return True
        if stat.S_ISDIR(found.st_mode):
            return False
        if (found.st_size, found.st_mtime_ns, found.st_rdev) != (below.st_size, below.st_mtime_ns, below.st_rdev):
            return True
        if stat.S_ISLNK(found.st_mode):
            return os.readlink(now) != os.readlink(before)
        return stat.S_ISREG(found.st_mode) and not _same_content(now, before)

    def _node(self, path: str, found: os.stat_result, *, wanted: bool) -> _Node:
        full = _join(self._upper, _bytes(path))
        kind = KIND_OF_FORMAT[stat.S_IFMT(found.st_mode)]
        device = (os.major(found.st_rdev), os.minor(found.st_rdev)) if kind in {Kind.CHAR, Kind.BLOCK} else (0, 0)
        xattrs = _xattrs(full)
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
            link=_text(os.readlink(full)) if kind is Kind.SYMLINK else "",
            device=device,
            xattrs=xattrs,
        )
        return _Node(entry, wanted)


def _xattrs(path: bytes) -> dict[str, bytes]:
    """What a layer keeps, and the mark of a placeholder."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    found = {}
    for name in sorted(names):
        if name == DEVICE_XATTR or (kept_xattr(name) and not name.startswith(PRIVATE_XATTRS)):
            try:
                found[name] = os.getxattr(path, name, follow_symlinks=False)
            except OSError:
                continue  # a namespace that we may not read
    return found


def _same_content(one: bytes, other: bytes) -> bool:
    with _open(one) as left, _open(other) as right:
        while True:
            block = left.read(_BLOCK)
            if block != right.read(_BLOCK):
                return False
            if not block:
                return True


def _open(path: bytes) -> BinaryIO:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ContentError(f"{_text(path)} changed while it was read")
    return os.fdopen(descriptor, "rb", buffering=0)


def _is_dir(found: os.stat_result | None) -> bool:
    return found is not None and stat.S_ISDIR(found.st_mode)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory and name else directory or name


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


