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

from kpy.emulation.call import PROCEED, World
from kpy.emulation.guard import is_unrestricted
from kpy.emulation.owners import needs_record
from kpy.emulation.paths import AT_FDCWD
from kpy.linux.syscalls import Arch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Answer = int | None
    """What the call returns, negative for an errno; or PROCEED, or LATER."""
    Quick = Callable[[int, int, tuple[int, ...]], Answer]
    """Gets the pid, a descriptor of its memory, and the call's arguments."""

LATER = 1 << 40
_ALL = 0xFFFFFFFF
_FDCWD = -100
_SHORT = 256  # bytes of a path; longer ones are rare
_SYMLINK_NOFOLLOW, _EMPTY_PATH = 0x100, 0x1000
_SET_IDS = stat.S_ISUID | stat.S_ISGID
_TMPFILE = 0o20000000  # without the O_DIRECTORY that is in os.O_TMPFILE
_OPENS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | _TMPFILE
_IGNORED = (_ALL, 0)  # ids that chown leaves, or gives to a file that has them
_SPECIAL = (b"/proc/", b"/dev/")

_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class Quicker:
    """The answers, by the numbers of the native interface."""

    def __init__(self, world: World, arch: Arch) -> None:
        assert arch.stat is not None
        self._world = world
        self._files = world.files
        self._records = world.files.records
        self._slots = world.files.slots
        self._uid, self._gids = world.files.uid, world.files.gids
        layout = arch.stat
        self._ids_at, self._ids = layout.uid, struct.Struct("<II").pack_into
        self._buffer = ctypes.create_string_buffer(layout.size)
        # st_dev, st_ino, st_mode, st_uid, st_gid: in this order in both layouts
        self._head = struct.Struct(f"<QQ{layout.mode - 16}xI{layout.uid - layout.mode - 4}xII").unpack_from
        self._number = ctypes.c_long(arch.numbers["newfstatat"])
        path, opened = self._path, self._opened
        by_name: Mapping[str, Quick] = {
            "newfstatat": self._newfstatat,
            "stat": lambda pid, memory, args: self._tell(memory, path(pid, memory, AT_FDCWD, args[0]), args[1], 0),
            "lstat": lambda pid, memory, args: self._tell(
                memory, path(pid, memory, AT_FDCWD, args[0]), args[1], _SYMLINK_NOFOLLOW
            ),
            "fstat": lambda pid, memory, args: self._tell(memory, opened(pid, args[0]), args[1], 0),
            "open": lambda pid, memory, args: self._open(pid, memory, AT_FDCWD, args[0], args[1], args[2]),
            "openat": lambda pid, memory, args: self._open(pid, memory, args[0], args[1], args[2], args[3]),
            "mkdir": lambda pid, memory, args: self._make(path(pid, memory, AT_FDCWD, args[0]), args[1]),
            "mkdirat": lambda pid, memory, args: self._make(path(pid, memory, args[0], args[1]), args[2]),
            "symlink": lambda pid, memory, args: self._make(path(pid, memory, AT_FDCWD, args[1])),
            "symlinkat": lambda pid, memory, args: self._make(path(pid, memory, args[1], args[2])),
            "access": lambda pid, memory, args: self._access(pid, path(pid, memory, AT_FDCWD, args[0]), args[1]),
            "faccessat": lambda pid, memory, args: self._access(pid, path(pid, memory, args[0], args[1]), args[2]),
            "chmod": lambda pid, memory, args: self._chmod(path(pid, memory, AT_FDCWD, args[0]), args[1]),
            "fchmodat": lambda pid, memory, args: self._chmod(path(pid, memory, args[0], args[1]), args[2]),
            "fchmod": lambda pid, _memory, args: self._chmod(opened(pid, args[0]), args[1]),
            "chown": lambda pid, memory, args: self._chown(path(pid, memory, AT_FDCWD, args[0]), args[1], args[2], 0),
            "lchown": lambda pid, memory, args: self._chown(
                path(pid, memory, AT_FDCWD, args[0]), args[1], args[2], _SYMLINK_NOFOLLOW
            ),
            "fchownat": lambda pid, memory, args: self._chown(
                path(pid, memory, args[0], args[1]), args[2], args[3], args[4]
            ),
            "fchown": lambda pid, _memory, args: self._chown(opened(pid, args[0]), args[1], args[2], 0),
            **dict.fromkeys(("unlink", "rmdir", "readlink", "chdir"), self._named),
            **dict.fromkeys(("unlinkat", "readlinkat"), self._named_at),
            "utimensat": lambda pid, memory, args: self._named_at(pid, memory, args) if args[1] else PROCEED,
            "rename": lambda pid, memory, args: self._two_names(pid, memory, AT_FDCWD, args[0], AT_FDCWD, args[1]),
            "renameat": lambda pid, memory, args: self._two_names(pid, memory, *args[:4]),
            "renameat2": lambda pid, memory, args: self._two_names(pid, memory, *args[:4]),
            "link": lambda pid, memory, args: self._two_names(pid, memory, AT_FDCWD, args[0], AT_FDCWD, args[1]),
            "linkat": lambda pid, memory, args: LATER if args[4] else self._two_names(pid, memory, *args[:4]),
            **dict.fromkeys(
                ("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr"), self._attributes
            ),
        }
        self.by_number = {arch.numbers[name]: quick for name, quick in by_name.items() if name in arch.numbers}

    def answer(self, number: int, pid: int, args: tuple[int, ...]) -> "Answer":
        """To a call of that number. Raises OSError only where the process is gone."""
        quick = self.by_number.get(number)
        world = self._world
        if quick is None or not is_unrestricted(world.identities.of(pid)):
            return LATER
        memory = world.memory.recent(pid)
        return quick(pid, memory, args) if memory >= 0 else LATER

    def _path(self, pid: int, memory: int, directory: int, address: int) -> bytes:
        """The path at an address, as this process says it; empty for all that is not plain."""
        if not 0 < address < 1 << 63:
            return b""
        try:
            data = os.pread(memory, _SHORT, address)
        except OSError:
            return b""
        end = data.find(b"\0")
        if end <= 0:
            return b""
        path = data[:end]
        if path.startswith(b"/"):
            return b"" if path.startswith(_SPECIAL) else path
        directory &= _ALL
        return b"/proc/%d/cwd/%s" % (pid, path) if directory == AT_FDCWD else b"/proc/%d/fd/%d/%s" % (pid, directory, path)

    def _opened(self, pid: int, descriptor: int) -> bytes:
        """The path of what a descriptor is open on."""
        descriptor &= _ALL
        return b"/proc/%d/fd/%d" % (pid, descriptor) if descriptor != AT_FDCWD else b""

    def _found(self, path: bytes, flags: int, *, any_owner: bool = False) -> int:
        """Fill the buffer with the status of a file of which nothing is recorded, and which is the builder's unless it
        may be anybody's: 0. Or LATER, or the negative errno."""
        if not path:
            return LATER
        if _syscall(self._number, _FDCWD, path, self._buffer, flags) < 0:
            # Through a descriptor it could be another error: that there is no such descriptor.
            plain = not path.startswith(b"/proc/") or _is_below_cwd(path)
            return -errno.ENOENT if plain and ctypes.get_errno() == errno.ENOENT else LATER
        device, inode, _, uid, gid = self._head(self._buffer)
        if (uid != self._uid or gid not in self._gids) and not any_owner:
            return LATER
        key = device, inode
        return LATER if key in self._records or key in self._slots else 0

    def _newfstatat(self, pid: int, memory: int, args: tuple[int, ...]) -> "Answer":
        flags = args[3] & _ALL
        if not flags & _EMPTY_PATH:
            return self._tell(memory, self._path(pid, memory, args[0], args[1]), args[2], flags & _SYMLINK_NOFOLLOW)
        try:
            named = bool(args[1]) and os.pread(memory, 1, args[1]) != b"\0"
        except (OSError, OverflowError):
            named = True
        return LATER if named else self._tell(memory, self._opened(pid, args[0]), args[2], 0)

    def _tell(self, memory: int, path: bytes, address: int, flags: int) -> "Answer":
        """stat: to an address."""
        found = self._found(path, flags, any_owner=True)
        if found:
            return found
        _, _, _, uid, gid = self._head(self._buffer)
        self._ids(self._buffer, self._ids_at, 0 if uid == self._uid else uid, 0 if gid in self._gids else gid)
        try:
            return 0 if os.pwrite(memory, self._buffer, address) == len(self._buffer) else LATER
        except (OSError, OverflowError):
            return LATER

    def _may_be_slot(self, path: bytes) -> bool:
        """Could it be a name in `/` (kpy.emulation.slots)?"""
        if not self._slots:
            return False
        depth = 1 if not path.startswith(b"/proc/") else 4 if _is_below_cwd(path) else 5
        return path.rstrip(b"/").count(b"/") <= depth

    def _name(self, path: bytes) -> "Answer":
        return PROCEED if path and not self._may_be_slot(path) else LATER

    def _named(self, pid: int, memory: int, args: tuple[int, ...]) -> "Answer":
        """A call that is watched to refuse it to others than root, and for what it does to slots."""
        return self._name(self._path(pid, memory, AT_FDCWD, args[0])) if self._slots else PROCEED

    def _named_at(self, pid: int, memory: int, args: tuple[int, ...]) -> "Answer":
        return self._name(self._path(pid, memory, args[0], args[1])) if self._slots else PROCEED

    def _two_names(self, pid: int, memory: int, directory: int, first: int, other: int, second: int) -> "Answer":
        answer = self._named_at(pid, memory, (directory, first))
        return answer if answer is not PROCEED else self._named_at(pid, memory, (other, second))

    def _attributes(self, pid: int, memory: int, args: tuple[int, ...]) -> "Answer":
        return LATER if self._files.has_attributes else PROCEED

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

    def _open(self, pid: int, memory: int, directory: int, address: int, flags: int, mode: int) -> "Answer":
        flags &= _ALL
        if flags & os.O_PATH or not flags & _OPENS:
            if not self._slots or flags & os.O_PATH or not flags & os.O_NOFOLLOW:
                return PROCEED
            return self._name(self._path(pid, memory, directory, address))
        if flags & _TMPFILE or (flags & os.O_CREAT and mode & (_SET_IDS | 0o400) != 0o400):
            return LATER
        path = self._path(pid, memory, directory, address)
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

    def _access(self, pid: int, path: bytes, mode: int) -> "Answer":
        mode &= _ALL
        who = self._world.identities.of(pid)
        if mode & ~(os.R_OK | os.X_OK) or who.ruid or who.rgid:
            return LATER
        if not mode and not self._slots:
            return PROCEED
        found = self._found(path, 0)
        if found:
            return found
        on_disk = self._head(self._buffer)[2]
        return 0 if not mode & os.X_OK or stat.S_ISDIR(on_disk) or on_disk & 0o111 else -errno.EACCES

    def _chmod(self, path: bytes, mode: int) -> "Answer":
        found = self._found(path, 0)
        if found:
            return found
        kind = stat.S_IFMT(self._head(self._buffer)[2])
        return LATER if kind == stat.S_IFLNK or mode & _SET_IDS or needs_record(kind | mode & 0o7777) else PROCEED

    def _chown(self, path: bytes, owner: int, group: int, flags: int) -> "Answer":
        """To root, whose it is: package managers do this to each file."""
        if owner & _ALL not in _IGNORED or group & _ALL not in _IGNORED or flags & _ALL & ~_SYMLINK_NOFOLLOW:
            return LATER
        found = self._found(path, flags & _SYMLINK_NOFOLLOW)
        if found:
            return found
        on_disk = self._head(self._buffer)[2]
        return LATER if on_disk & _SET_IDS and not stat.S_ISDIR(on_disk) else 0


def _is_below_cwd(path: bytes) -> bool:
    """Is it below the directory that a process is in?"""
    return path.find(b"/cwd/", 6, 24) > 0
