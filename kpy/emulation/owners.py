"""Answers to the calls that change owners and modes."""

import errno
import stat
import struct

from kpy.emulation import permissions
from kpy.emulation.call import PROCEED, Call, refuse
from kpy.emulation.files import CAPABILITY
from kpy.emulation.guard import is_unrestricted
from kpy.emulation.paths import AT_FDCWD, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kpy.emulation.call import Handler

_ALL = 0xFFFFFFFF
_SYMLINK_NOFOLLOW, _EMPTY_PATH = 0x100, 0x1000
_NOW, _OMIT = 0x3FFFFFFF, 0x3FFFFFFE  # UTIME_NOW, UTIME_OMIT


def _given(number: int) -> int | None:
    number &= _ALL
    return None if number == _ALL else number


def _chown(call: Call, place: Place, owner: int, group: int, *, follow: bool) -> int:
    uid, gid = _given(owner), _given(group)
    who, files = call.who, call.world.files
    call.world.guard.search(who, place, follow=follow)
    file = files.look(place, follow=follow)
    if not permissions.may_chown(who, file.uid, file.gid, uid, gid):
        raise refuse(errno.EPERM)
    uid = file.uid if uid is None else uid
    gid = file.gid if gid is None else gid
    mode = permissions.after_chown(who, file.mode, file.gid)
    xattrs = file.record.xattrs if file.record is not None else {}
    if CAPABILITY in xattrs and not stat.S_ISDIR(file.mode):
        xattrs = {name: value for name, value in xattrs.items() if name != CAPABILITY}
    elif (uid, gid, mode) == (file.uid, file.gid, file.mode):
        return 0  # dpkg and tar do this to every file
    files.change(file, mode=mode, uid=uid, gid=gid, xattrs=xattrs)
    return 0


def _fchownat(call: Call) -> int:
    directory, path, owner, group, flags, _ = call.args
    flags &= _ALL
    if flags & ~(_SYMLINK_NOFOLLOW | _EMPTY_PATH):
        raise refuse(errno.EINVAL)
    place, follow = at(call, directory, path, flags)
    return _chown(call, place, owner, group, follow=follow)


def at(call: Call, directory: int, address: int, flags: int) -> tuple[Place, bool]:
    """The place that a call with AT_ flags means, and whether to follow it."""
    if flags & _EMPTY_PATH:
        path = call.world.memory.path(call.pid, address) if address else b""
        if not path:
            return call.descriptor(directory), True
        return call.world.places.of_path(call.pid, directory, path), not flags & _SYMLINK_NOFOLLOW
    return call.place(directory, address), not flags & _SYMLINK_NOFOLLOW


def _chmod(call: Call, place: Place, wanted: int, *, follow: bool) -> int | None:
    who, files = call.who, call.world.files
    call.world.guard.search(who, place, follow=follow)
    file = files.look(place, follow=follow)
    if stat.S_ISLNK(file.mode):
        raise refuse(errno.EOPNOTSUPP)
    if not permissions.owns(who, file.uid):
        raise refuse(errno.EPERM)
    mode = permissions.after_chmod(who, file.mode, wanted, file.gid)
    if file.record is None and file.ours and file.place is place and not needs_record(mode):
        return 0 if files.set_mode(place, stat.S_IMODE(mode), follow=follow) else PROCEED
    files.change(file, mode=mode)
    return 0


def needs_record(mode: int) -> bool:
    """Must this mode differ from the one on disk? A file that its owner may not write to is opened up when emulated
    root does write (create.py), for git makes thousands of them; reading is not seen here, so that must work at once."""
    if stat.S_ISDIR(mode):
        return mode & 0o700 != 0o700
    return not mode & 0o400 or bool(mode & (stat.S_ISUID | stat.S_ISGID))


def _fchmodat2(call: Call) -> int | None:
    flags = call.args[3] & _ALL
    if flags & ~(_SYMLINK_NOFOLLOW | _EMPTY_PATH):
        raise refuse(errno.EINVAL)
    place, follow = at(call, call.args[0], call.args[1], flags)
    answer = _chmod(call, place, call.args[2], follow=follow)
    if answer is PROCEED and follow and not flags & _EMPTY_PATH:
        return PROCEED
    return answer


def _umask(call: Call) -> int | None:
    call.world.umask_matters = True  # filter.py: only masks that take something from the owner come here
    return PROCEED


def _utimensat(call: Call) -> int | None:
    times = call.args[2]
    if not times or is_unrestricted(call.who):
        return _times(call, call.args[0], call.args[1], call.args[3], explicit=False)
    first, second = struct.unpack("<8xq8xq", call.read(times, 32))
    if first == second == _OMIT:
        return PROCEED
    return _times(call, call.args[0], call.args[1], call.args[3], explicit=not first == second == _NOW)


def _times(call: Call, directory: int, address: int, flags: int, *, explicit: bool) -> int | None:
    """Times are the owner's to set; to now, also of those who may write."""
    who, world = call.who, call.world
    if is_unrestricted(who):
        return PROCEED
    place, follow = at(call, directory, address, flags) if address else (call.descriptor(directory), True)
    world.guard.search(who, place, follow=follow)
    file = world.files.look(place, follow=follow)
    if not permissions.owns(who, file.uid):
        if explicit:
            raise refuse(errno.EPERM)
        world.guard.use(who, file, permissions.WRITE)
    return PROCEED


HANDLERS: "Mapping[str, Handler]" = {
    "chown": lambda call: _chown(call, call.place(AT_FDCWD, call.args[0]), call.args[1], call.args[2], follow=True),
    "lchown": lambda call: _chown(call, call.place(AT_FDCWD, call.args[0]), call.args[1], call.args[2], follow=False),
    "fchown": lambda call: _chown(call, call.descriptor(call.args[0]), call.args[1], call.args[2], follow=True),
    "fchownat": _fchownat,
    "chmod": lambda call: _chmod(call, call.place(AT_FDCWD, call.args[0]), call.args[1], follow=True),
    "fchmod": lambda call: _chmod(call, call.descriptor(call.args[0]), call.args[1], follow=True),
    "fchmodat": lambda call: _chmod(call, call.place(call.args[0], call.args[1]), call.args[2], follow=True),
    "fchmodat2": _fchmodat2,
    "umask": _umask,
    "utimensat": _utimensat,
    "futimesat": lambda call: _times(call, call.args[0], call.args[1], 0, explicit=bool(call.args[2])),
    "utimes": lambda call: _times(call, AT_FDCWD, call.args[0], 0, explicit=bool(call.args[1])),
    "utime": lambda call: _times(call, AT_FDCWD, call.args[0], 0, explicit=bool(call.args[1])),
}
