"""Answers to the calls that remove, rename and reach files, where an emulated user may be refused them. What is not
refused, the kernel does."""

import errno
import os
import stat

from kpy.emulation import credentials, permissions
from kpy.emulation.call import PROCEED, Call, refuse
from kpy.emulation.create import written
from kpy.emulation.files import File
from kpy.emulation.guard import is_unrestricted
from kpy.emulation.owners import at
from kpy.emulation.paths import AT_FDCWD, Place
from kpy.emulation.permissions import EXECUTE, WRITE, granted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kpy.emulation.call import Handler

_ALL = 0xFFFFFFFF
_SYMLINK_NOFOLLOW, _EACCESS, _SYMLINK_FOLLOW, _EMPTY_PATH = 0x100, 0x200, 0x400, 0x1000


def _access(call: Call, directory: int, address: int, mode: int, flags: int) -> int | None:
    """May the caller do what `mode` says (bits of rwx)? The real ids decide, unless told otherwise."""
    mode &= _ALL
    flags &= _ALL
    if mode & ~7 or flags & ~(_SYMLINK_NOFOLLOW | _EACCESS | _EMPTY_PATH):
        raise refuse(errno.EINVAL)
    if not mode and is_unrestricted(call.who) and not call.world.files.slots:
        return PROCEED
    who = call.who if flags & _EACCESS else credentials.for_access(call.who)
    world = call.world
    place, follow = at(call, directory, address, flags)
    world.guard.search(who, place, follow=follow)
    file = world.files.look(place, follow=follow)
    if not file.ours:
        if not mode & ~granted(who, file.mode, file.uid, file.gid):
            return PROCEED  # the container's, not the image's: only the kernel knows what we can do to it
        raise refuse(errno.EACCES)
    if mode & WRITE and os.statvfs(place.path if place.dir_fd is None else place.dir_fd).f_flag & os.ST_RDONLY:
        raise refuse(errno.EROFS)
    world.guard.use(who, file, mode)
    return 0


def _truncate(call: Call) -> int | None:
    place = call.place(AT_FDCWD, call.args[0])
    who, world = call.who, call.world
    world.guard.search(who, place, follow=True)
    file = world.files.look(place, follow=True)
    if not stat.S_ISREG(file.status.st_mode):
        return PROCEED  # EISDIR, EINVAL
    world.guard.use(who, file, WRITE)
    if file.ours and not file.status.st_mode & stat.S_IWUSR:
        world.files.open_up(file)
    written(call, file)
    # By opening it: Landlock restricts truncate(2) from Linux 6.2 only.
    opened = os.open(place.path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=place.dir_fd)
    try:
        if _signed(call.args[1]) != os.fstat(opened).st_size:  # truncate(2) leaves the time of such a file
            os.ftruncate(opened, _signed(call.args[1]))
    finally:
        os.close(opened)
    return 0


def _signed(value: int) -> int:
    """A 64-bit register as the number that it is."""
    return value - (1 << 64) if value >> 63 else value


def _readlink(call: Call, directory: int, address: int) -> int | None:
    who, world = call.who, call.world
    if is_unrestricted(who):
        return PROCEED
    path = world.memory.path(call.pid, address)
    if path:
        world.guard.search(who, world.places.of_path(call.pid, directory, path), follow=False)
    return PROCEED


def _remove(call: Call, directory: int, address: int) -> int | None:
    """unlink, rmdir: of the caller's own, or in a directory without the sticky bit."""
    who, world = call.who, call.world
    if is_unrestricted(who):
        return PROCEED
    place = call.place(directory, address)
    world.guard.remove_from(who, _directory(call, place), world.files.look(place, follow=False))
    return PROCEED


def _directory(call: Call, place: Place) -> File:
    """The directory that the last name of a path is in, if the caller may reach it."""
    call.world.guard.search(call.who, place, follow=False)
    file = call.world.files.look(place.parent(), follow=True)
    if not stat.S_ISDIR(file.mode):
        raise refuse(errno.ENOTDIR)
    return file


def _rename(call: Call, old_directory: int, old_address: int, new_directory: int, new_address: int) -> int | None:
    who, world = call.who, call.world
    if is_unrestricted(who):
        return PROCEED
    old, new = call.place(old_directory, old_address), call.place(new_directory, new_address)
    files, guard = world.files, world.guard
    source, target = _directory(call, old), _directory(call, new)
    moved = files.look(old, follow=False)
    if guard.contains(old, new.parent()) or guard.contains(new, old.parent()):
        return PROCEED  # the kernel refuses
    replaced = None
    try:
        replaced = files.look(new, follow=False)
    except FileNotFoundError:
        pass
    if replaced is not None and replaced.key == moved.key:
        return PROCEED  # nothing is done
    guard.remove_from(who, source, moved)
    if replaced is None:
        guard.make_in(who, target)
    else:
        guard.remove_from(who, target, replaced)
    if stat.S_ISDIR(moved.mode) and source.key != target.key:
        guard.use(who, moved, WRITE)  # its `..` changes
    return PROCEED


def _link(call: Call, old: tuple[int, int, int], directory: int, address: int) -> int | None:
    """`old`: descriptor, path and flags. The kernel protects files that the caller could not write to (proc(5),
    protected_hardlinks); to it, all are the caller's."""
    who, world = call.who, call.world
    if is_unrestricted(who):
        return PROCEED
    new = call.place(directory, address)
    source, _ = at(call, *old)
    follow = bool(old[2] & _SYMLINK_FOLLOW)
    world.guard.search(who, source, follow=follow)
    file = world.files.look(source, follow=follow)
    parent = _directory(call, new)
    try:
        world.files.look(new, follow=False)
    except FileNotFoundError:
        pass
    else:
        return PROCEED  # EEXIST
    if not permissions.owns(who, file.uid) and world.protects_links and not _may_be_linked(call, file):
        raise refuse(errno.EPERM)
    world.guard.make_in(who, parent)
    return PROCEED


def _may_be_linked(call: Call, file: File) -> bool:
    """By another than its owner (safe_hardlink_source)."""
    mode = file.mode
    set_id = mode & stat.S_ISUID or (mode & stat.S_ISGID and mode & stat.S_IXGRP)
    return stat.S_ISREG(mode) and not set_id and granted(call.who, mode, file.uid, file.gid) & 6 == 6


def _chdir(call: Call, find: "Callable[[], Place]") -> int | None:
    who, world = call.who, call.world
    if is_unrestricted(who):
        return PROCEED
    place = find()
    world.guard.search(who, place, follow=True)
    file = world.files.look(place, follow=True)
    if stat.S_ISDIR(file.mode):
        world.guard.use(who, file, EXECUTE)
    return PROCEED


HANDLERS: "Mapping[str, Handler]" = {
    "access": lambda call: _access(call, AT_FDCWD, call.args[0], call.args[1], 0),
    "faccessat": lambda call: _access(call, call.args[0], call.args[1], call.args[2], 0),
    "faccessat2": lambda call: _access(call, call.args[0], call.args[1], call.args[2], call.args[3]),
    "truncate": _truncate,
    "readlink": lambda call: _readlink(call, AT_FDCWD, call.args[0]),
    "readlinkat": lambda call: _readlink(call, call.args[0], call.args[1]),
    "unlink": lambda call: _remove(call, AT_FDCWD, call.args[0]),
    "rmdir": lambda call: _remove(call, AT_FDCWD, call.args[0]),
    "unlinkat": lambda call: _remove(call, call.args[0], call.args[1]),
    "rename": lambda call: _rename(call, AT_FDCWD, call.args[0], AT_FDCWD, call.args[1]),
    "renameat": lambda call: _rename(call, call.args[0], call.args[1], call.args[2], call.args[3]),
    "renameat2": lambda call: _rename(call, call.args[0], call.args[1], call.args[2], call.args[3]),
    "link": lambda call: _link(call, (AT_FDCWD, call.args[0], 0), AT_FDCWD, call.args[1]),
    "linkat": lambda call: _link(call, (call.args[0], call.args[1], call.args[4]), call.args[2], call.args[3]),
    "chdir": lambda call: _chdir(call, lambda: call.place(AT_FDCWD, call.args[0])),
    "fchdir": lambda call: _chdir(call, lambda: call.descriptor(call.args[0])),
}
