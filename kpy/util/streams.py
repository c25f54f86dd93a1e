"""Readers around readers: hash, copy aside, read to the end."""

import io
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

from kpy.util.checkpoint import checkpoint

PIECE = 1 << 20


class HashingReader(io.RawIOBase):
    """Feeds what is read to a hashlib object. Does not close the stream."""

    def __init__(self, stream: BinaryIO, hasher: Any) -> None:
        super().__init__()
        self._stream = stream
        self._hasher = hasher

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        self._hasher.update(data)
        return data

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def hexdigest(self) -> str:
        """Of all that was read so far."""
        return str(self._hasher.hexdigest())


class TeeReader(io.RawIOBase):
    """Gives what is read to `write` too, and its length to `count`. Does not close the stream."""

    def __init__(self, stream: BinaryIO, write: Callable[[bytes], object], count: Callable[[int], None]) -> None:
        super().__init__()
        self._stream = stream
        self._write = write
        self._count = count

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        if data:
            self._write(data)
        self._count(len(data))
        return data

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class RangeReader(io.RawIOBase):
    """`size` bytes of an open file from `start`, by position: any number of threads may read. Does not close it."""

    def __init__(self, number: int, start: int, size: int) -> None:
        super().__init__()
        self._number, self._at, self._end = number, start, start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        view = memoryview(buffer)[: self._end - self._at]
        count = os.preadv(self._number, [view], self._at) if view else 0
        self._at += count
        return count


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


def pieces(stream: _Readable, size: int = PIECE) -> Iterator[bytes]:
    """What is in the stream, to its end; not when the work is to end: the one loop that reads a stream."""
    while True:
        checkpoint()
        data = stream.read(size)
        if not data:
            return
        yield data


def drain(stream: _Readable) -> None:
    """Read to the end, so that what checks at the end has checked."""
    for _ in pieces(stream):
        pass
