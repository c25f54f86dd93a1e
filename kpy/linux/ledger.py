"""What files are, where the disk cannot say it: owners, modes, devices and attributes that an emulated root has given
them (EXECUTION B6). A file is known by its inode, so renames and hard links need nothing.

Written by the unpacker (owners of the base) and by the emulation during RUN; read by both, and by the snapshot, whose
layer gets what is said here. Knows nothing of seccomp or tar. No file in it: uid 0, gid 0, the mode on disk.
"""

import marshal
import stat

Key = tuple[int, int]
"""st_dev and st_ino."""

ABSENT = 0
"""The mode of a directory that is there and stands for none: see `Ledger.slots`."""

_VERSION = 2


class Record:
    """One file as the image has it.

    `mode` is all of st_mode: permissions may differ from those on disk (which always have u+rw, and u+x for
    directories, so that the builder's user can do what root can), and so may the type: a device is an empty regular
    file on disk. `born` is the file's birth time in nanoseconds (statx): the inode may have been given to another file
    since, of which nothing is known then; 0 where the file system has none. `xattrs` are only those that the builder's
    user may not set (`security.*`, `trusted.*`).
    """

    __slots__ = ("born", "gid", "mode", "rdev", "uid", "xattrs")

    def __init__(
        self, mode: int, uid: int = 0, gid: int = 0, rdev: int = 0, born: int = 0, xattrs: "dict[str, bytes] | None" = None
    ) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.rdev = rdev
        self.born = born
        self.xattrs: dict[str, bytes] = xattrs if xattrs is not None else {}


class Ledger:
    """All records. One process at a time has it: it is handed to the supervisor of a RUN, and comes back after it."""

    def __init__(self) -> None:
        self.records: dict[Key, Record] = {}
        self.slots: dict[Key, bytes] = {}
        """Names in `/` that cannot be removed, where `/` is not ours (kpy.snapshot.slots): directories, "", of which the
        image has those whose record does not say ABSENT; and links that stand for what is at this path."""

    def has_attributes(self) -> bool:
        """Has any file attributes that are recorded? Most images have none."""
        return any(record.xattrs for record in self.records.values())

    def dump(self) -> bytes:
        """All of it, for `load`. In the order of the keys."""
        rows = [
            (key, record.mode, record.uid, record.gid, record.rdev, record.born, record.xattrs)
            for key, record in sorted(self.records.items())
        ]
        return marshal.dumps((_VERSION, rows, sorted(self.slots.items())))

    @staticmethod
    def load(data: bytes) -> "Ledger":
        """The ledger that `dump` gave. Only for bytes of one's own making: marshal trusts them."""
        version, rows, slots = marshal.loads(data)  # noqa: S302 - our own bytes
        if version != _VERSION:
            raise ValueError(f"a ledger of version {version}")
        ledger = Ledger()
        ledger.slots = dict(slots)
        for key, mode, uid, gid, rdev, born, xattrs in rows:
            ledger.records[key] = Record(mode, uid, gid, rdev, born, xattrs)
        return ledger


def physical(mode: int) -> int:
    """The permissions that a file with this mode has on disk: the builder's own user can always read and write it, and
    search it if it is a directory. Set-id bits stay (they are inert under no_new_privs)."""
    return stat.S_IMODE(mode) | (0o700 if stat.S_ISDIR(mode) else 0o600)
