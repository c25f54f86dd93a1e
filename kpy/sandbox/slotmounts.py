"""A mount at a directory of `/` that stays where it is (kpy.snapshot.slots): what is in it is moved aside, and what is to
be mounted is put into it."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kpy.errors import SandboxError
from kpy.linux import libc
from kpy.linux.birth import identify, recorded
from kpy.linux.ledger import Ledger, Record
from kpy.sandbox.base import Mount
from kpy.sandbox.carry import carrying
from kpy.util.copytree import copy
from kpy.util.erase import empty, remove


def is_slot(target: str, ledger: Ledger | None) -> bool:
    """Is it such a directory?"""
    if ledger is None or not ledger.slots:
        return False
    try:
        found = os.lstat(target)
    except OSError:
        return False
    return ledger.slots.get((found.st_dev, found.st_ino)) == b""


@contextmanager
def filled(mount: Mount, target: str, aside: str, ledger: Ledger) -> Iterator[None]:
    """Have the mount there while the block runs, and afterwards everything as it was."""
    if mount.kind == "file" or (mount.kind == "bind" and not os.path.isdir(mount.source)):
        raise SandboxError(f"a file cannot be mounted at {mount.target}, which is a directory here", errno=errno.ENOTDIR)
    key, born = identify(libc.AT_FDCWD, os.fsencode(target))
    before = ledger.records.get(key)
    os.mkdir(aside, 0o700)
    made = carrying(ledger)
    _move_all(target, aside, made)
    try:
        ledger.records[key] = Record(stat.S_IFDIR | 0o1777, mount.uid, mount.gid, born=born)
        if mount.kind == "bind":
            found = os.stat(mount.source)
            old = recorded(ledger, (found.st_dev, found.st_ino), os.fsencode(mount.source))
            uid, gid = (mount.uid, mount.gid) if old is None else (old.uid, old.gid)
            ledger.records[key] = Record(found.st_mode if old is None else old.mode, uid, gid, born=born)
        writes = mount.kind == "bind" and not mount.read_only and not mount.discard
        if writes:
            _move_all(mount.source, target, made)
        elif mount.kind == "bind":
            for name in os.listdir(mount.source):
                copy(os.path.join(mount.source, name), os.path.join(target, name), made=made)
        try:
            yield
        finally:
            if writes:
                _move_all(target, mount.source, made)
                made(target, mount.source)
    finally:
        empty(target)
        _move_all(aside, target, made)
        os.rmdir(aside)
        if before is not None:
            ledger.records[key] = before
        else:
            ledger.records.pop(key, None)


def _move_all(source: str, target: str, made: Callable[[str, str], None]) -> None:
    for name in os.listdir(source):
        old, new = os.path.join(source, name), os.path.join(target, name)
        try:
            os.rename(old, new)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy(old, new, made=made)
            remove(old)
