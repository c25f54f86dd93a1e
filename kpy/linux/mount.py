"""Mounts: flags, binds, read-only trees. Says how to mount, not what or where."""

import ctypes
import errno
import os
import struct

from kpy.linux import libc

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_RELATIME = 0x200000
MNT_DETACH = 0x2

_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 0x1
# statvfs' f_flag and mount's flags agree but for the last one (<bits/statvfs.h>).
_KEPT = {0x1: MS_RDONLY, 0x2: MS_NOSUID, 0x4: MS_NODEV, 0x8: MS_NOEXEC, 0x400: MS_NOATIME, 0x800: MS_NODIRATIME,
         0x1000: MS_RELATIME}  # fmt: skip


def by_descriptor(descriptor: int) -> bytes:
    """A path that means exactly this open (O_PATH) file, for calls that take only paths. Needs /proc."""
    return b"/proc/self/fd/%d" % descriptor


def bind(source: bytes, target: bytes, *, recursive: bool = True) -> None:
    """Show `source` at `target`. Recursive by default: in a user namespace, a bind that would uncover what the host
    mounted below the source is refused (mount_namespaces(7), locked mounts)."""
    libc.mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))


def make_private() -> None:
    """What is mounted here from now on shows nowhere else, and the other way round."""
    libc.mount(None, b"/", None, MS_REC | MS_PRIVATE)


def make_read_only(target: bytes) -> None:
    """Make the mount at `target` and all below it read-only."""
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    try:
        libc.syscall(libc.SYS_MOUNT_SETATTR, "mount_setattr", libc.AT_FDCWD, target, _AT_RECURSIVE, attributes,
                     len(attributes), path=target)  # fmt: skip
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EPERM}:  # before Linux 5.12; a container's filter may say EPERM
            raise
        for point in [target, *_below(os.path.realpath(target))]:
            _remount_read_only(point)


def _remount_read_only(target: bytes) -> None:
    libc.mount(None, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | _flags_of(target))


def freeze(target: bytes) -> None:
    """Make the file system mounted at `target` read-only, wherever it is mounted and for whoever has a descriptor in it. Needs
    CAP_SYS_ADMIN in the user namespace that mounted it. Raises OSError EBUSY while a file is open for writing."""
    libc.mount(None, target, None, MS_REMOUNT | MS_RDONLY | _flags_of(target))


def _flags_of(target: bytes) -> int:
    held = os.statvfs(target).f_flag  # a user namespace may not take away what the host set: repeat it
    return sum(flag for bit, flag in _KEPT.items() if held & bit)


def _below(target: bytes) -> list[bytes]:
    from kpy.util import mountinfo  # only on old kernels: it imports re

    base = os.fsencode(target)
    with open("/proc/self/mountinfo", "rb") as table:
        return [os.path.join(base, point) for point in mountinfo.below(base, mountinfo.parse(table.read()))]


class Pending:
    """A file system that is being configured with the mount API of Linux 5.2 (fsopen, fsconfig, fsmount)."""

    def __init__(self, fstype: bytes) -> None:
        self._fs = libc.syscall(libc.SYS_FSOPEN, "fsopen", fstype, 1)
        self._fstype = fstype

    def __enter__(self) -> "Pending":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fs)

    def flag(self, key: bytes) -> None:
        """Set an option without a value."""
        self._config(0, key, None)

    def text(self, key: bytes, value: bytes) -> None:
        """Set an option."""
        self._config(1, key, value)

    def attach(self, target: bytes, *, read_only: bool = False) -> None:
        """Create the file system and mount it."""
        self._config(6, None, None)
        attributes = _MOUNT_ATTR_RDONLY if read_only else 0
        mounted = libc.syscall(libc.SYS_FSMOUNT, "fsmount", self._fs, 1, attributes)
        try:
            libc.syscall(libc.SYS_MOVE_MOUNT, "move_mount", mounted, b"", libc.AT_FDCWD, target, 0x4, path=target)
        finally:
            os.close(mounted)

    def _config(self, command: int, key: bytes | None, value: bytes | None) -> None:
        null = ctypes.c_void_p(None)
        libc.syscall(libc.SYS_FSCONFIG, "fsconfig", self._fs, command, null if key is None else key,
                     null if value is None else value, 0, path=value or self._fstype)  # fmt: skip
