"""The names in `/` of a live root that an ordinary user has (kpy.snapshot.slots): nothing can be made, renamed or
removed in `/`, so what is done to these names is done to what they stand for, and what is asked of them is answered
as if the root were one's own.

A slot is a directory that stays, whether or not the image has it: the ledger says so. Or it is a link to a place where
the image may have anything. Both are known by their inode.
"""

import errno
import os
import stat

from kpy.emulation.call import PROCEED, Call, refuse
from kpy.emulation.guard import is_unrestricted
from kpy.emulation.paths import AT_FDCWD, Place
from kpy.linux.ledger import ABSENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kpy.emulation.call import Handler

_HOME = b"/kroot"
_REMOVEDIR = 0x200
_EXCHANGE_OR_KEEP = 3  # RENAME_EXCHANGE and RENAME_NOREPLACE
_MAX = 4096


def _slot(call: Call, place: Place) -> bytes | None:
    """None if the place is no slot, else where it leads: "" for a directory."""
    slots = call.world.files.slots
    if not slots or b"/" in place.path[len(place.base) :].strip(b"/"):
        return None
    try:
        found = os.stat(place.path.rstrip(b"/") or b"/", dir_fd=place.dir_fd, follow_symlinks=False)
    except OSError:
        return None
    return slots.get((found.st_dev, found.st_ino))


def _is_absent(call: Call, place: Place) -> bool:
    found = os.stat(place.path, dir_fd=place.dir_fd, follow_symlinks=False)
    record = call.world.files.recorded((found.st_dev, found.st_ino), place.path, place.dir_fd, follow=False)
    return record is not None and record.mode == ABSENT


def _mkdir(call: Call, place: Place, mode: int, otherwise: "Handler") -> int | None:
    beyond = _slot(call, place)
    if beyond is None:
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
    if source == b"" or target == b"" or flags & _EXCHANGE_OR_KEEP:
        raise refuse(errno.EXDEV)
    os.rename(source or old.path, target or new.path, src_dir_fd=None if source else old.dir_fd,
              dst_dir_fd=None if target else new.dir_fd)  # fmt: skip
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

    return {
        **handlers,
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
