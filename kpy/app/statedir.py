"""Whose the state directory is: who can write to it decides what is in the images. Knows nothing of what is in it."""

import os
import stat
import tempfile
from pathlib import Path

from kpy.errors import StoreError
from kpy.util import fs

_OWN = "own"
_NOBODYS = ("lost+found",)  # of the file system's


def place(home: Path, *, mounted: bool) -> Path:
    """Where the store is. `mounted`: `home` may be a mount point that is root's, or everybody's, as volumes of Kubernetes
    are; then the store is in a directory of our own in it. One that an earlier version made in `home` itself is kept
    while everything there is ours."""
    if mounted and not _is_our_store(home) and (_distrust(home) or _is_our_store(home / _OWN)):
        return home / _OWN  # and stays there, whatever the mode of the mount point becomes
    return home


def claim(directory: Path, *, mounted: bool) -> None:
    """Make the directory that `place` gave, for us alone. Raises StoreError for one that others own or can write to."""
    with fs.io_errors("make the state directory", directory):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        found = os.lstat(directory)
    if mounted and directory.name == _OWN:
        if not stat.S_ISDIR(found.st_mode):
            raise StoreError(f"the state directory {directory} is not a directory", hint="mount another volume, or remove it")
        if not _is_ours(directory, found.st_uid):
            raise StoreError(
                f"the state directory {directory} belongs to uid {found.st_uid}, and not to {os.geteuid()}",
                hint="mount another volume, or run as that user",
            )
        return
    why = _distrust(directory)
    if why and not (mounted and _is_our_store(directory)):
        raise StoreError(
            f"the state directory {directory} is not safe: {why}",
            hint="whoever can write to it can change your images: set KPY_HOME to a directory of your own, with mode 0700",
        )


def _distrust(directory: Path) -> str:
    """Why others may change what is in the directory; empty for one that is ours alone, or is not there yet."""
    try:
        found = os.stat(directory)
    except OSError:
        return ""  # whoever makes it will see
    if not _is_ours(directory, found.st_uid):
        return f"it belongs to uid {found.st_uid}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can write to it (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def _is_ours(directory: Path, uid: int) -> bool:
    """Is what this uid owns there ours? A server of files may give all that we make to another user (NFS's root_squash)."""
    if uid == os.geteuid():
        return True
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".kpy-") as probe:
            return os.fstat(probe.fileno()).st_uid == uid
    except OSError:
        return False


def _is_our_store(home: Path) -> bool:
    try:
        with os.scandir(home) as entries:
            owners = {entry.name: entry.stat(follow_symlinks=False).st_uid for entry in entries if entry.name not in _NOBODYS}
    except OSError:
        return False
    return "version" in owners and set(owners.values()) == {os.geteuid()}
