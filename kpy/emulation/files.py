"""Files as the image has them: what is on disk, and what the ledger says instead. The only one who writes the ledger.

All files belong to the builder's user, physically; that one shows as root. What this user must be able to do for
emulated root, the physical mode lets it do (`kpy.linux.ledger.physical`); the true mode is in the ledger then.
"""

import contextlib
import ctypes
import errno
import os
import stat
import struct

from kpy.emulation.paths import Place
from kpy.linux.ledger import ABSENT, Key, Ledger, Record, physical
from kpy.linux.syscalls import STATX_BTIME, STATX_BTIME_BIT, STATX_DEV, STATX_INO, STATX_SIZE, Arch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CAPABILITY = "security.capability"
PRIVATE = "user.kpy."
"""What the names begin with of attributes that are on disk for us: in no layer (kpy.layer.device), and shown to nobody."""
_STANDS_FOR = PRIVATE + "recorded."
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW = -100, 0x100
_STATX_INO_BIT = 0x100
_SET_IDS = stat.S_ISUID | stat.S_ISGID
_UNOWNED = frozenset((errno.EPERM, errno.EACCES))


class File:
    """A file that was looked at: where, its status on disk, its record if it has one; and what it truly is."""

    __slots__ = ("follow", "gid", "key", "mode", "ours", "place", "rdev", "record", "status", "uid")

    def __init__(self, place: Place, status: os.stat_result, *, follow: bool, ours: bool) -> None:
        self.place = place
        self.follow = follow
        self.ours = ours
        self.status = status
        self.key: Key = (status.st_dev, status.st_ino)
        self.record: Record | None = None
        self.mode = status.st_mode
        self.uid = status.st_uid
        self.gid = status.st_gid
        self.rdev = status.st_rdev


class Files:
    """Looks at files and changes what they are."""

    def __init__(self, ledger: Ledger, arch: Arch, tops: frozenset[bytes] | None = None) -> None:
        """`tops`: the names in `/` of what is the RUN's, where not all is."""
        self.tops = tops
        self.records = ledger.records
        self.has_attributes = ledger.has_attributes()
        """Has any file? cp asks for them of each."""
        self.slots = ledger.slots
        self.uid = os.geteuid()
        self.gids = frozenset((os.getegid(), *os.getgroups()))
        self._statx = ctypes.PyDLL(None, use_errno=True).syscall
        self._statx.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
        self._number = arch.numbers["statx"]
        self._buffer = ctypes.create_string_buffer(STATX_SIZE)
        self.anonymous = _anonymous_devices()
        self.kernels = frozenset(os.stat(path).st_dev for path in ("/proc", "/sys") if os.path.ismount(path))
        """Devices of file systems that are the kernel's, in no image."""

    def look(self, place: Place, *, follow: bool, absent: bool = False) -> File:
        """stat(2) or lstat(2), with the truth. `absent`: also at what stands for nothing."""
        status = os.stat(place.path, dir_fd=place.dir_fd, follow_symlinks=follow)
        # A link that was followed to: by the name in /proc of a descriptor that is open on it.
        if self.slots and (not follow or stat.S_ISLNK(status.st_mode)) and (beyond := self.slots.get((status.st_dev, status.st_ino))):
            return self.look(Place(beyond), follow=False)
        file = File(place, status, follow=follow, ours=status.st_uid == self.uid)
        file.record = record = self.recorded(file.key, place.path, place.dir_fd, follow=follow)
        if record is not None and record.mode == ABSENT:
            if not absent and place.path != place.base:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            file.mode, file.uid, file.gid = stat.S_IFDIR | 0o755, 0, 0
        elif record is not None:
            file.mode, file.uid, file.gid, file.rdev = record.mode, record.uid, record.gid, record.rdev or status.st_rdev
        else:
            file.uid, file.gid = self.shown(status.st_uid, status.st_gid)
        return file

    def shown(self, uid: int, gid: int) -> tuple[int, int]:
        """The owner of a file of which nothing is recorded."""
        return 0 if uid == self.uid else uid, 0 if gid in self.gids else gid

    def recorded(self, key: Key, path: bytes, dir_fd: int | None = None, *, follow: bool) -> Record | None:
        """The record of the file that is there under this key; of one that has been, none any more."""
        record = self.records.get(key)
        if record is None:
            return None
        if record.born and self._identity(path, dir_fd, follow=follow)[1] != record.born:
            del self.records[key]
            return None
        return record

    def change(
        self, file: File, *, mode: int | None = None, uid: int | None = None, gid: int | None = None,
        rdev: int | None = None, xattrs: dict[str, bytes] | None = None,
    ) -> None:  # fmt: skip
        """Make it what is said; the rest stays."""
        mode = file.mode if mode is None else mode
        old = file.record
        new = Record(
            mode,
            file.uid if uid is None else uid,
            file.gid if gid is None else gid,
            file.rdev if rdev is None else rdev,
            xattrs=xattrs if xattrs is not None else old.xattrs if old is not None else {},
        )
        with self.held(file.place, follow=file.follow) as (place, follow):
            self._write(file, new, place, follow=follow)

    def _write(self, file: File, new: Record, place: Place, *, follow: bool) -> None:
        on_disk, old, mode = file.status.st_mode, file.record, new.mode
        try:
            # This changes nothing but the time of the last change: the snapshot then looks at the file, and an
            # overlay copies it up now, not after its time of birth is noted. (And it takes away set-id bits.)
            os.chown(place.path, -1, -1, dir_fd=place.dir_fd, follow_symlinks=follow)
            kept = stat.S_IMODE(on_disk) if stat.S_ISDIR(on_disk) else stat.S_IMODE(on_disk) & ~_SET_IDS
            if not stat.S_ISLNK(on_disk) and physical(mode) != kept:
                os.chmod(place.path, physical(mode), dir_fd=place.dir_fd)
                on_disk = stat.S_IFMT(on_disk) | physical(mode)
        except OSError as error:
            if error.errno not in _UNOWNED:  # another's: /dev/null of the container, say. It shows as changed.
                raise
        key, new.born = self._identity(place.path, place.dir_fd, follow=follow)
        self._stand_for(place, frozenset(old.xattrs if old is not None else ()), frozenset(new.xattrs), follow=follow)
        if _is_plain(new, on_disk):
            self.records.pop(key, None)
        else:
            self.records[key] = new

    @contextlib.contextmanager
    def held(self, place: Place, *, follow: bool) -> "Iterator[tuple[Place, bool]]":
        """What is there, to be changed, and whether to follow it: where some files are the builder's, it stays the same
        whatever becomes of the path. Raises OSError EPERM for one of them: the kernel would let its owner change it."""
        if self.tops is None:
            yield place, follow
            return
        flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        descriptor = os.open(place.path, flags, dir_fd=place.dir_fd)
        try:
            path = b"/proc/self/fd/%d" % descriptor
            name = os.readlink(path)
            if name[:1] == b"/" and name.split(b"/", 2)[1] not in self.tops and name != b"/" and os.fstat(descriptor).st_nlink:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            yield Place(path), True
        finally:
            os.close(descriptor)

    def set_mode(self, place: Place, mode: int, *, follow: bool) -> bool:
        """Change the mode on disk, and nothing else. False: the kernel may do it for the caller, wherever the path leads."""
        if self.tops is None:
            return False
        with self.held(place, follow=follow) as (found, _):
            os.chmod(found.path, mode)
        return True

    def _stand_for(self, place: Place, before: frozenset[str], after: frozenset[str], *, follow: bool) -> None:
        """Who asks how long the names of all attributes are, is not always answered here (kpy.emulation.filter): on disk,
        each that is recorded has one that is longer. Where it can have none, cp takes the file to have no attributes."""
        if not before and not after:
            return
        self.has_attributes = True
        path = place.path if place.dir_fd is None else b"/proc/self/fd/%d/%b" % (place.dir_fd, place.path)
        with contextlib.suppress(OSError):
            for name in before - after:
                os.removexattr(path, _STANDS_FOR + name, follow_symlinks=follow)
            for name in after - before:
                os.setxattr(path, _STANDS_FOR + name, b"", follow_symlinks=follow)

    def vanish(self, file: File) -> None:
        """It is a slot's directory, which stays, and stands for none from now on."""
        key, born = self._identity(file.place.path, file.place.dir_fd, follow=False)
        self.records[key] = Record(ABSENT, born=born)

    def open_up(self, file: File) -> None:
        """Let the builder's user read and write it, for emulated root may; the mode that it had stays its true one."""
        if not stat.S_ISLNK(file.status.st_mode) and physical(file.mode) != stat.S_IMODE(file.status.st_mode):
            self.change(file)

    def _identity(self, path: bytes, dir_fd: int | None, *, follow: bool) -> tuple[Key, int]:
        """Device and inode, and the time of birth, 0 where the file system has none."""
        buffer = self._buffer
        at = _AT_FDCWD if dir_fd is None else dir_fd
        flags = 0 if follow else _AT_SYMLINK_NOFOLLOW
        if self._statx(self._number, at, path, flags, _STATX_INO_BIT | STATX_BTIME_BIT, ctypes.addressof(buffer)) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        data = buffer.raw
        seconds, nanoseconds = struct.unpack_from("<qI", data, STATX_BTIME)
        has_birth = struct.unpack_from("<I", data)[0] & STATX_BTIME_BIT
        key = (os.makedev(*struct.unpack_from("<II", data, STATX_DEV)), struct.unpack_from("<Q", data, STATX_INO)[0])
        return key, seconds * 1_000_000_000 + nanoseconds if has_birth else 0


def _is_plain(record: Record, on_disk: int) -> bool:
    """Does the disk say it all? Set-id bits of files are no longer said by it when somebody writes to them: the kernel
    clears them then for all but root."""
    return (
        record.uid == record.gid == 0
        and record.mode == on_disk
        and not record.xattrs
        and not (stat.S_ISREG(on_disk) and record.mode & _SET_IDS)
    )


def _anonymous_devices() -> frozenset[int]:
    """The devices of pipes and sockets, which belong to who made them."""
    read, write = os.pipe2(os.O_CLOEXEC)
    devices = {os.fstat(read).st_dev}
    os.close(read)
    os.close(write)
    return frozenset(devices)
