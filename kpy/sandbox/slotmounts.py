"""A mount at a directory of `/` that stays where it is (kpy.snapshot.slots): what is in it is set aside, and what is to
be mounted is put into it. By descriptors from before the RUN; no link is followed."""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from kpy.errors import SandboxError
from kpy.linux.beneath import LIST, At, names, open_source
from kpy.linux.birth import identify, recorded
from kpy.linux.copytree import Made, copy
from kpy.linux.ledger import Ledger, Record
from kpy.sandbox.base import Mount
from kpy.sandbox.carry import carrying
from kpy.util.checkpoint import Shielded
from kpy.util.erase import empty, remove

_SELF = b"."


def is_slot(target: At, ledger: Ledger | None) -> bool:
    """Is it such a directory?"""
    if ledger is None or not ledger.slots:
        return False
    try:
        found = os.stat(target[1], dir_fd=target[0], follow_symlinks=False)
    except OSError:
        return False
    return ledger.slots.get((found.st_dev, found.st_ino)) == b""


@contextmanager
def filled(mount: Mount, target: At, shelf: int, ledger: Ledger) -> Iterator[None]:
    """Have the mount there while the block runs, and afterwards everything as it was. `shelf` is the directory where
    things are set aside."""
    with ExitStack() as stack:

        def hold(name: bytes, directory: int) -> int:
            place = os.open(name, LIST, dir_fd=directory)
            stack.callback(os.close, place)
            return place

        slot = hold(target[1], target[0])
        source = _source(mount, stack)
        key, born = identify(slot)
        before = ledger.records.get(key)
        made = carrying(ledger)
        name = secrets.token_hex(8).encode()
        os.mkdir(name, 0o700, dir_fd=shelf)
        aside = hold(name, shelf)
        _move_all(slot, aside, made)
        try:
            ledger.records[key] = Record(stat.S_IFDIR | 0o1777, mount.uid, mount.gid, born=born)
            if source is not None:
                found = os.fstat(source)
                old = recorded(ledger, (found.st_dev, found.st_ino), source)
                uid, gid = (mount.uid, mount.gid) if old is None else (old.uid, old.gid)
                ledger.records[key] = Record(found.st_mode if old is None else old.mode, uid, gid, born=born)
            with _content(mount, slot, source, made):
                yield
        finally:
            with Shielded():
                empty(slot)
                _move_all(aside, slot, made)
            os.rmdir(name, dir_fd=shelf)
            if before is not None:
                ledger.records[key] = before
            else:
                ledger.records.pop(key, None)


def _source(mount: Mount, stack: ExitStack) -> int | None:
    """A descriptor of the directory that a bind is of. Raises SandboxError if it is none, OSError."""
    if mount.kind == "tmpfs":
        return None
    try:
        if mount.kind == "file":
            raise NotADirectoryError
        place = open_source(os.fsencode(mount.trusted), os.fsencode(os.path.normpath(mount.source)), LIST)
    except NotADirectoryError as error:
        raise SandboxError(
            f"a file cannot be mounted at {mount.target}, which is a directory here", errno=errno.ENOTDIR
        ) from error
    stack.callback(os.close, place)
    return place


@contextmanager
def _content(mount: Mount, slot: int, source: int | None, made: Made) -> Iterator[None]:
    """Have what is in the source in the slot; and what is in the slot then in the source, if it keeps what is written."""
    if source is None:
        yield
    elif mount.read_only or mount.discard:
        for name in names(source):
            copy((source, name), (slot, name), made=made)
        yield
    else:
        _move_all(source, slot, made)
        try:
            yield
        finally:
            with Shielded():
                _move_all(slot, source, made)
            made((slot, _SELF), (source, _SELF))


def _move_all(source: int, target: int, made: Callable[[At, At], None]) -> None:
    for name in names(source):
        try:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy((source, name), (target, name), made=made)
            remove(name, source)
