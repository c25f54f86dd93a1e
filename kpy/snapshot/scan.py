"""The index of a root: the numbers by which a later scan tells what changed. Reads no content, follows no symlink,
enters nothing that it is told to leave out."""

import os
import stat
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TypeAlias

from kpy.linux.beneath import LIST, Beneath
from kpy.linux.birth import recorded
from kpy.linux.ledger import Ledger
from kpy.util.checkpoint import checked, checkpoint
from kpy.util.nesting import Paths

Record: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int]
Index: TypeAlias = dict[bytes, Record]  # by path relative to the root; the root itself is b""

DEV, INO, CTIME, MTIME, MODE, SIZE, NLINK, UID, GID, RDEV = range(10)

_CLOCK_REALTIME_COARSE = 5  # linux/time.h
_SECOND = 1_000_000_000


def record(found: os.stat_result) -> Record:
    """The numbers of one file."""
    return (
        found.st_dev,
        found.st_ino,
        found.st_ctime_ns,
        found.st_mtime_ns,
        found.st_mode,
        found.st_size,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        found.st_rdev,
    )


def scan(
    root: str,
    skip: AbstractSet[bytes] = frozenset(),
    *,
    ledger: Ledger | None = None,
    slots: Mapping[bytes, bytes] | None = None,
) -> Index:
    """Index everything below `root`, and the root itself, but not the relative paths in `skip` nor what is below.

    No process may be changing the root meanwhile. Sockets are left out: no layer can hold them. With a `ledger`, files
    are what it says, and root's where it says nothing. `slots` are directories of the root that are elsewhere, by name.
    What the root has under the name of a slot does not matter: a RUN may have put a link there. Nothing is resolved but
    below a descriptor, so a link is never followed.
    Cost: one readdir for a directory and one lstat for a file, about 10 us a file; threads make it slower (the
    interpreter's lock), and getdents64 does not make it faster.
    """
    slots, paths = slots or {}, Paths()
    with Beneath(root, slots) as tree:
        index: Index = {b"": record(os.fstat(tree.top))}
        pending = [b"", *sorted(slots.keys() - skip)]
        for name in pending[1:]:
            place = tree.at(name)[0]
            found = os.fstat(place)
            index[name] = record(found) if ledger is None else _told(ledger, place, b"", found)
        while pending:
            checkpoint()
            _list(tree, pending.pop(), index, pending, skip, ledger, slots, paths)
    return index


def _list(
    tree: Beneath, directory: bytes, index: Index, pending: list[bytes], skip: AbstractSet[bytes], ledger: Ledger | None,
    slots: Mapping[bytes, bytes], paths: Paths,
) -> None:  # fmt: skip
    """Index what is in one directory of the tree."""
    try:
        place = tree.open(directory, LIST)
    except FileNotFoundError:
        return
    prefix = directory + b"/" if directory else b""
    try:
        with os.scandir(place) as entries:
            for entry in checked(entries):
                name = os.fsencode(entry.name)
                path = prefix + name
                if path in skip or path in slots:
                    continue
                found = entry.stat(follow_symlinks=False)
                kind = found.st_mode & 0o170000
                if kind == stat.S_IFSOCK:
                    continue
                index[paths.add(path)] = record(found) if ledger is None else _told(ledger, place, name, found)
                if kind == stat.S_IFDIR:
                    pending.append(path)
    finally:
        os.close(place)


def _told(ledger: Ledger, place: int, name: bytes, found: os.stat_result) -> Record:
    """The numbers of a file whose owner, mode and device the disk may not tell."""
    told = recorded(ledger, (found.st_dev, found.st_ino), place, name)
    mode, uid, gid, rdev = (found.st_mode, 0, 0, 0) if told is None else (told.mode, told.uid, told.gid, told.rdev)
    return (
        found.st_dev, found.st_ino, found.st_ctime_ns, found.st_mtime_ns, mode, found.st_size, found.st_nlink, uid, gid,
        rdev or found.st_rdev,
    )  # fmt: skip


def altered(old: Record, *, mode: int | None = None, mtime: int | None = None) -> Record:
    """The numbers with another mode or time."""
    dev, ino, ctime, old_mtime, old_mode, size, nlink, uid, gid, rdev = old
    mode, mtime = old_mode if mode is None else mode, old_mtime if mtime is None else mtime
    return dev, ino, ctime, mtime, mode, size, nlink, uid, gid, rdev


def settle(index: Index, *, patience: float = 1.1) -> None:
    """Wait until every later change gets a ctime that no file in the index has.

    Before Linux 6.13, and on some file systems still, ctime has the grain of the kernel's tick (1 to 10 ms) or of
    a second: a change right after a scan could go unseen. Files from the future (the clock was set back) are not
    waited for: what changes now differs from them anyway.
    """
    newest = max(entry[CTIME] for entry in index.values())
    if not any(entry[CTIME] % _SECOND for entry in index.values()):
        newest += _SECOND - 1  # a file system that keeps whole seconds
    end = time.monotonic() + patience
    while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) <= newest and time.monotonic() < end:
        checkpoint()
        time.sleep(0.001)
