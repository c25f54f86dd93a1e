"""Which file is this, for good? By its inode and the time of its birth: an inode is given to another file when the
first is gone. Reads nothing else."""

import ctypes
import os
import struct

from kpy.linux import libc
from kpy.linux.ledger import Key, Ledger, Record
from kpy.linux.syscalls import STATX_BTIME, STATX_BTIME_BIT, STATX_DEV, STATX_INO, STATX_SIZE, native

_SYMLINK_NOFOLLOW, _EMPTY_PATH = 0x100, 0x1000
_INO = 0x100


def identify(place: int, name: bytes = b"") -> tuple[Key, int]:
    """The key of a file, by its name in an open directory (no symlink followed) or as the open file itself, and when it
    was born in nanoseconds, 0 where the file system does not know. Raises OSError."""
    arch = native()
    if arch is None:  # as if the file system knew of no births: only what has the same inode is then confused
        found = os.stat(name, dir_fd=place, follow_symlinks=False) if name else os.fstat(place)
        return (found.st_dev, found.st_ino), 0
    buffer = ctypes.create_string_buffer(STATX_SIZE)
    flags = _SYMLINK_NOFOLLOW | _EMPTY_PATH
    libc.syscall(arch.numbers["statx"], "statx", place, name, flags, _INO | STATX_BTIME_BIT, buffer, path=name)
    data = buffer.raw
    seconds, nanoseconds = struct.unpack_from("<qI", data, STATX_BTIME)
    known = struct.unpack_from("<I", data)[0] & STATX_BTIME_BIT
    key = (os.makedev(*struct.unpack_from("<II", data, STATX_DEV)), struct.unpack_from("<Q", data, STATX_INO)[0])
    return key, seconds * 1_000_000_000 + nanoseconds if known else 0


def recorded(ledger: Ledger, key: Key, place: int, name: bytes = b"") -> Record | None:
    """The record of the file with this key, which is the one that `identify` means. None if the file that was recorded is
    gone and its inode was used again; the stale record is dropped."""
    record = ledger.records.get(key)
    if record is not None and record.born and identify(place, name)[1] != record.born:
        del ledger.records[key]
        return None
    return record
