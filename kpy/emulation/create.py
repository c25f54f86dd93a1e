"""Answers to the calls that make files, and to opening for writing.

What emulated root makes is root's without our doing, so the kernel makes it. We make, and record, what must be
another's or of a mode that the builder's user could not work with: the process gets our descriptor.
"""

import errno
import os
import stat
import struct

from kpy.emulation import credentials, permissions
from kpy.emulation.call import ANSWERED, PROCEED, Call, refuse
from kpy.emulation.credentials import Credentials
from kpy.emulation.files import CAPABILITY, File
from kpy.emulation.guard import is_unrestricted
from kpy.emulation.paths import AT_FDCWD, Place
from kpy.emulation.permissions import READ, WRITE
from kpy.linux import libc
from kpy.linux.ledger import physical

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from socket import socket

    from kpy.emulation.call import Handler

_ALL = 0xFFFFFFFF
_TMPFILE = 0o20000000  # without the O_DIRECTORY that is in os.O_TMPFILE
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | _TMPFILE
_AF_UNIX, _SUN_PATH = 1, 108
_MOST_LINKS = 40
_HOW_SIZE = 24  # of openat2's struct open_how, as it was first


def _open(call: Call, directory: int, address: int, flags: int, mode: int) -> int | None:
    flags &= _ALL
    who = call.who
    if is_unrestricted(who) and (flags & os.O_PATH or not flags & _WRITES):
        return PROCEED
    if flags & os.O_PATH:
        call.world.guard.search(who, call.place(directory, address), follow=not flags & os.O_NOFOLLOW)
        return PROCEED
    return open_at(call, call.place(directory, address), flags, mode)


def open_at(call: Call, place: Place, flags: int, mode: int) -> int | None:
    """To write, or as one who may not read all. PROCEED: the kernel opens it right."""
    who = call.who
    if flags & _TMPFILE:
        return _open_unnamed(call, place, flags, mode)
    exclusive = flags & os.O_CREAT and flags & os.O_EXCL
    follow = not (exclusive or flags & os.O_NOFOLLOW)
    call.world.guard.search(who, place, follow=follow)
    # What must not be there is not looked for: if it is, making it fails.
    file = None if exclusive and is_unrestricted(who) else _existing(call, place, follow=follow)
    if file is None:
        if not flags & os.O_CREAT or place.path.endswith(b"/"):
            return PROCEED  # the kernel says that there is none
        return _create(call, place, flags, mode)
    if not exclusive and not stat.S_ISLNK(file.mode):
        _allow_open(call, file, flags)
    return PROCEED


def _existing(call: Call, place: Place, *, follow: bool) -> File | None:
    try:
        return call.world.files.look(place, follow=follow)
    except FileNotFoundError:
        if call.world.places.is_bad():
            raise
        return None


def _wanted(flags: int) -> int:
    """The rights that an open asks for."""
    access = flags & os.O_ACCMODE
    rights = (READ, WRITE, READ | WRITE, READ | WRITE)[access]
    return rights | (WRITE if flags & os.O_TRUNC else 0)


def _allow_open(call: Call, file: File, flags: int) -> None:
    """Refuse it, or see to it that the kernel does not."""
    wanted = _wanted(flags)
    if stat.S_ISDIR(file.mode):
        if wanted & WRITE or flags & os.O_CREAT:
            return  # the kernel says EISDIR
    elif flags & os.O_DIRECTORY:
        return  # and ENOTDIR
    call.world.guard.use(call.who, file, wanted)
    if not stat.S_ISREG(file.mode):
        return
    if file.ours and wanted << 6 & ~file.status.st_mode:
        call.world.files.open_up(file)
    if wanted & WRITE:
        written(call, file)


def written(call: Call, file: File) -> None:
    """Writing takes capabilities from a file, and set-id bits if the writer is not root (file_remove_privs). We do not
    see it written to: it is as if all that is opened for it were."""
    mode = _after_writing(call, file.mode, file.gid)
    xattrs = file.record.xattrs if file.record is not None else {}
    if mode != file.mode or CAPABILITY in xattrs:
        kept = {name: value for name, value in xattrs.items() if name != CAPABILITY}
        call.world.files.change(file, mode=mode, xattrs=kept)


def _after_writing(call: Call, mode: int, gid: int) -> int:
    return mode if call.who.may(credentials.CAP_FSETID) else permissions.after_chown(call.who, mode, gid)


class _New:
    """What is made: its owner and mode, by the directory that it is made in."""

    def __init__(self, call: Call, place: Place, mode: int) -> None:
        """`mode` with the type. Raises OSError where the caller may not make it."""
        who, world = call.who, call.world
        self.parent = world.files.look(place.parent(), follow=True)
        if not stat.S_ISDIR(self.parent.mode):
            raise refuse(errno.ENOTDIR)
        self.uid, self.gid = who.fsuid, who.fsgid
        plain = is_unrestricted(who)
        if not plain:
            if os.path.lexists(place.path) if place.dir_fd is None else False:
                raise refuse(errno.EEXIST)
            world.guard.make_in(who, self.parent)
        inherits = bool(self.parent.mode & stat.S_ISGID)
        if inherits:
            self.gid = self.parent.gid
        owner_bits = 0o700 if stat.S_ISDIR(mode) else 0o400
        self.by_kernel = (
            plain
            and not stat.S_ISCHR(mode)
            and not stat.S_ISBLK(mode)
            and self.gid == 0
            and not world.umask_matters
            and (mode & owner_bits == owner_bits or stat.S_ISLNK(mode))
            and not (stat.S_ISREG(mode) and mode & 0o6000)
        )
        """Is it right as the kernel makes it?"""
        self.mode = mode
        if not self.by_kernel and not stat.S_ISLNK(mode):
            self.mode = _masked(mode, call.umask(), who, self.gid, inherits=inherits)


def _masked(mode: int, umask: int, who: Credentials, gid: int, *, inherits: bool) -> int:
    """The mode of a new file: what a setgid directory makes of it (inode_init_owner)."""
    mode &= ~umask
    if stat.S_ISDIR(mode):
        return mode | stat.S_ISGID if inherits else mode
    privileged = who.in_group(gid) or who.may(credentials.CAP_FSETID)
    if inherits and mode & stat.S_ISGID and mode & stat.S_IXGRP and not privileged:
        mode &= ~stat.S_ISGID
    return mode


def _create(call: Call, place: Place, flags: int, mode: int) -> int | None:
    links = 0
    while not flags & os.O_EXCL and (link := _link(place)) is not None:  # it points to what is to be made
        links += 1
        if links > _MOST_LINKS or flags & os.O_NOFOLLOW:
            return PROCEED
        place = place.beside(link)
    new = _New(call, place, stat.S_IFREG | mode & 0o7777)
    if new.by_kernel:
        return PROCEED
    if flags & os.O_ACCMODE != os.O_RDONLY:
        new.mode = _after_writing(call, new.mode, new.gid)
    ours = flags & ~_TMPFILE | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(place.path, ours, physical(new.mode), dir_fd=place.dir_fd)
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        return PROCEED  # somebody was faster
    try:
        _record(call, Place(b"/proc/self/fd/%d" % descriptor), new, follow=True)
        call.world.listener.give(call.number, descriptor, close_on_exec=bool(flags & os.O_CLOEXEC))
    except OSError:
        os.unlink(place.path, dir_fd=place.dir_fd)  # the kernel would not have made it either
        raise
    finally:
        os.close(descriptor)
    return ANSWERED


def _open_unnamed(call: Call, place: Place, flags: int, mode: int) -> int | None:
    """O_TMPFILE: made in the directory that is named, without a name."""
    if is_unrestricted(call.who) and mode & 0o400:
        return PROCEED
    inside = Place(place.path + b"/.", place.base, place.dir_fd)
    call.world.guard.search(call.who, place, follow=True)
    new = _New.__new__(_New)
    who, world = call.who, call.world
    new.parent = world.files.look(inside, follow=True)
    world.guard.make_in(who, new.parent)
    new.uid, new.gid = who.fsuid, new.parent.gid if new.parent.mode & stat.S_ISGID else who.fsgid
    new.mode = _masked(stat.S_IFREG | mode & 0o7777, call.umask(), who, new.gid, inherits=bool(new.parent.mode & stat.S_ISGID))
    descriptor = os.open(place.path, flags | os.O_CLOEXEC, physical(new.mode), dir_fd=place.dir_fd)
    try:
        _record(call, Place(b"/proc/self/fd/%d" % descriptor), new, follow=True)
        world.listener.give(call.number, descriptor, close_on_exec=bool(flags & os.O_CLOEXEC))
    finally:
        os.close(descriptor)
    return ANSWERED


def _record(call: Call, place: Place, new: _New, *, follow: bool, rdev: int = 0) -> None:
    files = call.world.files
    files.change(files.look(place, follow=follow), mode=new.mode, uid=new.uid, gid=new.gid, rdev=rdev)


def _link(place: Place) -> bytes | None:
    try:
        return os.readlink(place.path, dir_fd=place.dir_fd)
    except OSError:
        return None


def _openat2(call: Call) -> int | None:
    """Without the RESOLVE_ flags it is openat. With them the kernel opens what there is; to make something new under
    them is done here by the same call, from the same directory."""
    directory, path, how, size = call.args[:4]
    if size < _HOW_SIZE:
        raise refuse(errno.EINVAL)
    flags, mode, resolve = struct.unpack("<QQQ", call.read(how, _HOW_SIZE))
    if not resolve:
        return _open(call, directory, path, flags, mode)
    if is_unrestricted(call.who) and (mode & 0o400 or not flags & os.O_CREAT):
        return PROCEED
    if not flags & os.O_CREAT:
        place = call.place(directory, path)
        file = _existing(call, place, follow=not flags & os.O_NOFOLLOW)
        if file is not None and not flags & os.O_PATH:
            _allow_open(call, file, flags)
        return PROCEED
    name = call.world.memory.path(call.pid, path)
    place = call.place(directory, path)
    new = _New(call, place, stat.S_IFREG | mode & 0o7777)
    start = os.open(call.descriptor(directory).path, os.O_PATH | os.O_CLOEXEC)
    try:
        try:
            descriptor = libc.openat2(start, name, flags | os.O_EXCL, resolve, physical(new.mode))
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            return PROCEED
    finally:
        os.close(start)
    try:
        _record(call, Place(b"/proc/self/fd/%d" % descriptor), new, follow=True)
        call.world.listener.give(call.number, descriptor, close_on_exec=bool(flags & os.O_CLOEXEC))
    finally:
        os.close(descriptor)
    return ANSWERED


def _make(call: Call, place: Place, mode: int, make: "Callable[[Place, _New], None]", *, rdev: int = 0) -> int | None:
    """Make it with `make` if the kernel does not make it right, and record it."""
    who = call.who
    if not is_unrestricted(who):
        call.world.guard.search(who, place, follow=False)
    place = Place(place.path.rstrip(b"/"), place.base, place.dir_fd) if stat.S_ISDIR(mode) else place
    new = _New(call, place, mode)
    if new.by_kernel:
        return PROCEED
    make(place, new)
    _record(call, place, new, follow=False, rdev=rdev)
    return 0


def _mkdir(call: Call, place: Place, mode: int) -> int | None:
    def make(where: Place, new: _New) -> None:
        os.mkdir(where.path, physical(new.mode), dir_fd=where.dir_fd)

    return _make(call, place, stat.S_IFDIR | mode & 0o1777, make)


def make_node(call: Call, place: Place, mode: int, device: int) -> int | None:
    """A device is an empty file on disk; the layer gets a device."""
    kind = stat.S_IFMT(mode) or stat.S_IFREG
    if kind not in (stat.S_IFCHR, stat.S_IFBLK):
        if kind not in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK):
            return PROCEED  # the kernel refuses

        def make(where: Place, new: _New) -> None:
            os.mknod(where.path, kind | physical(new.mode), dir_fd=where.dir_fd)

        return _make(call, place, kind | mode & 0o7777, make)

    def make_device(where: Place, new: _New) -> None:
        if not call.who.may(credentials.CAP_MKNOD):
            raise refuse(errno.EPERM)
        os.mknod(where.path, stat.S_IFREG | physical(new.mode), dir_fd=where.dir_fd)

    return _make(call, place, kind | mode & 0o7777, make_device, rdev=device & _ALL)


def _symlink(call: Call, content: int, place: Place) -> int | None:
    def make(where: Place, new: _New) -> None:
        os.symlink(call.world.memory.path(call.pid, content), where.path, dir_fd=where.dir_fd)

    return _make(call, place, stat.S_IFLNK | 0o777, make)


def bound(call: Call, path: bytes, bind: "Callable[[], socket]") -> "socket":
    """What `bind` gives, which makes a Unix socket at the path, from the caller's directory: a file as the caller would make
    it."""
    place = call.world.places.of_path(call.pid, AT_FDCWD, path)
    call.world.guard.search(call.who, place, follow=False)
    new = _New(call, place, stat.S_IFSOCK | 0o777)
    mode = 0o777 & ~call.umask() if new.by_kernel else physical(new.mode)
    os.chdir(b"/proc/%d/cwd" % call.pid)
    os.umask(0o777 & ~mode)
    try:
        made = bind()
    finally:
        os.umask(0)  # as it is in this process (kpy.sandbox.emulated)
        os.chdir(b"/")
    if not new.by_kernel:
        _record(call, place, new, follow=False)
    return made


def _bind(call: Call) -> int | None:
    """A Unix socket in the file system is a file too. The kernel makes it; its owner is noted when the caller is
    heard of again, which is soon: only the caller knows yet that there is a socket."""
    who, size = call.who, call.args[2] & _ALL
    if is_unrestricted(who) or not 2 < size <= 2 + _SUN_PATH:
        return PROCEED
    address = call.read(call.args[1], size)
    path = address[2:].split(b"\0", 1)[0]
    if int.from_bytes(address[:2], "little") != _AF_UNIX or not path:
        return PROCEED
    place = call.world.places.of_path(call.pid, AT_FDCWD, path)
    call.world.guard.search(who, place, follow=False)
    new = _New(call, place, stat.S_IFSOCK | 0o777)

    def note() -> None:
        file = call.world.files.look(place, follow=False)
        if stat.S_ISSOCK(file.mode) and file.record is None:
            call.world.files.change(file, uid=new.uid, gid=new.gid)

    call.world.afterwards[call.pid] = note
    return PROCEED


HANDLERS: "Mapping[str, Handler]" = {
    "open": lambda call: _open(call, AT_FDCWD, call.args[0], call.args[1], call.args[2]),
    "creat": lambda call: _open(
        call, AT_FDCWD, call.args[0], os.O_CREAT | os.O_WRONLY | os.O_TRUNC, call.args[1]
    ),
    "openat": lambda call: _open(call, *call.args[:4]),
    "openat2": _openat2,
    "mkdir": lambda call: _mkdir(call, call.place(AT_FDCWD, call.args[0]), call.args[1]),
    "mkdirat": lambda call: _mkdir(call, call.place(call.args[0], call.args[1]), call.args[2]),
    "mknod": lambda call: make_node(call, call.place(AT_FDCWD, call.args[0]), call.args[1], call.args[2]),
    "mknodat": lambda call: make_node(call, call.place(call.args[0], call.args[1]), call.args[2], call.args[3]),
    "symlink": lambda call: _symlink(call, call.args[0], call.place(AT_FDCWD, call.args[1])),
    "symlinkat": lambda call: _symlink(call, call.args[0], call.place(call.args[1], call.args[2])),
    "bind": _bind,
}
