"""The sha256 of files that steps read: known from a tree, remembered by stat, or computed, once (C33).

What is remembered is a file of sorted records in buckets, found by arithmetic: a lookup reads one bucket, so that
nothing of it is in memory. A record is the name of a file's state (16 bytes) and the digest of its content (32).
"""

import hashlib
import heapq
import os
import threading
from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from kpy.errors import InterruptedBuildError
from kpy.layer.entry import Entry
from kpy.layer.source import FileSource
from kpy.util import fs
from kpy.util.spill import Spill
from kpy.util.streams import PIECE, pieces

RACY = 2_000_000_000  # ns: a file changed this shortly before may change again without a new time

_MAGIC = b"kpyhash\x01"
_NAME, _RECORD = 16, 48
_IN_BUCKET = 32  # records, about
_CONTEXTS = 32  # whose digests are remembered in one store
_EMPTY = hashlib.sha256().hexdigest()


class ContentHashes:
    """Remembers the digests of the files of contexts in one file of the store. Thread-safe.

    A file is taken for unchanged when device, inode, size, mtime and ctime are, and when it was older than two
    seconds as it was read; git's index does the same (racy-git).
    """

    def __init__(self, path: Path, now: int, spool: str | None = None) -> None:
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._known = _Records(path)
        self._new: Spill[bytes] = Spill(spool, bytes, lambda _, digest: bytes(digest), most=1 << 14)
        self._added = 0

    def save(self) -> None:
        """Keep what was learnt; only what this build used stays. Forgets it then."""
        with self._lock, self._new, self._known:
            if not self._added:
                return
            with suppress(OSError, InterruptedBuildError):
                os.makedirs(self._path.parent, mode=0o700, exist_ok=True)
                new = (name.encode("latin-1") + digest for name, digest in self._new.items())
                records = heapq.merge(self._known.used(), new) if self._known.count else new
                _write(self._path, records, self._known.count + self._added)
                self._drop_old()

    def _drop_old(self) -> None:
        fs.remove_stale(self._path.parent)
        found = sorted(self._path.parent.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in found[:-_CONTEXTS]:
            path.unlink()

    def sha256(self, source: FileSource, entry: Entry) -> str:
        """The hex digest of the content of a FILE of the source."""
        if entry.sha256:
            return entry.sha256
        if not entry.size:
            return _EMPTY
        if not entry.stat:
            return _compute(source, entry)
        name = hashlib.blake2b(repr(entry.stat).encode(), digest_size=_NAME).digest()
        key = name.decode("latin-1")  # sorts as the bytes do
        with self._lock:
            known = self._known.find(name) or self._new.get(key)
        if known is not None:
            return known.hex()
        digest = _compute(source, entry)
        if self._now - max(entry.stat[3], entry.stat[4]) > RACY:
            with self._lock:
                if self._new.get(key) is None:
                    self._new.set(key, bytes.fromhex(digest))
                    self._added += 1
        return digest


class _Records:
    """The records of the last build; which of them were found."""

    def __init__(self, path: Path) -> None:
        self._file = -1
        self._starts = array("I", [0])  # the number of the first record of each bucket, and of all
        self._at = 0
        with suppress(OSError, ValueError, IndexError):
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._load()
        self._found = bytearray(self._starts[-1])

    def __enter__(self) -> "_Records":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._starts = -1, array("I", [0])

    def _load(self) -> None:
        head = os.pread(self._file, 12, 0)
        starts = array("I")
        if head[:8] == _MAGIC:
            starts.frombytes(os.pread(self._file, int.from_bytes(head[8:]) * 4 + 4, 12))
            self._at = 12 + len(starts) * 4
            # Not the file of a build that was cut short, or of a machine with the other byte order.
            if os.fstat(self._file).st_size == self._at + starts[-1] * _RECORD:
                self._starts = starts

    @property
    def count(self) -> int:
        """How many were found."""
        return sum(self._found)

    def find(self, name: bytes) -> bytes | None:
        """The digest of a name."""
        buckets = len(self._starts) - 1
        if not buckets:
            return None
        number = _bucket(name, buckets)
        first = self._starts[number]
        data = os.pread(self._file, (self._starts[number + 1] - first) * _RECORD, self._at + first * _RECORD)
        at = data.find(name)
        while at % _RECORD and at >= 0:
            at = data.find(name, at + 1)
        if at < 0:
            return None
        self._found[first + at // _RECORD] = 1
        return data[at + _NAME : at + _RECORD]

    def used(self) -> Iterator[bytes]:
        """Those that were found, sorted."""
        for number, found in enumerate(self._found):
            if found:
                yield os.pread(self._file, _RECORD, self._at + number * _RECORD)


def _bucket(name: bytes, buckets: int) -> int:
    return int.from_bytes(name[:4]) * buckets >> 32


def _write(path: Path, records: Iterator[bytes], count: int) -> None:
    buckets = count // _IN_BUCKET + 1
    starts = array("I")
    with fs.temporary_file(path.parent) as (stream, temporary):
        head = 12 + 4 * (buckets + 1)
        stream.write(bytes(head))
        for number, record in enumerate(records):
            while len(starts) <= _bucket(record, buckets):
                starts.append(number)
            stream.write(record)
        starts.extend([count] * (buckets + 1 - len(starts)))
        stream.seek(0)
        stream.write(_MAGIC + buckets.to_bytes(4) + starts.tobytes())
        stream.flush()
        os.rename(temporary, path)


def _compute(source: FileSource, entry: Entry) -> str:
    hasher: Any = hashlib.sha256()
    with source.reading([entry]) as opener, opener(entry) as stream:
        wanted = min(PIECE, entry.size + 1)
        for data in pieces(stream, wanted):
            hasher.update(data)
            if entry.stat and len(data) < wanted:
                break  # a file on disk gives less than was asked for at its end only
    return str(hasher.hexdigest())
