"""Which volumes hold nothing but the root of an image: a build that is started again in the same pod may empty them.

This is kept in the state directory, where no RUN can write: what is said on a volume itself, anybody can say who has its uid.
"""

import json
import os
from pathlib import Path

from kpy.linux.birth import identify
from kpy.linux.libc import AT_FDCWD
from kpy.util.fs import io_errors, write_atomic


class Volumes:
    """A file of names in the root, each with the inode of the directory that was mounted there and when it was born."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def has(self, name: bytes, path: bytes) -> bool:
        """Is what is mounted at `path` the volume that was claimed under this name?"""
        found = _identity(path)
        return found is not None and self._read().get(os.fsdecode(name)) == found

    def claim(self, name: bytes, path: bytes) -> None:
        """From now on what is in it is ours. Of a volume whose file system knows no times of birth this is not noted: a
        later one cannot be told from it. Raises StoreError if it cannot be written down."""
        found = _identity(path)
        if found is not None and not self.has(name, path):
            known = {**self._read(), os.fsdecode(name): found}
            with io_errors("note which volumes are the image's", self._file):
                write_atomic(self._file, json.dumps(known, sort_keys=True).encode(), mode=0o600)

    def _read(self) -> dict[str, list[int]]:
        try:
            found = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}  # none yet, or half of one: volumes with files are refused then
        return found if isinstance(found, dict) else {}


def _identity(path: bytes) -> list[int] | None:
    try:
        key, born = identify(AT_FDCWD, path)
    except OSError:
        return None
    return [key[1], born] if born else None
