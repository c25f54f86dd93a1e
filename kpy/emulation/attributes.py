"""Answers to the calls about extended attributes. `security.*` and `trusted.*` are recorded: the builder's user may
not set them. All others (user attributes, ACLs) are the kernel's."""

import contextlib
import errno
import os
import stat
import struct

from kpy.emulation import credentials, permissions
from kpy.emulation.call import PROCEED, Call, refuse
from kpy.emulation.files import CAPABILITY, PRIVATE, File
from kpy.emulation.guard import is_unrestricted
from kpy.emulation.owners import needs_record
from kpy.emulation.paths import AT_FDCWD, Place
from kpy.emulation.permissions import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kpy.emulation.call import Handler

_ALL = 0xFFFFFFFF
_CREATE, _REPLACE = 1, 2
_NAME_LIMIT, _SIZE_LIMIT = 255, 65536
_TOTAL_LIMIT = 1 << 20  # of all values that we keep of one file
PERMISSIONS = b"system.posix_acl_access"
_ACL, _ACL_ENTRY, _ACL_VERSION = struct.Struct("<I"), struct.Struct("<HHI"), 2  # linux/posix_acl_xattr.h
_PLAIN = struct.Struct("<I" + 3 * "HHI")
PLAIN_SIZE = _PLAIN.size
"""Of a list of three entries, which says no more than a mode does."""
_USER, _GROUP, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20  # of the owner, of the group; those of others have ids
_CAPABILITY_SIZES = {0x01000000: 12, 0x02000000: 20, 0x03000000: 24}  # by revision (linux/capability.h)


def _name(call: Call, address: int) -> str:
    name = call.world.memory.string(call.pid, address, _NAME_LIMIT)
    if not name:
        raise refuse(errno.ERANGE)
    return os.fsdecode(name)


def _is_ours(name: str) -> bool:
    return name.startswith(("security.", "trusted."))


def _look(call: Call, place: Place, *, follow: bool) -> File:
    call.world.guard.search(call.who, place, follow=follow)
    return call.world.files.look(place, follow=follow)


def _recorded(file: File) -> dict[str, bytes]:
    return file.record.xattrs if file.record is not None else {}


def _on_disk(file: File, name: str) -> bytes | None:
    """One that was there all along: a security module's label."""
    try:
        return os.getxattr(file.place.path, name, follow_symlinks=file.follow)
    except OSError:
        return None


def _set(call: Call, place: Place, *, follow: bool) -> int | None:
    name = _name(call, call.args[1])
    if name.startswith(PRIVATE):
        raise refuse(errno.EPERM)  # a mark of the builder's: that a volume may be emptied, say
    if not _is_ours(name):
        file = _look(call, place, follow=follow)
        _use(call, file, name, WRITE)
        return _set_permissions(call, file) if os.fsencode(name) == PERMISSIONS else PROCEED
    size, flags = call.args[3], call.args[4] & _ALL
    if flags & ~(_CREATE | _REPLACE):
        raise refuse(errno.EINVAL)
    if size > _SIZE_LIMIT:
        raise refuse(errno.E2BIG)
    value = call.read(call.args[2], size)
    file = _look(call, place, follow=follow)
    _may_set(call, file, name)
    if name == CAPABILITY:
        value = _checked(value)
    held = _recorded(file)
    there = name in held or _on_disk(file, name) is not None
    if flags & _CREATE and there:
        raise refuse(errno.EEXIST)
    if flags & _REPLACE and not there:
        raise refuse(errno.ENODATA)
    if sum(map(len, held.values())) + size > _TOTAL_LIMIT:
        raise refuse(errno.ENOSPC)
    call.world.files.change(file, xattrs={**held, name: value})
    return 0


def _set_permissions(call: Call, file: File) -> int | None:
    """An access control list is a mode, too. One that says no more is no list: cp sets modes so."""
    size = call.args[3]
    if size < _ACL.size or size > _SIZE_LIMIT or stat.S_ISLNK(file.mode):
        return PROCEED
    data = call.read(call.args[2], size)
    wanted = _mode_of(data)
    if wanted < 0:
        return PROCEED  # the kernel refuses
    mode = permissions.after_chmod(call.who, file.mode, stat.S_IMODE(file.mode) & ~0o777 | wanted, file.gid)
    if file.record is None and file.ours and not needs_record(mode):
        return PROCEED
    call.world.files.change(file, mode=mode)
    if size != PLAIN_SIZE:
        return PROCEED
    with contextlib.suppress(OSError):  # the list that it may have had
        os.removexattr(file.place.path, PERMISSIONS, follow_symlinks=file.follow)
    return 0


def _mode_of(data: bytes) -> int:
    """The permissions that a list gives; -1 if it is none."""
    entries = list(_ACL_ENTRY.iter_unpack(data[_ACL.size :])) if not (len(data) - _ACL.size) % _ACL_ENTRY.size else []
    rights: dict[int, int] = {tag: bits & 7 for tag, bits, _ in entries if tag in (_USER, _GROUP, _OTHER, _MASK)}
    if _ACL.unpack_from(data) != (_ACL_VERSION,) or not rights.keys() >= {_USER, _GROUP, _OTHER}:
        return -1
    return rights[_USER] << 6 | rights.get(_MASK, rights[_GROUP]) << 3 | rights[_OTHER]


def plain_mode(data: bytes) -> int:
    """The permissions that a list of `PLAIN_SIZE` gives which says no more than they do; -1 if it is none."""
    a: int
    version, user, a, _, group, b, _, other, c, _ = _PLAIN.unpack(data)
    is_plain = (version, user, group, other) == (_ACL_VERSION, _USER, _GROUP, _OTHER) and (a | b | c) <= 7
    return a << 6 | b << 3 | c if is_plain else -1


def _use(call: Call, file: File, name: str, wanted: int) -> None:
    """User attributes are as the content of the file, ACLs are the owner's to set. Refuse it, or see to it that the
    kernel does not."""
    if name.startswith("user."):
        call.world.guard.use(call.who, file, wanted)
        if file.ours and stat.S_ISREG(file.status.st_mode) and wanted << 6 & ~file.status.st_mode:
            call.world.files.open_up(file)
    elif name.startswith("system.") and wanted == WRITE and not permissions.owns(call.who, file.uid):
        raise refuse(errno.EPERM)


def _may_set(call: Call, file: File, name: str) -> None:
    """Capabilities of files are for who has CAP_SETFCAP. The others are for CAP_SYS_ADMIN, which the root of a plain
    container lacks; here root may set them, for that is what root is to who asks for them."""
    if not call.who.may(credentials.CAP_SETFCAP):
        raise refuse(errno.EPERM)
    if name == CAPABILITY and stat.S_ISLNK(file.mode):
        raise refuse(errno.EPERM)


def _checked(value: bytes) -> bytes:
    """As the kernel takes it (cap_convert_nscap)."""
    magic = int.from_bytes(value[:4], "little") & 0xFF000000
    if magic == 0x01000000 or len(value) != _CAPABILITY_SIZES.get(magic, -1):
        raise refuse(errno.EINVAL)
    return value


def _are_none(call: Call) -> bool:
    """Has the kernel the whole answer, for all files?"""
    return not call.world.files.has_attributes and is_unrestricted(call.who)


def _get(call: Call, find: "Callable[[Call], Place]", *, follow: bool) -> int | None:
    if _are_none(call):
        return PROCEED
    place = find(call)
    name = _name(call, call.args[1])
    if not _is_ours(name):
        if not is_unrestricted(call.who):
            _use(call, _look(call, place, follow=follow), name, READ)
        return PROCEED
    value = _recorded(_look(call, place, follow=follow)).get(name)
    if value is None:
        return PROCEED
    return _give(call, value, call.args[2], call.args[3])


def _give(call: Call, data: bytes, address: int, size: int) -> int:
    """Answer with all of it, which must fit, or with its size alone when `size` is 0 (getxattr(2))."""
    if not size:
        return len(data)
    if size < len(data):
        raise refuse(errno.ERANGE)
    call.write(address, data)
    return len(data)


def _list(call: Call, find: "Callable[[Call], Place]", *, follow: bool) -> int | None:
    if _are_none(call):
        return PROCEED
    place = find(call)
    file = _look(call, place, follow=follow)
    held = _recorded(file)
    if not held:
        return PROCEED
    names = os.listxattr(place.path if place.dir_fd is None else _long(place), follow_symlinks=follow)
    if not call.who.may(credentials.CAP_SETFCAP):
        names = [name for name in names if not name.startswith("trusted.")]
    names = [name for name in names if not name.startswith(PRIVATE)]
    names += [name for name in sorted(held) if name not in names]
    data = b"".join(os.fsencode(name) + b"\0" for name in names)
    return _give(call, data, call.args[1], call.args[2])


def _long(place: Place) -> bytes:
    return b"/proc/self/fd/%d/%s" % (place.dir_fd or 0, place.path)


def _remove(call: Call, place: Place, *, follow: bool) -> int | None:
    name = _name(call, call.args[1])
    if not _is_ours(name):
        _use(call, _look(call, place, follow=follow), name, WRITE)
        return PROCEED
    file = _look(call, place, follow=follow)
    held = _recorded(file)
    if name not in held:
        if _on_disk(file, name) is None:
            _may_set(call, file, name)
            raise refuse(errno.ENODATA)
        return PROCEED
    _may_set(call, file, name)
    call.world.files.change(file, xattrs={other: value for other, value in held.items() if other != name})
    return 0


def _of_path(call: Call) -> Place:
    return call.place(AT_FDCWD, call.args[0])


def _of_descriptor(call: Call) -> Place:
    return call.descriptor(call.args[0])


HANDLERS: "Mapping[str, Handler]" = {
    "setxattr": lambda call: _set(call, _of_path(call), follow=True),
    "lsetxattr": lambda call: _set(call, _of_path(call), follow=False),
    "fsetxattr": lambda call: _set(call, _of_descriptor(call), follow=True),
    "getxattr": lambda call: _get(call, _of_path, follow=True),
    "lgetxattr": lambda call: _get(call, _of_path, follow=False),
    "fgetxattr": lambda call: _get(call, _of_descriptor, follow=True),
    "listxattr": lambda call: _list(call, _of_path, follow=True),
    "llistxattr": lambda call: _list(call, _of_path, follow=False),
    "flistxattr": lambda call: _list(call, _of_descriptor, follow=True),
    "removexattr": lambda call: _remove(call, _of_path(call), follow=True),
    "lremovexattr": lambda call: _remove(call, _of_path(call), follow=False),
    "fremovexattr": lambda call: _remove(call, _of_descriptor(call), follow=True),
}
