"""Answers to execve: set-id programs become who their owner is (the kernel ignores the bits under no_new_privs), and
capabilities are what the new program has. Also chroot, which is refused but for where we are."""

import errno
import os
import stat
import struct

from kpy.emulation import credentials
from kpy.emulation.call import PROCEED, Call, refuse
from kpy.emulation.credentials import Credentials
from kpy.emulation.files import CAPABILITY, File
from kpy.emulation.guard import is_unrestricted
from kpy.emulation.owners import at
from kpy.emulation.paths import AT_FDCWD, Place
from kpy.emulation.permissions import EXECUTE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kpy.emulation.call import Handler

_SYMLINK_NOFOLLOW = 0x100
_EFFECTIVE = 1  # VFS_CAP_FLAGS_EFFECTIVE
_MOST_SCRIPTS = 4  # of scripts whose interpreters are scripts (fs/exec.c)


def _execve(call: Call, place: Place, *, follow: bool) -> int | None:
    """The kernel executes; the credentials are changed before, and back if it could not: known by what the process
    runs when it is heard of again."""
    world, who = call.world, call.who
    world.memory.forget(call.pid)
    if not is_unrestricted(who):
        world.guard.search(who, place, follow=follow)
    file = world.files.look(place, follow=follow)
    if not stat.S_ISREG(file.mode):
        return PROCEED
    if not is_unrestricted(who):
        world.guard.use(who, file, EXECUTE)
    script = _interpreter(place)
    after = _after(who, file, is_script=bool(script))
    if after == who:
        return PROCEED
    program = _program(file, script)
    if program is None:
        return PROCEED
    world.identities.become(call.pid, after)
    pid, before = call.pid, _running(call.pid)

    def check() -> None:
        if _running(pid) != program and before != program:
            world.identities.become(pid, who)

    world.afterwards[pid] = check
    return PROCEED


def _after(who: Credentials, file: File, *, is_script: bool) -> Credentials:
    uid = gid = None
    permitted = inheritable = 0
    effective = False
    if not is_script:
        if file.mode & stat.S_ISUID:
            uid = file.uid
        if file.mode & stat.S_ISGID and file.mode & stat.S_IXGRP:
            gid = file.gid
        value = file.record.xattrs.get(CAPABILITY) if file.record is not None else None
        if value is not None and len(value) >= 20:
            magic, *halves = struct.unpack_from("<5I", value)
            permitted, inheritable = halves[0] | halves[2] << 32, halves[1] | halves[3] << 32
            effective = bool(magic & _EFFECTIVE)
    return credentials.execve(who, uid, gid, permitted, inheritable, file_effective=effective)


def _interpreter(place: Place) -> bytes:
    """Of a script; empty for another program."""
    try:
        descriptor = os.open(place.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place.dir_fd)
    except OSError:
        return b""
    try:
        head = os.read(descriptor, 256)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    words = head[2:].split(b"\n", 1)[0].split() if head.startswith(b"#!") else []
    return words[0] if words else b""


def _program(file: File, script: bytes) -> tuple[int, int] | None:
    """What the process will run: the file, or the interpreter of the script at the end of all interpreters."""
    key = file.key
    for _ in range(_MOST_SCRIPTS):
        if not script:
            return key
        try:
            status = os.stat(script)
        except OSError:
            return None
        key = (status.st_dev, status.st_ino)
        script = _interpreter(Place(script))
    return None


def _running(pid: int) -> tuple[int, int] | None:
    try:
        status = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _execveat(call: Call) -> int | None:
    flags = call.args[4]
    place, follow = at(call, call.args[0], call.args[1], flags)
    return _execve(call, place, follow=follow)


def _chroot(call: Call) -> int:
    """There is one root directory. Some scripts go to it again, to no effect."""
    place = call.place(AT_FDCWD, call.args[0])
    status, root = os.stat(place.path, dir_fd=place.dir_fd), os.stat("/")
    if (status.st_dev, status.st_ino) == (root.st_dev, root.st_ino) and call.who.euid == 0:
        return 0
    raise refuse(errno.EPERM)


HANDLERS: "Mapping[str, Handler]" = {
    "execve": lambda call: _execve(call, call.place(AT_FDCWD, call.args[0]), follow=True),
    "execveat": _execveat,
    "chroot": _chroot,
}
