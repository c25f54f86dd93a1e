"""Answers to the stat family: three of four notifications of an installation are these, so here the kernel's own
structure is fetched, its few fields patched, and the whole of it given to the caller."""

import ctypes
import errno
import os
import stat
import struct

from kpy.emulation.call import Call, refuse
from kpy.emulation.credentials import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
from kpy.emulation.paths import AT_FDCWD, Place
from kpy.linux.syscalls import (
    STATX_DEV,
    STATX_GID,
    STATX_INO,
    STATX_MODE,
    STATX_RDEV,
    STATX_SIZE,
    STATX_UID,
    Arch,
    StatLayout,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kpy.emulation.call import Handler

_ALL = 0xFFFFFFFF
_FDCWD = -100
_SYMLINK_NOFOLLOW, _EMPTY_PATH = 0x100, 0x1000
_SEARCHES = CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH
_INO_BIT = 0x100

_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class Stats:
    """The handlers, with the buffers that they use again and again."""

    def __init__(self, arch: Arch) -> None:
        assert arch.stat is not None
        self._layout: StatLayout = arch.stat
        self._owner = struct.Struct("<II")  # uid and gid are neighbours in both layouts
        self._key = struct.Struct("<QQ")  # so are st_dev and st_ino, at the beginning
        self._newfstatat = ctypes.c_long(arch.numbers["newfstatat"])
        self._statx = ctypes.c_long(arch.numbers["statx"])
        self._stat_buffer = ctypes.create_string_buffer(self._layout.size)
        self._statx_buffer = ctypes.create_string_buffer(STATX_SIZE)
        self.handlers: Mapping[str, Handler] = {
            "stat": lambda call: self._stat(call, call.place(AT_FDCWD, call.args[0]), call.args[1], follow=True),
            "lstat": lambda call: self._stat(call, call.place(AT_FDCWD, call.args[0]), call.args[1], follow=False),
            "fstat": lambda call: self._stat(call, call.descriptor(call.args[0]), call.args[1], follow=True),
            "newfstatat": self._newfstatat_handler,
            "statx": self._statx_handler,
        }

    def _newfstatat_handler(self, call: Call) -> int:
        directory, path, address, flags = call.args[:4]
        flags &= _ALL
        if flags & _EMPTY_PATH:
            name = call.world.memory.path(call.pid, path) if path else b""
            if not name:
                return self._stat(call, call.descriptor(directory), address, follow=True)
            place = call.world.places.of_path(call.pid, directory, name)
        else:
            place = call.place(directory, path)
        return self._stat(call, place, address, follow=not flags & _SYMLINK_NOFOLLOW)

    def _stat(self, call: Call, place: Place, address: int, *, follow: bool) -> int:
        who = call.who
        if not who.effective & _SEARCHES:
            call.world.guard.search(who, place, follow=follow)
        buffer, layout = self._stat_buffer, self._layout
        at = _FDCWD if place.dir_fd is None else place.dir_fd
        if _syscall(self._newfstatat, at, place.path, buffer, 0 if follow else _SYMLINK_NOFOLLOW) < 0:
            raise refuse(ctypes.get_errno())
        files = call.world.files
        key = self._key.unpack_from(buffer)
        if not follow and (beyond := files.slots.get(key)):
            return self._stat(call, Place(beyond), address, follow=False)
        record = files.recorded(key, place.path, place.dir_fd, follow=follow)
        if record is None:
            uid, gid = self._owner.unpack_from(buffer, layout.uid)
            uid, gid = files.shown(uid, gid)
            if who.fsuid and key[0] in files.anonymous:
                uid, gid = who.fsuid, who.fsgid
        else:
            uid, gid = record.uid, record.gid
            struct.pack_into("<I", buffer, layout.mode, record.mode or _nothing(place))
            if record.rdev:
                struct.pack_into("<Q", buffer, layout.rdev, record.rdev)
        self._owner.pack_into(buffer, layout.uid, uid, gid)
        call.write(address, buffer.raw)
        return 0

    def _statx_handler(self, call: Call) -> int:
        directory, path, flags, mask, address = call.args[:5]
        flags &= _ALL
        name = call.world.memory.path(call.pid, path) if path or not flags & _EMPTY_PATH else b""
        if name or not flags & _EMPTY_PATH:
            place, follow = call.world.places.of_path(call.pid, directory, name), not flags & _SYMLINK_NOFOLLOW
        else:
            place, follow = call.descriptor(directory), True
            flags &= ~(_EMPTY_PATH | _SYMLINK_NOFOLLOW)
        if mask & 1 << 31:
            raise refuse(errno.EINVAL)
        who, files = call.who, call.world.files
        if not who.effective & _SEARCHES:
            call.world.guard.search(who, place, follow=follow)
        buffer = self._statx_buffer
        at = _FDCWD if place.dir_fd is None else place.dir_fd
        asked = ctypes.c_uint(mask & _ALL | _INO_BIT)
        if _syscall(self._statx, at, place.path, flags, asked, buffer) < 0:
            raise refuse(ctypes.get_errno())
        device = os.makedev(*struct.unpack_from("<II", buffer, STATX_DEV))
        key = (device, struct.unpack_from("<Q", buffer, STATX_INO)[0])
        if not follow and (beyond := files.slots.get(key)):
            if _syscall(self._statx, _FDCWD, beyond, flags, asked, buffer) < 0:
                raise refuse(ctypes.get_errno())
            place = Place(beyond)
            device = os.makedev(*struct.unpack_from("<II", buffer, STATX_DEV))
            key = (device, struct.unpack_from("<Q", buffer, STATX_INO)[0])
        record = files.recorded(key, place.path, place.dir_fd, follow=follow)
        uid, gid = struct.unpack_from("<II", buffer, STATX_UID)
        if record is None:
            uid, gid = files.shown(uid, gid)
            if who.fsuid and device in files.anonymous:
                uid, gid = who.fsuid, who.fsgid
        else:
            uid, gid = record.uid, record.gid
            struct.pack_into("<H", buffer, STATX_MODE, record.mode or _nothing(place))
            if record.rdev:
                struct.pack_into("<II", buffer, STATX_RDEV, os.major(record.rdev), os.minor(record.rdev))
        struct.pack_into("<II", buffer, STATX_UID, uid, gid)
        call.write(address, buffer.raw)
        return 0


def _nothing(place: Place) -> int:
    """The mode of a slot that stands for nothing (ABSENT): not to be found by its name, and empty for who has it open."""
    if place.path != place.base:
        raise refuse(errno.ENOENT)
    return stat.S_IFDIR | 0o755


assert STATX_GID == STATX_UID + 4
