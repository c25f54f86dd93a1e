"""A map with sorted keys that may be larger than memory: what is too much waits in an unlinked file, in sorted runs.

Knows nothing of what the values mean: whoever uses it says how to make them plain (what `marshal` takes), and back.
"""

import heapq
import marshal
import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from kpy.util.checkpoint import checkpoint

Value = TypeVar("Value")
_Record = tuple[str, Any]  # a key and its plain value, None for a key that was removed

_BLOCK = 128  # records that are read at once
_CACHED = 8  # blocks
_FAN = 8  # runs of one level that become one of the next
_FILTER = 1 << 23  # bits: a key that is on disk has three of them set, few others have
_PLAIN = 2  # marshal's format without references: faster, and as small for strings that occur once


class _Run:
    """Sorted records on disk: the first key of each block, and where it is."""

    __slots__ = ("firsts", "last", "level", "places", "sizes")

    def __init__(self, level: int) -> None:
        self.level = level
        self.firsts: list[str] = []
        self.places, self.sizes = array("Q"), array("Q")
        self.last = ""


class Spill(Generic[Value]):
    """Keeps at most `most` values in memory; the others in a file in `directory`, if there is one. Not thread-safe.

    Keys that come in their order cost least. Raises OSError when the disk is full.
    """

    def __init__(
        self,
        directory: str | None,
        pack: Callable[[Value], Any],
        unpack: Callable[[str, Any], Value],
        *,
        most: int = 2048,
    ) -> None:
        self._directory = directory
        self._pack, self._unpack = pack, unpack
        self._most = most
        self._new: dict[str, Value | None] = {}
        self._runs: list[_Run] = []  # the oldest first; what is newer is right
        self._file, self._size = -1, 0
        self._maybe = bytearray()
        self._cache: dict[int, dict[str, Any]] = {}

    def __enter__(self) -> "Spill[Value]":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._runs, self._new = -1, [], {}

    def get(self, key: str) -> Value | None:
        """The value, or None."""
        if key in self._new:
            return self._new[key]
        plain = self._find(key) if self._runs else None
        return self._unpack(key, plain) if plain is not None else None

    def set(self, key: str, value: Value) -> None:
        """Set or replace a value."""
        self._put(key, value)

    def remove_from(self, prefix: str) -> None:
        """Remove all whose key starts so."""
        for key in [key for key in self._new if key.startswith(prefix)]:
            del self._new[key]
        for key, _ in self._merged(list(self._runs), prefix):
            if not key.startswith(prefix):
                break
            self._put(key, None)

    def items(self) -> Iterator[tuple[str, Value]]:
        """All, in the order of the keys. Nothing may be changed meanwhile."""
        new = sorted(self._new.items(), key=lambda item: item[0])
        old = self._merged(self._runs, "") if self._runs else iter(())
        at, count = 0, len(new)
        for key, plain in old:
            while at < count and new[at][0] < key:
                yield from self._there(new[at])
                at += 1
            if at < count and new[at][0] == key:
                continue  # the newer one comes with the next key
            if plain is not None:
                yield key, self._unpack(key, plain)
        for item in new[at:]:
            yield from self._there(item)

    def values(self) -> Iterator[Value]:
        """The values, as `items`."""
        for item in self.items():
            yield item[1]

    @staticmethod
    def _there(item: tuple[str, Value | None]) -> Iterator[tuple[str, Value]]:
        if item[1] is not None:
            yield item[0], item[1]

    def _put(self, key: str, value: Value | None) -> None:
        self._new[key] = value
        if len(self._new) >= self._most and self._directory is not None:
            self._flush(self._directory)

    # --- on disk ---------------------------------------------------------------

    def _flush(self, directory: str) -> None:
        if self._file < 0:
            self._file = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            self._maybe = bytearray(_FILTER >> 3)
        maybe, mask = self._maybe, _FILTER - 1
        records: list[_Record] = []
        for key in sorted(self._new):
            value = self._new[key]
            records.append((key, None if value is None else self._pack(value)))
            number = hash(key)
            for bit in (number & mask, (number >> 20) & mask, (number >> 40) & mask):
                maybe[bit >> 3] |= 1 << (bit & 7)
        self._new = {}
        if not self._runs or self._runs[-1].last >= records[0][0]:
            self._runs.append(_Run(0))
        self._write(self._runs[-1], iter(records))
        while len(self._runs) >= _FAN and self._runs[-_FAN].level == self._runs[-1].level:
            several = self._runs[-_FAN:]
            one = _Run(several[0].level + 1)
            self._write(one, self._merged(several, ""))
            self._runs[-_FAN:] = [one]

    def _write(self, run: _Run, records: Iterator[_Record]) -> None:
        block: list[_Record] = []
        for record in records:
            block.append(record)
            if len(block) == _BLOCK:
                self._write_block(run, block)
                block = []
        if block:
            self._write_block(run, block)

    def _write_block(self, run: _Run, block: list[_Record]) -> None:
        checkpoint()
        data = marshal.dumps(block, _PLAIN)
        run.firsts.append(block[0][0])
        run.places.append(self._size)
        run.sizes.append(len(data))
        run.last = block[-1][0]
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, self._size)
            self._size += written
            view = view[written:]

    def _block(self, run: _Run, number: int) -> list[_Record]:
        data = os.pread(self._file, run.sizes[number], run.places[number])
        found: list[_Record] = marshal.loads(data)  # noqa: S302  a file without a name, that only we can write
        return found

    def _find(self, key: str) -> Any:
        maybe, mask, number = self._maybe, _FILTER - 1, hash(key)
        for bit in (number & mask, (number >> 20) & mask, (number >> 40) & mask):
            if not maybe[bit >> 3] >> (bit & 7) & 1:
                return None
        for run in reversed(self._runs):
            at = bisect_right(run.firsts, key) - 1
            if at < 0 or key > run.last:
                continue
            place = run.places[at]
            block = self._cache.get(place)
            if block is None:
                if len(self._cache) >= _CACHED:
                    del self._cache[next(iter(self._cache))]
                block = self._cache[place] = dict(self._block(run, at))
            if key in block:
                return block[key]
        return None

    def _merged(self, runs: list[_Run], first: str) -> Iterator[_Record]:
        """The records of some runs from a key on, each key once: what the newest says."""
        streams = [self._from(run, first) for run in reversed(runs)]
        if len(streams) == 1:
            yield from streams[0]
            return
        last = None
        for record in heapq.merge(*streams, key=lambda record: record[0]):  # stable: the newest first
            if record[0] != last:
                last = record[0]
                yield record

    def _from(self, run: _Run, first: str) -> Iterator[_Record]:
        for number in range(max(bisect_right(run.firsts, first) - 1, 0), len(run.firsts)):
            checkpoint()
            for record in self._block(run, number):
                if record[0] >= first:
                    yield record
