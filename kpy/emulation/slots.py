"""The names in `/` of a live root that an ordinary user has (kpy.snapshot.slots): nothing can be made, renamed or
removed in `/`, so what is done to these names is done to what they stand for, and what is asked of them is answered
as if the root were one's own.

A slot is a directory that stays, whether or not the image has it: the ledger says so. Or it is a link to a place where
the image may have anything. Both are known by their inode.
"""

import errno
import os
import stat
import struct
import time

from kpy.emulation.call import ANSWERED, PROCEED, Call, refuse
from kpy.emulation.create import make_node, open_at
from kpy.emulation.guard import is_unrestricted
from kpy.emulation.paths import AT_FDCWD, Place
from kpy.linux import libc
from kpy.linux.ledger import ABSENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kpy.emulation.call import Handler

_HOME = b"/kroot"
_REMOVEDIR = 0x200
_AT_FDCWD = -100
_SYMLINK_NOFOLLOW, _SYMLINK_FOLLOW, _EMPTY_PATH = 0x100, 0x400, 0x1000
_NOW, _OMIT = 0x3FFFFFFF, 0x3FFFFFFE  # UTIME_NOW, UTIME_OMIT


def _slot(call: Call, place: Place) -> bytes | None:
    """None if the place is no slot, else where it leads: "" for a directory."""
    slots = call.world.files.slots
    if not slots or b"/" in _plain(place.path[len(place.base) :]):
        return None
    try:
        found = os.stat(place.path.rstrip(b"/") or b"/", dir_fd=place.dir_fd, follow_symlinks=False)
    except OSError:
        return None
    return slots.get((found.st_dev, found.st_ino))


def _plain(path: bytes) -> bytes:
    """A path without what says nothing: slashes at both ends, and `./` at the beginning."""
    path = path.strip(b"/")
    while path.startswith(b"./"):
        path = path[2:].lstrip(b"/")
    return path


def _is_absent(call: Call, place: Place) -> bool:
    found = os.stat(place.path, dir_fd=place.dir_fd, follow_symlinks=False)
    record = call.world.files.recorded((found.st_dev, found.st_ino), place.path, place.dir_fd, follow=False)
    return record is not None and record.mode == ABSENT


def _note_denied(call: Call, place: Place) -> None:
    """The kernel will not let a new name in `/` be made: the user is told afterwards which one. To stand for it here would
    be to stand for it in execve and chdir too, which cannot be answered (EXECUTION B5)."""
    name = _plain(place.path[len(place.base) :])
    if call.world.denied or b"/" in name or not is_unrestricted(call.who):
        return
    try:
        top = not place.base or os.readlink(place.base) == b"/"
    except OSError:
        return
    if top and not os.path.lexists(b"/" + name) and not os.access("/", os.W_OK):
        call.world.denied = b"/" + name


def _mkdir(call: Call, place: Place, mode: int, otherwise: "Handler") -> int | None:
    beyond = _slot(call, place)
    if beyond is None:
        if call.world.files.slots:
            _note_denied(call, place)
        return otherwise(call)
    if not is_unrestricted(call.who):
        raise refuse(errno.EACCES)
    mode = mode & 0o1777 & ~call.umask()
    if beyond:
        os.mkdir(beyond, mode | 0o700)
        os.chmod(beyond, mode | 0o700)
        place = Place(beyond)
    elif not _is_absent(call, place):
        raise refuse(errno.EEXIST)
    elif not os.access(place.path, os.W_OK, dir_fd=place.dir_fd, effective_ids=True):
        raise refuse(errno.EROFS)  # nothing could be made in it: a volume is wanted there
    files = call.world.files
    files.change(files.look(place, follow=False, absent=True), mode=stat.S_IFDIR | mode, uid=0, gid=0, xattrs={})
    return 0


def _remove(call: Call, place: Place, otherwise: "Handler", *, directory: bool) -> int | None:
    beyond = _slot(call, place)
    if beyond is None or not is_unrestricted(call.who):
        return otherwise(call)
    if beyond:
        (os.rmdir if directory else os.unlink)(beyond)
        return 0
    if _is_absent(call, place):
        raise refuse(errno.ENOENT)
    if not directory:
        raise refuse(errno.EISDIR)
    if os.listdir(place.path if place.dir_fd is None else os.path.join(b"/proc/self/fd/%d" % place.dir_fd, place.path)):
        raise refuse(errno.ENOTEMPTY)
    files = call.world.files
    files.vanish(files.look(place, follow=False))
    return 0


def _rename(call: Call, old: Place, new: Place, flags: int, otherwise: "Handler") -> int | None:
    """Of directories that stay, as between file systems: mv copies then."""
    source, target = _slot(call, old), _slot(call, new)
    if (source is None and target is None) or not is_unrestricted(call.who):
        return otherwise(call)
    if source == b"" or target == b"":
        raise refuse(errno.EXDEV)
    places = [_AT_FDCWD if beyond or place.dir_fd is None else place.dir_fd for beyond, place in ((source, old), (target, new))]
    number = call.world.arch.numbers["renameat2"]
    libc.syscall(number, "renameat2", places[0], source or old.path, places[1], target or new.path, flags & 0xFFFFFFFF)
    return 0


def _symlink(call: Call, content: int, place: Place, otherwise: "Handler") -> int | None:
    beyond = _slot(call, place)
    if not beyond or not is_unrestricted(call.who):
        return otherwise(call)
    os.symlink(call.world.memory.path(call.pid, content), beyond)
    return 0


def _readlink(call: Call, directory: int, arguments: tuple[int, ...], otherwise: "Handler") -> int | None:
    path, address, size = arguments
    name = call.world.memory.path(call.pid, path)
    if not name:
        return otherwise(call)
    place = call.world.places.of_path(call.pid, directory, name)
    beyond = _slot(call, place)
    if not beyond:
        if not name.startswith(b"/proc/"):
            return otherwise(call)
        content = os.readlink(place.path)  # of a program or a directory below such a link: it has the name that it had
        if not content.startswith(_HOME + b"/"):
            return otherwise(call)
        content = content.removeprefix(_HOME)
    else:
        content = os.readlink(beyond)
    if size & 0xFFFFFFFF == 0:
        raise refuse(errno.EINVAL)
    content = content[: size & 0xFFFFFFFF]
    call.write(address, content)
    return len(content)


def _open(call: Call, directory: int, path: int, flags: int, mode: int, *, otherwise: "Handler") -> int | None:
    """Of a link that is not to be followed, or that is in the way of what is to be made: what it stands for is opened.
    All other opens follow it."""
    if flags & os.O_CREAT and call.world.files.slots and not call.world.denied and (name := call.world.memory.path(call.pid, path)):
        _note_denied(call, call.world.places.of_path(call.pid, directory, name))
    exclusive = flags & os.O_CREAT and flags & os.O_EXCL
    if not (flags & os.O_NOFOLLOW or exclusive) or not call.world.files.slots or flags & os.O_PATH:
        return otherwise(call)  # a descriptor that is but a path cannot be handed over (kpy.emulation.files knows it)
    beyond = _link_at(call, directory, path)
    if not beyond:
        return otherwise(call)
    try:
        kind = stat.S_IFMT(os.lstat(beyond).st_mode)
    except FileNotFoundError:
        kind = stat.S_IFREG
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        return otherwise(call)  # a link; to open a FIFO, we would wait
    answer = open_at(call, Place(beyond), flags, mode)
    if answer is not PROCEED:
        return answer
    descriptor = os.open(beyond, flags | os.O_CLOEXEC | os.O_NOCTTY, mode & ~call.umask())
    try:
        call.world.listener.give(call.number, descriptor, close_on_exec=bool(flags & os.O_CLOEXEC))
    finally:
        os.close(descriptor)
    return ANSWERED


def _link_at(call: Call, directory: int, path: int) -> bytes | None:
    """What the link at a path stands for, if it is one of ours and the path is that of the link itself."""
    name = call.world.memory.path(call.pid, path)
    if not name or name.endswith(b"/"):
        return None
    return _slot(call, call.world.places.of_path(call.pid, directory, name)) or None


def _link(
    call: Call, old_directory: int, old_path: int, directory: int, path: int, flags: int, *, otherwise: "Handler"
) -> int | None:
    if not call.world.files.slots or not is_unrestricted(call.who) or flags & _EMPTY_PATH:
        return otherwise(call)
    source = None if flags & _SYMLINK_FOLLOW else _link_at(call, old_directory, old_path)
    target = _link_at(call, directory, path)
    if not source and not target:
        return otherwise(call)
    old, new = call.place(old_directory, old_path), call.place(directory, path)
    os.link(source or old.path, target or new.path, src_dir_fd=None if source else old.dir_fd,
            dst_dir_fd=None if target else new.dir_fd, follow_symlinks=bool(flags & _SYMLINK_FOLLOW))  # fmt: skip
    return 0


def _mknod(call: Call, directory: int, arguments: tuple[int, ...], otherwise: "Handler") -> int | None:
    path, mode, device = arguments
    beyond = _link_at(call, directory, path)
    if not beyond or not is_unrestricted(call.who):
        return otherwise(call)
    answer = make_node(call, Place(beyond), mode & 0xFFFFFFFF, device)
    if answer is not PROCEED:
        return answer
    os.mknod(beyond, mode & 0o177777 & ~call.umask(), device)
    return 0


def _utimensat(call: Call, otherwise: "Handler") -> int | None:
    """Of what the link itself stands for, or of a directory that the image does not have."""
    directory, path, times, flags = call.args[:4]
    if not call.world.files.slots or not path:
        return otherwise(call)
    _refuse_absent(call, directory, path)
    beyond = _link_at(call, directory, path) if flags & _SYMLINK_NOFOLLOW else None
    if not beyond:
        return otherwise(call)
    if (answer := otherwise(call)) is not PROCEED:
        return answer
    wanted = struct.unpack("<qqqq", call.read(times, 32)) if times else (0, _NOW, 0, _NOW)
    found = os.lstat(beyond)
    old, now = (found.st_atime_ns, found.st_mtime_ns), time.time_ns()
    new = []
    for seconds, nanoseconds, kept in ((*wanted[:2], old[0]), (*wanted[2:], old[1])):
        given = {_NOW: now, _OMIT: kept}
        new.append(given.get(nanoseconds, seconds * 1_000_000_000 + nanoseconds))
    os.utime(beyond, ns=(new[0], new[1]), follow_symlinks=False)
    return 0


def _refuse_absent(call: Call, directory: int, path: int) -> None:
    """ENOENT for a directory that the image does not have."""
    name = call.world.memory.path(call.pid, path)
    if name:
        place = call.world.places.of_path(call.pid, directory, name)
        if _slot(call, place) == b"" and _is_absent(call, place):
            raise refuse(errno.ENOENT)


def _chdir(call: Call, otherwise: "Handler") -> int | None:
    if call.world.files.slots:
        _refuse_absent(call, AT_FDCWD, call.args[0])
    return otherwise(call)


def _getcwd(call: Call) -> int | None:
    address, size = call.args[:2]
    path = os.readlink(b"/proc/%d/cwd" % call.pid)
    if not path.startswith(_HOME + b"/") or path.endswith(b" (deleted)"):
        return PROCEED
    path = path.removeprefix(_HOME) + b"\0"
    if size < len(path):
        raise refuse(errno.ERANGE)
    call.write(address, path)
    return len(path)


def around(handlers: "Mapping[str, Handler]") -> "dict[str, Handler]":
    """The handlers, and before them those of the slots."""

    def at(directory: int | None, path: int) -> "Callable[[Call], Place]":
        return lambda call: call.place(AT_FDCWD if directory is None else call.args[directory], call.args[path])

    def mkdir(name: str, place: "Callable[[Call], Place]", mode: int) -> "Handler":
        return lambda call: _mkdir(call, place(call), call.args[mode], handlers[name])

    def remove(name: str, place: "Callable[[Call], Place]", flag: int | None = None) -> "Handler":
        return lambda call: _remove(
            call, place(call), handlers[name],
            directory=name == "rmdir" if flag is None else bool(call.args[flag] & _REMOVEDIR),
        )  # fmt: skip

    def rename(
        name: str, old: "Callable[[Call], Place]", new: "Callable[[Call], Place]", flags: int | None = None
    ) -> "Handler":
        return lambda call: _rename(call, old(call), new(call), 0 if flags is None else call.args[flags], handlers[name])

    def opened(name: str, directory: int | None, path: int) -> "Handler":
        return lambda call: _open(
            call, AT_FDCWD if directory is None else call.args[directory], *call.args[path : path + 3], otherwise=handlers[name]
        )

    return {
        **handlers,
        "open": opened("open", None, 0),
        "openat": opened("openat", 0, 1),
        "mknod": lambda call: _mknod(call, AT_FDCWD, call.args[:3], handlers["mknod"]),
        "mknodat": lambda call: _mknod(call, call.args[0], call.args[1:4], handlers["mknodat"]),
        "link": lambda call: _link(call, AT_FDCWD, call.args[0], AT_FDCWD, call.args[1], 0, otherwise=handlers["link"]),
        "linkat": lambda call: _link(call, *call.args[:5], otherwise=handlers["linkat"]),
        "chdir": lambda call: _chdir(call, handlers["chdir"]),
        "utimensat": lambda call: _utimensat(call, handlers["utimensat"]),
        "mkdir": mkdir("mkdir", at(None, 0), 1),
        "mkdirat": mkdir("mkdirat", at(0, 1), 2),
        "rmdir": remove("rmdir", at(None, 0)),
        "unlink": remove("unlink", at(None, 0)),
        "unlinkat": remove("unlinkat", at(0, 1), 2),
        "rename": rename("rename", at(None, 0), at(None, 1)),
        "renameat": rename("renameat", at(0, 1), at(2, 3)),
        "renameat2": rename("renameat2", at(0, 1), at(2, 3), 4),
        "symlink": lambda call: _symlink(call, call.args[0], call.place(AT_FDCWD, call.args[1]), handlers["symlink"]),
        "symlinkat": lambda call: _symlink(
            call, call.args[0], call.place(call.args[1], call.args[2]), handlers["symlinkat"]
        ),
        "readlink": lambda call: _readlink(call, AT_FDCWD, call.args[:3], handlers["readlink"]),
        "readlinkat": lambda call: _readlink(call, call.args[0], call.args[1:4], handlers["readlinkat"]),
        "getcwd": _getcwd,
    }
