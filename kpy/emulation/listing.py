"""What `/` lists, where it is not the image's alone (kpy.emulation.slots): names that stand for nothing are left out, else
`find /` would stumble over them, and so are the builder's own."""

import ctypes
import os
import struct

from kpy.emulation.call import PROCEED, Call
from kpy.linux import libc
from kpy.linux.ledger import ABSENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kpy.emulation.call import Handler

_HEAD = struct.Struct("<QqHB")  # struct linux_dirent64: inode, offset, length, type; the name follows
_MOST = 1 << 16
_OURS = (b"kroot", b"kpy")


def _getdents(call: Call) -> int | None:
    """Read it ourselves, from where the caller's descriptor is. It then gets ours in its place, which is at the new
    offset: nobody can move another's."""
    files = call.world.files
    if not files.slots:
        return PROCEED
    number = call.args[0] & 0xFFFFFFFF
    place, root = call.descriptor(number), os.stat(b"/")
    found = os.stat(place.path)
    if (found.st_dev, found.st_ino) != (root.st_dev, root.st_ino):
        return PROCEED
    with open(f"/proc/{call.pid}/fdinfo/{number}", "rb") as file:
        fields = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
    descriptor = os.open(b"/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.lseek(descriptor, int(fields[b"pos"]), os.SEEK_SET)
        buffer = ctypes.create_string_buffer(min(call.args[2] & 0xFFFFFFFF, _MOST))
        shown = b""
        while not shown:
            size = libc.syscall(call.world.arch.numbers["getdents64"], "getdents64", descriptor, buffer, len(buffer))
            if size == 0:
                break
            shown = _shown(call, buffer.raw[:size])
        call.write(call.args[1], shown)
        close_on_exec = bool(int(fields[b"flags"], 8) & os.O_CLOEXEC)
        call.world.listener.replace(call.number, descriptor, number, close_on_exec=close_on_exec)
    finally:
        os.close(descriptor)
    return len(shown)


def _shown(call: Call, entries: bytes) -> bytes:
    """The entries that are the image's."""
    parts = []
    while entries:
        inode, offset, length, _ = _HEAD.unpack_from(entries)
        entry, entries = entries[:length], entries[length:]
        name = entry[_HEAD.size :].partition(b"\0")[0]
        kind = _kind(call, name)
        if kind:
            parts.append(_HEAD.pack(inode, offset, length, kind) + entry[_HEAD.size :])
    return b"".join(parts)


def _kind(call: Call, name: bytes) -> int:
    """The type of what the name stands for, as directories have it (DT_DIR and so on); 0 if that is nothing."""
    if name in _OURS:
        return 0
    files = call.world.files
    try:
        found = os.lstat(b"/" + name)
        key = (found.st_dev, found.st_ino)
        beyond = files.slots.get(key)
        if beyond:
            found = os.lstat(beyond)
        elif beyond is not None:
            record = files.recorded(key, b"/" + name, follow=False)
            if record is not None and record.mode == ABSENT:
                return 0
    except OSError:
        return 0
    return found.st_mode >> 12 & 15


HANDLERS: "Mapping[str, Handler]" = {"getdents64": _getdents}
