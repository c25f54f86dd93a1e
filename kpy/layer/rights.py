"""Rights that a file gives to whoever uses it, taken away where its owner is not the image's."""

import stat
from dataclasses import replace

from kpy.layer.entry import Entry, Kind
from kpy.layer.notes import is_device

_CAPABILITY = "security.capability"


def weakened(entry: Entry) -> Entry:
    """The entry, if it is no program with more rights than who starts it, and no device that others may use; else without
    those rights."""
    mode = entry.mode
    if entry.kind is Kind.FILE:
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
    elif is_device(entry):
        mode &= stat.S_IRUSR | stat.S_IWUSR
    if mode == entry.mode and _CAPABILITY not in entry.xattrs:
        return entry
    return replace(entry, mode=mode, xattrs={name: value for name, value in entry.xattrs.items() if name != _CAPABILITY})
