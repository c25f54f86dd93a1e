"""Iterators of chunks as streams, with or without a thread that works ahead. Knows nothing of what is in them."""

import io
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from kpy.util import threads
from kpy.util.streams import pieces

_AHEAD = 8 << 20


class ChunkReader(io.RawIOBase):
    """A stream of the chunks. `read(n)` gives between 1 and n bytes, b"" at the end. Closing calls `close_source`."""

    def __init__(self, chunks: Iterator[bytes], close_source: Callable[[], None], *, chunk: int = 0) -> None:
        super().__init__()
        self._chunks = chunks
        self._close_source = close_source
        self._data = b""
        self._position = 0
        self._at_most = chunk

    def readable(self) -> bool:
        """It is."""
        return True

    def _next(self) -> bytes:
        return next(self._chunks, b"")

    def read(self, size: int = -1, /) -> bytes:
        """Some bytes; all with a negative size."""
        if size < 0:
            return b"".join(pieces(self))
        if self._position >= len(self._data):
            self._data = self._next()
            self._position = 0
        if self._at_most:
            size = min(size, self._at_most)
        if self._position == 0 and len(self._data) <= size:
            data, self._data = self._data, b""
            return data
        data = self._data[self._position : self._position + size]
        self._position += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        """As `read`."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the source. Idempotent."""
        if not self.closed:
            super().close()
            self._close_source()


class ReadAhead(ChunkReader):
    """The same, with a thread that keeps up to 8 MiB ready. The source is used and closed in that thread.

    `close` waits for the thread a moment, not for as long as a slow network may block it.
    """

    def __init__(self, chunks: Iterator[bytes], close_source: Callable[[], None]) -> None:
        super().__init__(chunks, lambda: None)
        self._condition = threading.Condition()
        self._ready: deque[bytes] = deque()
        self._held = 0
        self._done = False
        self._stopped = False
        self._error: BaseException | None = None
        self._close_in_thread = close_source
        self._thread = threads.start(self._work, "kpy-read-ahead")

    def _work(self) -> None:
        try:
            for chunk in self._chunks:
                with self._condition:
                    while self._held >= _AHEAD and not self._stopped:
                        self._condition.wait()
                    if self._stopped:
                        return
                    self._ready.append(chunk)
                    self._held += len(chunk)
                    self._condition.notify_all()
        except BaseException as error:
            self._error = error
        finally:
            try:
                self._close_in_thread()
            except BaseException as error:
                self._error = self._error or error
            with self._condition:
                self._done = True
                self._condition.notify_all()

    def _next(self) -> bytes:
        with self._condition:
            while not self._ready and not self._done:
                self._condition.wait()
            if self._ready:
                chunk = self._ready.popleft()
                self._held -= len(chunk)
                self._condition.notify_all()
                return chunk
        if self._error is not None:
            raise self._error
        return b""

    def close(self) -> None:
        """Stop the thread. Idempotent."""
        if not self.closed:
            with self._condition:
                self._stopped = True
                self._condition.notify_all()
            self._thread.join(timeout=2)
            super().close()
