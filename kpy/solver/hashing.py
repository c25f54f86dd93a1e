"""The sha256 of files that steps read: known from a tree, remembered by stat, or computed, once (C33)."""

import hashlib
import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from kpy.layer.entry import Entry
from kpy.layer.source import FileSource
from kpy.util import fs
from kpy.util.streams import PIECE

StatKey = tuple[int, int, int, int, int]
RACY = 2_000_000_000  # ns: a file changed this shortly before may change again without a new time


class _Keyed(Protocol):
    def stat_key(self, path: str, /) -> StatKey | None: ...


class ContentHashes:
    """Remembers the digests of the files of contexts in one file of the store. Thread-safe.

    A file is taken for unchanged when device, inode, size, mtime and ctime are, and when it was older than two
    seconds as it was read; git's index does the same (racy-git).
    """

    def __init__(self, path: Path, now: int) -> None:
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[str, list[object]] = {}
        self._new: dict[str, list[object]] = {}
        with suppress(OSError, ValueError):
            data = json.loads(path.read_bytes())
            self._known = data if isinstance(data, dict) else {}

    def save(self) -> None:
        """Keep what was learnt; only what this build used stays."""
        if self._new:
            with suppress(OSError):
                fs.write_atomic(self._path, json.dumps(self._new).encode())

    def sha256(self, source: FileSource, entry: Entry) -> str:
        """The hex digest of the content of a FILE of the source."""
        if entry.sha256:
            return entry.sha256
        if not entry.size:
            return hashlib.sha256().hexdigest()
        keyed: _Keyed | None = source if hasattr(source, "stat_key") else None  # type: ignore[assignment]
        key = keyed.stat_key(entry.path) if keyed is not None else None
        if key is None:
            return self._compute(source, entry)
        name = ":".join(str(item) for item in key)
        with self._lock:
            known = self._new.get(name) or self._known.get(name)
        if known is None or not isinstance(known[0], str):
            known = [self._compute(source, entry)]
        if self._now - max(key[3], key[4]) > RACY:
            with self._lock:
                self._new[name] = known
        return str(known[0])

    @staticmethod
    def _compute(source: FileSource, entry: Entry) -> str:
        hasher = hashlib.sha256()
        with source.reading([entry]) as opener, opener(entry) as stream:
            while data := _read(stream):
                hasher.update(data)
        return hasher.hexdigest()


def _read(stream: BinaryIO) -> bytes:
    return stream.read(PIECE)
