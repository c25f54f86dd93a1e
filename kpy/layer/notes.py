"""What a layer says of files and the disk of an ordinary user cannot hold: told to somebody who remembers it. The
extractor knows nothing of who that is."""

from typing import Protocol

from kpy.layer.entry import Entry, Kind


class Notes(Protocol):
    """Remembers owners, true modes, devices, and the attributes that only root may set."""

    def permissions(self, mode: int, *, directory: bool) -> int:
        """What a file with this mode has on disk."""
        ...

    def note(self, place: int, name: str, entry: Entry) -> None:
        """The file `name` in an open directory is as `entry` says, no symlink followed; "" is the open file itself,
        whose mode on disk is what `permissions` gives, unless it is not ours to change."""
        ...


def is_noted(attribute: str) -> bool:
    """Is this extended attribute one that only root may set?"""
    return attribute.startswith(("security.", "trusted."))


def is_device(entry: Entry) -> bool:
    """Is it a device? With notes, that is an empty file on disk."""
    return entry.kind in (Kind.CHAR, Kind.BLOCK)
