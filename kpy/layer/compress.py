"""Compressing layers, deterministically and on all cores (L11). Reading them back is decompress.py.

gzip is cut into blocks of 1 MiB that are compressed independently, each primed with the 32 KiB before it and ended
by a sync flush; so the bytes depend on the parameters below, never on the number of threads. They do depend on the
codec: ISA-L's output is not zlib's, and may differ between CPU architectures. All parameters belong in cache keys.
"""

import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from isal import isal_zlib

from kpy.errors import UsageError
from kpy.util.threads import Pool

Kind = Literal["gzip", "zstd", "none"]

GZIP_BLOCK = 1 << 20
GZIP_WINDOW = 32 << 10
GZIP_LEVEL = 1  # ISA-L on Debian's files, 2 cores: 1 gives 510 MB/s and 41 %, 3 gives half of that and 39 %
ZSTD_LEVEL = 3
GZIP_PARAMETERS = f"isal<=3,zlib>=4;block={GZIP_BLOCK};window={GZIP_WINDOW}"

# magic, deflate, no flags, no time, no extra flags, unknown system (RFC 1952 2.3)
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_FINAL_BLOCK = b"\x03\0"  # an empty deflate block marked as the last


@dataclass(frozen=True, slots=True)
class Compression:
    """How a layer is compressed. `level` None is kpy's default. Raises UsageError for a level that is not there."""

    kind: Kind = "gzip"
    level: int | None = None

    def __post_init__(self) -> None:
        allowed = {"gzip": (0, 9), "zstd": (1, 22), "none": (0, 0)}.get(self.kind)
        if allowed is None:
            raise UsageError(f"unknown compression {self.kind!r}", hint="use gzip, zstd or none")
        if self.level is not None and not allowed[0] <= self.level <= allowed[1]:
            raise UsageError(f"{self.kind} has no level {self.level}", hint=f"use {allowed[0]} to {allowed[1]}")

    @property
    def identity(self) -> str:
        """All that the bytes depend on, for cache keys."""
        if self.kind == "gzip":
            return f"gzip;level={GZIP_LEVEL if self.level is None else self.level};{GZIP_PARAMETERS}"
        if self.kind == "zstd":
            return f"zstd;level={ZSTD_LEVEL if self.level is None else self.level};workers"
        return "none"


class Compressor:
    """Takes uncompressed chunks of any size, gives compressed ones to `sink`, in order, in the caller's thread.

    Use in a `with`; without an error the end of the block completes the stream. At most a few MiB a thread are held.
    """

    def __init__(self, compression: Compression, sink: Callable[[bytes], None], *, threads: int) -> None:
        self._engine: _Engine
        if compression.kind == "gzip":
            level = GZIP_LEVEL if compression.level is None else compression.level
            self._engine = _Gzip(level, sink, max(1, threads))
        elif compression.kind == "zstd":
            level = ZSTD_LEVEL if compression.level is None else compression.level
            self._engine = _Zstd(level, sink, max(1, threads))
        else:
            self._engine = _Plain(sink)

    def __enter__(self) -> "Compressor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._engine.finish()
        finally:
            self._engine.close()

    def write(self, chunk: bytes) -> None:
        """Compress some more."""
        self._engine.write(chunk)


class _Plain:
    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self.write = sink

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Zstd:
    """One frame. With workers libzstd gives the same bytes for any number of them, but others than without."""

    def __init__(self, level: int, sink: Callable[[bytes], None], threads: int) -> None:
        import zstandard

        self._sink = sink
        self._object = zstandard.ZstdCompressor(
            level=level, threads=threads, write_checksum=True, write_content_size=False
        ).compressobj()

    def write(self, chunk: bytes) -> None:
        data = self._object.compress(chunk)
        if data:
            self._sink(data)

    def finish(self) -> None:
        self._sink(self._object.flush())

    def close(self) -> None:
        pass


def _deflate(block: bytes, before: bytes, level: int) -> bytes:
    """One block as raw deflate that ends at a byte (RFC 1951; a sync flush adds an empty stored block)."""
    codec: Any = isal_zlib if level <= 3 else zlib
    if before:
        stream = codec.compressobj(level, zlib.DEFLATED, -15, zdict=before)
    else:
        stream = codec.compressobj(level, zlib.DEFLATED, -15)
    data: bytes = stream.compress(block) + stream.flush(zlib.Z_SYNC_FLUSH)
    return data


class _Gzip:
    def __init__(self, level: int, sink: Callable[[bytes], None], threads: int) -> None:
        self._level = level
        self._sink = sink
        self._pool = Pool(threads, thread_name_prefix="kpy-gzip")
        self._limit = threads + 2
        self._pending: deque[Future[bytes]] = deque()
        self._parts: list[bytes] = []
        self._held = 0
        self._before = b""
        self._crc = 0
        self._size = 0
        self._started = False

    def write(self, chunk: bytes) -> None:
        self._crc = isal_zlib.crc32(chunk, self._crc)
        self._size += len(chunk)
        self._parts.append(chunk)
        self._held += len(chunk)
        if self._held < GZIP_BLOCK:
            return
        data = b"".join(self._parts)
        whole = len(data) - len(data) % GZIP_BLOCK
        for start in range(0, whole, GZIP_BLOCK):
            self._submit(data[start : start + GZIP_BLOCK])
        self._parts = [data[whole:]]
        self._held = len(data) - whole

    def _submit(self, block: bytes) -> None:
        self._pending.append(self._pool.submit(_deflate, block, self._before, self._level))
        self._before = block[-GZIP_WINDOW:]
        while len(self._pending) > self._limit:
            self._emit(self._pending.popleft().result())

    def _emit(self, data: bytes) -> None:
        self._sink(data if self._started else _GZIP_HEADER + data)
        self._started = True

    def finish(self) -> None:
        rest = b"".join(self._parts)
        if rest:
            self._submit(rest)
        while self._pending:
            self._emit(self._pending.popleft().result())
        trailer = self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        self._emit(_FINAL_BLOCK + trailer)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


_Engine = _Plain | _Zstd | _Gzip
