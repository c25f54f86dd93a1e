"""The unpacker's side of the ledger. Implements `layer.notes.Notes`."""

import os
import stat

from kpy.layer.entry import Entry, Kind
from kpy.layer.notes import Notes, is_noted
from kpy.linux.birth import identify
from kpy.linux.ledger import Ledger, Record, physical

_FORMATS = {Kind.FILE: stat.S_IFREG, Kind.DIR: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK, Kind.FIFO: stat.S_IFIFO,
            Kind.CHAR: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK}  # fmt: skip
_SET_IDS = stat.S_ISUID | stat.S_ISGID


class Recorder:
    """Writes into a ledger what the disk will not say. What it will is not recorded: nearly all files of nearly all
    images are root's, with modes that let root read and write."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def permissions(self, mode: int, *, directory: bool) -> int:
        """See Notes."""
        return physical(mode | (stat.S_IFDIR if directory else stat.S_IFREG))

    def note(self, place: int, name: str, entry: Entry) -> None:
        """See Notes."""
        mode = _FORMATS[entry.kind] | (0o777 if entry.kind is Kind.SYMLINK else entry.mode)
        xattrs = {key: value for key, value in entry.xattrs.items() if is_noted(key)}
        plain = entry.uid == entry.gid == 0 and not xattrs and _shows(mode)
        if plain and entry.kind is Kind.DIR:  # a lower layer may have said otherwise
            found = os.fstat(place)
            self._ledger.records.pop((found.st_dev, found.st_ino), None)
            # Else its mode is not ours to change, or a slot that no layer says anything of (kpy.snapshot.slots).
            plain = found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == physical(mode)
        if not plain:
            key, born = identify(place, os.fsencode(name))
            self._ledger.records[key] = Record(mode, entry.uid, entry.gid, os.makedev(*entry.device), born, xattrs)


def _shows(mode: int) -> bool:
    """Will the disk say this mode, and still when somebody wrote to the file? Set-id bits of files it loses then."""
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFREG and mode & _SET_IDS:
        return False
    return kind == stat.S_IFLNK or (
        kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO) and physical(mode) == stat.S_IMODE(mode)
    )


_: type[Notes] = Recorder
