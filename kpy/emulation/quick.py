"""The calls that emulated root makes most often, answered with as little Python as they take: nine of ten notifications
of an installation are these, and with all that the handlers know each would take twice as long.

Nothing here knows more than a handler does. What is not plain is `LATER`, for the handler to see: another user than
root, a file of which something is recorded, one that is not the builder's, a slot, a path or an error with anything
special. What is plain is answered as the handler would (tests/emulation/test_emulation_quick.py compares them).
"""

import ctypes
import errno
import os
import stat
import struct
from os import pread, pwrite

from kpy.emulation import credentials
from kpy.emulation.attributes import PERMISSIONS, PLAIN_SIZE, plain_mode
from kpy.emulation.call import PROCEED, World
from kpy.emulation.guard import is_unrestricted
from kpy.emulation.owners import needs_record
from kpy.emulation.paths import AT_FDCWD, Place
from kpy.linux.syscalls import STATX_DEV, STATX_INO, STATX_SIZE, STATX_UID, Arch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kpy.emulation.credentials import Credentials
    from kpy.linux.ledger import Key

    Answer = int | None
    """What the call returns, negative for an errno; or PROCEED, or LATER."""
    Quick = Callable[[int, tuple[int, ...]], Answer]
    """Gets the pid and the call's arguments. Raises OSError only where the process is gone."""

LATER = 1 << 40
_ALL = 0xFFFFFFFF
_FDCWD = -100
_SHORT = 256  # bytes of a path; longer ones are rare
_SYMLINK_NOFOLLOW, _EACCESS, _EMPTY_PATH = 0x100, 0x200, 0x1000
_SET_IDS = stat.S_ISUID | stat.S_ISGID
_TMPFILE = 0o20000000  # without the O_DIRECTORY that is in os.O_TMPFILE
_OPENS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | _TMPFILE
_IGNORED = (_ALL, 0)  # ids that chown leaves, or gives to a file that has them
_SLASH = 47
_SPECIAL = (b"/proc/", b"/dev/")
_LISTS = b"system."  # what names of access control lists begin with
_INO_BIT, _RESERVED = 0x100, 1 << 31  # in statx's mask

_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class Quicker:
    """The answers, by the numbers of the native interface."""

    def __init__(self, world: World, arch: Arch) -> None:
        assert arch.stat is not None
        self._world = world
        self._identities = world.identities
        self._memory = world.memory.descriptor
        self._files = world.files
        self._records = world.files.records
        self._slots = world.files.slots
        self._uid, self._gids = world.files.uid, world.files.gids
        top = os.stat("/")
        self.top = top.st_dev, top.st_ino
        layout = arch.stat
        self._ids_at, self._ids = layout.uid, struct.Struct("<II").pack_into
        self._size = layout.size
        self._buffer = ctypes.create_string_buffer(layout.size)
        # st_dev, st_ino, st_mode, st_uid, st_gid: in this order in both layouts
        self._head = struct.Struct(f"<QQ{layout.mode - 16}xI{layout.uid - layout.mode - 4}xII").unpack_from
        self._number = ctypes.c_long(arch.numbers["newfstatat"])
        self._statx_number = ctypes.c_long(arch.numbers["statx"])
        self._statx_buffer = ctypes.create_string_buffer(STATX_SIZE)
        # stx_uid, stx_gid, stx_ino, stx_dev_major, stx_dev_minor
        self._statx_head = struct.Struct(f"<{STATX_UID}xII{STATX_INO - STATX_UID - 8}xQ{STATX_DEV - STATX_INO - 8}xII").unpack_from
        self._unchanged: dict[Credentials, bool] = {}
        path, opened = self._path, self._opened
        by_name: Mapping[str, Quick] = {
            "newfstatat": self._newfstatat,
            "stat": lambda pid, args: self._tell(pid, path(pid, AT_FDCWD, args[0]), args[1], 0),
            "lstat": lambda pid, args: self._tell(pid, path(pid, AT_FDCWD, args[0]), args[1], _SYMLINK_NOFOLLOW),
            "fstat": lambda pid, args: self._tell(pid, opened(pid, args[0]), args[1], 0),
            "statx": self._statx,
            "open": lambda pid, args: self._open(pid, AT_FDCWD, args[0], args[1], args[2]),
            "openat": lambda pid, args: self._open(pid, args[0], args[1], args[2], args[3]),
            "mkdir": lambda pid, args: self._make(path(pid, AT_FDCWD, args[0]), args[1]),
            "mkdirat": lambda pid, args: self._make(path(pid, args[0], args[1]), args[2]),
            "symlink": lambda pid, args: self._make(path(pid, AT_FDCWD, args[1])),
            "symlinkat": lambda pid, args: self._make(path(pid, args[1], args[2])),
            "access": lambda pid, args: self._access(pid, AT_FDCWD, args[0], args[1], 0),
            "faccessat": lambda pid, args: self._access(pid, args[0], args[1], args[2], 0),
            "faccessat2": lambda pid, args: self._access(pid, *args[:4]),
            "chmod": lambda pid, args: self._chmod(path(pid, AT_FDCWD, args[0]), args[1]),
            "fchmodat": lambda pid, args: self._chmod(path(pid, args[0], args[1]), args[2]),
            "fchmod": lambda pid, args: self._chmod(opened(pid, args[0]), args[1]),
            "chown": lambda pid, args: self._chown(path(pid, AT_FDCWD, args[0]), args[1], args[2], 0),
            "lchown": lambda pid, args: self._chown(path(pid, AT_FDCWD, args[0]), args[1], args[2], _SYMLINK_NOFOLLOW),
            "fchownat": lambda pid, args: self._chown(path(pid, args[0], args[1]), args[2], args[3], args[4]),
            "fchown": lambda pid, args: self._chown(opened(pid, args[0]), args[1], args[2], 0),
            **dict.fromkeys(("unlink", "rmdir", "readlink", "chdir"), self._named),
            **dict.fromkeys(("unlinkat", "readlinkat"), self._named_at),
            "fchdir": lambda _pid, _args: PROCEED,
            "getdents64": self._getdents,
            "utimensat": lambda pid, args: self._named_at(pid, args) if args[1] else PROCEED,
            "rename": lambda pid, args: self._two_names(pid, AT_FDCWD, args[0], AT_FDCWD, args[1]),
            "renameat": lambda pid, args: self._two_names(pid, *args[:4]),
            "renameat2": lambda pid, args: self._two_names(pid, *args[:4]),
            "link": lambda pid, args: self._two_names(pid, AT_FDCWD, args[0], AT_FDCWD, args[1]),
            "linkat": lambda pid, args: LATER if args[4] else self._two_names(pid, *args[:4]),
            **dict.fromkeys(
                ("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr"), self._attributes
            ),
            "setxattr": lambda pid, args: self._set_attribute(pid, args, path(pid, AT_FDCWD, args[0])),
            "fsetxattr": lambda pid, args: self._set_attribute(pid, args, opened(pid, args[0])),
            "removexattr": lambda pid, args: self._remove_attribute(pid, args, path(pid, AT_FDCWD, args[0])),
            "fremovexattr": lambda pid, args: self._remove_attribute(pid, args, opened(pid, args[0])),
            "execve": self._execve,
        }
        self.by_number = {arch.numbers[name]: quick for name, quick in by_name.items() if name in arch.numbers}

    def answer(self, number: int, pid: int, args: tuple[int, ...]) -> "Answer":
        """To a call of that number. Raises OSError only where the process is gone."""
        quick = self.by_number.get(number)
        if quick is None or not (self._identities.all_root or is_unrestricted(self._identities.of(pid))):
            return LATER
        return quick(pid, args)

    def _path(self, pid: int, directory: int, address: int) -> bytes:
        """The path at an address, as this process says it; empty for all that is not plain."""
        try:
            data = pread(self._memory(pid), _SHORT, address)
        except (OSError, OverflowError):
            return b""
        end = data.find(b"\0")
        if end <= 0:
            return b""
        path = data[:end]
        if data[0] == _SLASH:
            return b"" if path.startswith(_SPECIAL) else path
        directory &= _ALL
        return b"/proc/%d/cwd/%b" % (pid, path) if directory == AT_FDCWD else b"/proc/%d/fd/%d/%b" % (pid, directory, path)

    def _opened(self, pid: int, descriptor: int) -> bytes:
        """The path of what a descriptor is open on."""
        descriptor &= _ALL
        return b"/proc/%d/fd/%d" % (pid, descriptor) if descriptor != AT_FDCWD else b""

    def _found(self, path: bytes, flags: int) -> int:
        """Fill the buffer with the status of a file of which nothing is recorded, and which is the builder's: 0. Or LATER,
        or the negative errno."""
        if not path:
            return LATER
        if _syscall(self._number, _FDCWD, path, self._buffer, flags) < 0:
            return _missing(path)
        device, inode, _, uid, gid = self._head(self._buffer)
        if uid != self._uid or gid not in self._gids:
            return LATER
        key = device, inode
        return LATER if key in self._records or key in self._slots else 0

    def _newfstatat(self, pid: int, args: tuple[int, ...]) -> "Answer":
        """Half of all calls: `_path`, `_opened`, `_tell` and `_show` in one, which saves a fifth of what they take."""
        directory, address, out, flags = args[:4]
        memory = self._memory(pid)
        try:
            data = pread(memory, _SHORT, address)
            end = data.find(b"\0")
            if end > 0:
                path = data[:end]
                if data[0] != _SLASH:
                    directory &= _ALL
                    path = b"/proc/%d/cwd/%b" % (pid, path) if directory == AT_FDCWD else b"/proc/%d/fd/%d/%b" % (pid, directory, path)
                elif path.startswith(_SPECIAL):
                    return LATER
                follow = flags & _SYMLINK_NOFOLLOW
            elif end == 0 and flags & _EMPTY_PATH and directory & _ALL != AT_FDCWD:
                path = b"/proc/%d/fd/%d" % (pid, directory & _ALL)
                follow = 0
            else:
                return LATER
            buffer = self._buffer
            if _syscall(self._number, _FDCWD, path, buffer, follow) < 0:
                return _missing(path)
            device, inode, _, uid, gid = self._head(buffer)
            key = device, inode
            if key in self._records or key in self._slots:
                return LATER
            self._ids(buffer, self._ids_at, 0 if uid == self._uid else uid, 0 if gid in self._gids else gid)
            return 0 if pwrite(memory, buffer, out) == self._size else LATER
        except (OSError, OverflowError):
            return LATER

    def _is_named(self, pid: int, address: int) -> bool:
        """Is there a path, or one that we cannot read?"""
        try:
            return bool(address) and pread(self._memory(pid), 1, address) != b"\0"
        except (OSError, OverflowError):
            return True

    def _tell(self, pid: int, path: bytes, address: int, flags: int) -> "Answer":
        """stat: to an address."""
        if not path:
            return LATER
        buffer = self._buffer
        if _syscall(self._number, _FDCWD, path, buffer, flags) < 0:
            return _missing(path)
        device, inode, _, uid, gid = self._head(buffer)
        return self._show(pid, address, buffer, (device, inode), self._ids_at, uid, gid)

    def _show(self, pid: int, address: int, buffer: "ctypes.Array[ctypes.c_char]", key: "Key", ids_at: int, uid: int, gid: int) -> int:
        """Write a status with the owner that the image has, if nothing is recorded of the file."""
        if key in self._records or key in self._slots:
            return LATER
        self._ids(buffer, ids_at, 0 if uid == self._uid else uid, 0 if gid in self._gids else gid)
        try:
            return 0 if pwrite(self._memory(pid), buffer, address) == len(buffer) else LATER
        except (OSError, OverflowError):
            return LATER

    def _statx(self, pid: int, args: tuple[int, ...]) -> "Answer":
        directory, address, flags, mask, out = args[:5]
        flags &= _ALL
        if not flags & _EMPTY_PATH:
            path = self._path(pid, directory, address)
        elif not address or self._is_named(pid, address):
            return LATER
        else:
            path = self._opened(pid, directory)
            flags &= ~(_EMPTY_PATH | _SYMLINK_NOFOLLOW)
        if not path or mask & _RESERVED:
            return LATER
        buffer = self._statx_buffer
        if _syscall(self._statx_number, _FDCWD, path, flags, ctypes.c_uint(mask & _ALL | _INO_BIT), buffer) < 0:
            return _missing(path)
        uid, gid, inode, major, minor = self._statx_head(buffer)
        return self._show(pid, out, buffer, (os.makedev(major, minor), inode), STATX_UID, uid, gid)

    def _may_be_slot(self, path: bytes) -> bool:
        """Could it be a name in `/` (kpy.emulation.slots)?"""
        if not self._slots:
            return False
        if b"/./" in path or b"//" in path:
            return True
        above, _, name = path.rstrip(b"/").rpartition(b"/")
        if not path.startswith(b"/proc/"):
            return not above
        if name in (b".", b"..") or above.count(b"/") > (3 if _is_below_cwd(path) else 4):
            return name in (b".", b"..")
        # A name in a directory that it is in, or has open.
        return _syscall(self._number, _FDCWD, above, self._buffer, 0) < 0 or self._head(self._buffer)[:2] == self.top

    def _name(self, path: bytes) -> "Answer":
        return PROCEED if path and not self._may_be_slot(path) else LATER

    def _named(self, pid: int, args: tuple[int, ...]) -> "Answer":
        """A call that is watched to refuse it to others than root, and for what it does to slots."""
        return self._name(self._path(pid, AT_FDCWD, args[0])) if self._slots else PROCEED

    def _named_at(self, pid: int, args: tuple[int, ...]) -> "Answer":
        return self._name(self._path(pid, args[0], args[1])) if self._slots else PROCEED

    def _two_names(self, pid: int, directory: int, first: int, other: int, second: int) -> "Answer":
        answer = self._named_at(pid, (directory, first))
        return answer if answer is not PROCEED else self._named_at(pid, (other, second))

    def _getdents(self, pid: int, args: tuple[int, ...]) -> "Answer":
        """All lists but that of `/` are the kernel's."""
        if not self._slots:
            return PROCEED
        path = self._opened(pid, args[0])
        if not path or _syscall(self._number, _FDCWD, path, self._buffer, 0) < 0:
            return LATER
        return LATER if self._head(self._buffer)[:2] == self.top else PROCEED

    def _attributes(self, pid: int, args: tuple[int, ...]) -> "Answer":
        return LATER if self._files.has_attributes else PROCEED

    def _set_attribute(self, pid: int, args: tuple[int, ...], path: bytes) -> "Answer":
        """An access control list that says no more than a mode does: cp -a sets modes so."""
        if args[3] != PLAIN_SIZE:
            return LATER
        memory = self._memory(pid)
        try:
            if pread(memory, len(PERMISSIONS) + 1, args[1]) != PERMISSIONS + b"\0":
                return LATER
            mode = plain_mode(pread(memory, PLAIN_SIZE, args[2]))
        except (OSError, OverflowError):
            return LATER
        return LATER if mode < 0 or self._found(path, 0) else self._set_mode(mode)

    def _remove_attribute(self, pid: int, args: tuple[int, ...], path: bytes) -> "Answer":
        """An access control list: cp -a removes the one that a new directory has not."""
        try:
            if pread(self._memory(pid), len(_LISTS), args[1]) != _LISTS:
                return LATER
        except (OSError, OverflowError):
            return LATER
        return self._found(path, 0) or PROCEED

    def _is_made_right(self, path: bytes) -> bool:
        """Is what root makes there root's, without our doing?"""
        above, _, name = path.rpartition(b"/")
        if name in (b"", b".", b"..") or self._world.umask_matters or self._found(above or b"/", 0):
            return False
        return stat.S_ISDIR(self._head(self._buffer)[2])

    def _make(self, path: bytes, mode: int = 0o700) -> "Answer":
        """mkdir and symlink."""
        if mode & 0o700 != 0o700 or self._may_be_slot(path):
            return LATER
        return PROCEED if self._is_made_right(path.rstrip(b"/")) else LATER

    def _open(self, pid: int, directory: int, address: int, flags: int, mode: int) -> "Answer":
        if flags & os.O_PATH or not flags & _OPENS:
            if not self._slots or flags & os.O_PATH or not flags & os.O_NOFOLLOW:
                return PROCEED
            return self._name(self._path(pid, directory, address))
        if flags & _TMPFILE or (flags & os.O_CREAT and mode & (_SET_IDS | 0o400) != 0o400):
            return LATER
        path = self._path(pid, directory, address)
        if not path or self._may_be_slot(path):
            return LATER
        if flags & os.O_CREAT and flags & os.O_EXCL:
            return PROCEED if self._is_made_right(path) else LATER
        found = self._found(path, _SYMLINK_NOFOLLOW)
        if found == -errno.ENOENT:
            return PROCEED if not flags & os.O_CREAT or self._is_made_right(path) else LATER
        if found:
            return found
        on_disk = self._head(self._buffer)[2]
        return PROCEED if stat.S_ISREG(on_disk) and on_disk & (_SET_IDS | 0o600) == 0o600 else LATER

    def _access(self, pid: int, directory: int, address: int, mode: int, flags: int) -> "Answer":
        mode &= _ALL
        who = self._identities.of(pid)
        if mode & ~(os.R_OK | os.X_OK) or flags & _ALL & ~_EACCESS or who.ruid or who.rgid:
            return LATER
        if not mode and not self._slots:
            return PROCEED
        found = self._found(self._path(pid, directory, address), 0)
        if found:
            return found
        on_disk = self._head(self._buffer)[2]
        return 0 if not mode & os.X_OK or stat.S_ISDIR(on_disk) or on_disk & 0o111 else -errno.EACCES

    def _chmod(self, path: bytes, mode: int) -> "Answer":
        found = self._found(path, 0) or self._set_mode(mode & 0o7777)
        return 0 if found is PROCEED and self._files.set_mode(Place(path), mode & 0o7777, follow=True) else found

    def _set_mode(self, permissions: int) -> "Answer":
        """Of the file that was found last."""
        on_disk = self._head(self._buffer)[2]
        mode = stat.S_IFMT(on_disk) | permissions
        return LATER if stat.S_ISLNK(mode) or (on_disk | mode) & _SET_IDS or needs_record(mode) else PROCEED

    def _chown(self, path: bytes, owner: int, group: int, flags: int) -> "Answer":
        """To root, whose it is: package managers do this to each file."""
        if owner & _ALL not in _IGNORED or group & _ALL not in _IGNORED or flags & _ALL & ~_SYMLINK_NOFOLLOW:
            return LATER
        found = self._found(path, flags & _SYMLINK_NOFOLLOW)
        if found:
            return found
        on_disk = self._head(self._buffer)[2]
        return LATER if on_disk & _SET_IDS and not stat.S_ISDIR(on_disk) else 0

    def _execve(self, pid: int, args: tuple[int, ...]) -> "Answer":
        """A program that makes nobody else of who executes it."""
        who = self._identities.of(pid)
        unchanged = self._unchanged.get(who)
        if unchanged is None:
            self._unchanged[who] = unchanged = credentials.execve(who, None, None, 0, 0, file_effective=False) == who
        if not unchanged:
            return LATER
        found = self._found(self._path(pid, AT_FDCWD, args[0]), 0)
        if found:
            return found
        on_disk = self._head(self._buffer)[2]
        if not stat.S_ISREG(on_disk) or on_disk & _SET_IDS:
            return LATER
        self._world.memory.forget(pid)
        return PROCEED


def _missing(path: bytes) -> int:
    """What to say of a path that the kernel did not find, or for another reason refused."""
    # Through a descriptor it could be another error: that there is no such descriptor.
    plain = not path.startswith(b"/proc/") or _is_below_cwd(path)
    return -errno.ENOENT if plain and ctypes.get_errno() == errno.ENOENT else LATER


def _is_below_cwd(path: bytes) -> bool:
    """Is it below the directory that a process is in?"""
    return path.find(b"/cwd/", 6, 24) > 0
