"""Two indexes of one root become the changes of a layer, exactly. Reads content only of files whose numbers say
that they may have changed and may not have."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import BinaryIO, TypeAlias

from kpy.errors import ContentError
from kpy.layer.device import DEVICE_XATTR, PRIVATE_XATTRS, decode_device
from kpy.layer.entry import KIND_OF_FORMAT, Entry, Kind, LayerItem, sort_key
from kpy.linux.beneath import Beneath, link_path
from kpy.linux.ledger import Ledger
from kpy.snapshot.scan import CTIME, DEV, GID, INO, MODE, MTIME, NLINK, RDEV, SIZE, UID, Index, Record
from kpy.util.checkpoint import checked
from kpy.util.streams import pieces

Known: TypeAlias = Callable[[str], Entry | None]
"""What the chain has at a path: the entry with its xattrs and sha256, None if that is not known."""

_SAME_META = (MODE, UID, GID, RDEV)
_BLOCK = 1 << 18


class _Disk:
    """The files below a root, by their relative paths, and what a ledger says of them beyond their numbers. `slots` are
    as for `scan`. No link is followed on the way to a file."""

    def __init__(self, root: str, tree: Beneath, ledger: Ledger | None, slots: Mapping[bytes, bytes]) -> None:
        self._root = root
        self._tree = tree
        self._ledger = ledger
        self._slots = slots

    def full(self, path: bytes) -> bytes:
        """A path of what is there, for calls that do not follow a link at its end; valid until the next one is asked for."""
        return link_path(self._tree.at(path))

    def readlink(self, path: bytes) -> str:
        """Where a symbolic link leads."""
        directory, name = self._tree.at(path)
        return text(os.readlink(name, dir_fd=directory))

    def open(self, path: bytes) -> BinaryIO:
        """A regular file, for reading: also when the differences have come to their end. Raises ContentError."""
        try:
            slot, _, rest = path.partition(b"/")
            top, rest = (self._slots[slot], rest) if slot in self._slots else (os.fsencode(self._root), path)
            with Beneath(top) as tree:
                descriptor = tree.open(rest, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise ContentError(f"cannot read {text(path)}: {os.strerror(error.errno or 0)}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ContentError(f"{text(path)} changed while it was read")
        return os.fdopen(descriptor, "rb")

    def xattrs(self, path: bytes, now: Record) -> dict[str, bytes]:
        """The extended attributes that a layer keeps, sorted."""
        found = self._on_disk(self.full(path))
        told = self._ledger.records.get((now[DEV], now[INO])) if self._ledger is not None else None
        return dict(sorted({**found, **dict(_kept(told.xattrs.items()))}.items())) if told is not None else found

    @staticmethod
    def _on_disk(full: bytes) -> dict[str, bytes]:
        try:
            names = os.listxattr(full, follow_symlinks=False)
        except OSError:
            return {}  # a file system without them
        return {
            name: os.getxattr(full, name, follow_symlinks=False) for name in sorted(names) if kept_xattr(name)
        }


def differences(
    root: str,
    before: Index,
    after: Index,
    known: Known | None = None,
    ledger: Ledger | None = None,
    slots: Mapping[bytes, bytes] | None = None,
) -> Iterator[LayerItem]:
    """What makes `before` into `after`, in the order of a layer (L03). With a `ledger`, both indexes were made with it,
    and extended attributes that it has count as if they were on the disk; `slots` are those of the indexes.

    - Gone paths are whiteouts, topmost only. A directory that became something else needs none: its new entry
      replaces it. One that was deleted and made again has whiteouts for those of its old children that are gone,
      so no opaque marker is needed (L01).
    - A file is a change when type, mode, owner, size, mtime, device, link target, xattrs or content differ (L05);
      a ctime alone is not. Where `known` cannot tell, it counts as a change: never lose one.
    - A directory is a change when its mode, owner or xattrs differ; else it is there only above a change (L02).
    - The root directory is never an entry: BuildKit's layers do not have it.
    - Names of one file are hard links of each other where each is a change by itself; a new name of an old file is a
      file of its own, as in BuildKit's layers.
    """
    with Beneath(root, slots) as tree:
        yield from _differences(_Disk(root, tree, ledger, slots or {}), before, after, known)


def _differences(disk: _Disk, before: Index, after: Index, known: Known | None) -> Iterator[LayerItem]:
    gone = [path for path in before.keys() - after.keys() if _is_dir(after.get(_parent(path)))]
    changed = {
        path
        for path, now in checked(after.items())
        if path and before.get(path) != now and _changed(disk, path, before.get(path), now, known)
    }
    links = _link_groups(after, changed)
    for path in [*gone, *changed]:
        while path:
            path = _parent(path)
            if not path or path in changed:
                break
            changed.add(path)
    first = {name: names[0] for names in links.values() for name in names[1:]}
    twins = _twins(after, changed, links)
    whiteouts = set(gone)
    for path in checked(sorted([*gone, *changed], key=_order)):
        if path in whiteouts:
            yield LayerItem(Entry(text(path), Kind.WHITEOUT))
        else:
            item = _item(disk, path, after[path], first.get(path))
            yield replace(item, twin=text(twins[path])) if path in twins else item


def text(path: bytes) -> str:
    """A path in the form of Entry."""
    return path.decode("utf-8", "surrogateescape")


def kept_xattr(name: str) -> bool:
    """Does a layer keep this extended attribute? File capabilities and the user's own; labels, ACLs and the marks
    of overlayfs belong to the machine."""
    return name == "security.capability" or (name.startswith("user.") and not name.startswith(PRIVATE_XATTRS))


def _order(path: bytes) -> str:
    return sort_key(Entry(text(path), Kind.FILE))


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def _is_dir(found: Record | None) -> bool:
    return found is not None and stat.S_ISDIR(found[MODE])


def _changed(disk: _Disk, path: bytes, before: Record | None, now: Record, known: Known | None) -> bool:
    """Is this a change, for a path whose numbers differ?"""
    if before is None or any(before[field] != now[field] for field in _SAME_META):
        return True
    if _is_dir(now):
        entry = known(text(path)) if known else None
        has = disk.xattrs(path, now)
        return has != dict(_kept(entry.xattrs.items())) if entry and entry.kind is Kind.DIR else bool(has)
    if before[SIZE] != now[SIZE] or before[MTIME] != now[MTIME]:
        return True
    if before[CTIME] == now[CTIME] and before[DEV] == now[DEV] and before[INO] == now[INO]:
        return False  # nothing but nlink, which would have moved ctime
    return not _equals_known(disk, path, now, known)


def _equals_known(disk: _Disk, path: bytes, now: Record, known: Known | None) -> bool:
    """Has the file surely the xattrs and the content that the chain has there? The metadata is known to be equal."""
    entry = known(text(path)) if known else None
    if entry is None or entry.kind is not KIND_OF_FORMAT[stat.S_IFMT(now[MODE])]:
        return False
    if entry.kind is Kind.SYMLINK:
        return entry.link == disk.readlink(path)
    if entry.kind is not Kind.FILE:
        return True
    if (
        not entry.sha256
        or entry.size != now[SIZE]
        or disk.xattrs(path, now) != dict(_kept(entry.xattrs.items()))
    ):
        return False
    with disk.open(path) as file:
        return _sha256(file) == entry.sha256


def _twins(after: Index, changed: set[bytes], links: dict[tuple[int, int], list[bytes]]) -> dict[bytes, bytes]:
    """For new names of old files: an old name, which is no change (see LayerItem.twin)."""
    found: dict[bytes, bytes] = {}
    if any(after[names[0]][NLINK] > len(names) for names in links.values()):
        for path, now in after.items():
            names = links.get((now[DEV], now[INO])) if now[NLINK] > 1 else None
            if names and path not in changed:
                found.setdefault(names[0], path)
    return found


def _link_groups(after: Index, changed: set[bytes]) -> dict[tuple[int, int], list[bytes]]:
    """For every changed file of several names: those that are changes, in the order of a layer."""
    groups: dict[tuple[int, int], list[bytes]] = {}
    for path in changed:
        now = after[path]
        if now[NLINK] > 1 and not _is_dir(now):
            groups.setdefault((now[DEV], now[INO]), []).append(path)
    for names in groups.values():
        names.sort(key=_order)
    return groups


def _item(disk: _Disk, path: bytes, now: Record, target: bytes | None) -> LayerItem:
    """The file as it is."""
    kind = KIND_OF_FORMAT[stat.S_IFMT(now[MODE])]
    device, link = (0, 0), ""
    if kind is Kind.FILE:
        kind, device = _placeholder(disk, path, now)
    elif kind in {Kind.CHAR, Kind.BLOCK}:
        device = (os.major(now[RDEV]), os.minor(now[RDEV]))
    if target is not None:
        kind, link, device = Kind.HARDLINK, text(target), (0, 0)
    elif kind is Kind.SYMLINK:
        link = disk.readlink(path)
    entry = Entry(
        path=text(path),
        kind=kind,
        mode=stat.S_IMODE(now[MODE]),
        uid=now[UID],
        gid=now[GID],
        size=now[SIZE] if kind is Kind.FILE else 0,
        mtime=now[MTIME],
        link=link,
        device=device,
        xattrs=disk.xattrs(path, now) if kind in {Kind.FILE, Kind.DIR} else {},
    )
    return LayerItem(entry, (lambda: disk.open(path)) if kind is Kind.FILE else None)


def _placeholder(disk: _Disk, path: bytes, now: Record) -> tuple[Kind, tuple[int, int]]:
    """An empty file may stand for a device that could not be made when its layer was unpacked."""
    if not now[SIZE]:
        try:
            found = decode_device(os.getxattr(disk.full(path), DEVICE_XATTR, follow_symlinks=False))
        except OSError:
            found = None
        if found:
            return found
    return Kind.FILE, (0, 0)


def _kept(pairs: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    return ((name, value) for name, value in pairs if kept_xattr(name))


def _sha256(file: BinaryIO) -> str:
    total = hashlib.sha256()
    for block in pieces(file, _BLOCK):
        total.update(block)
    return total.hexdigest()
