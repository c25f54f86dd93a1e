"""A blob's bytes over connections that break: goes on where it was, by Range (N14). Checks no digest.

The verifier above sees one stream, so hashing goes on over all the pieces.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from kpy.errors import RegistryError
from kpy.registry.body import read_piece
from kpy.registry.pause import Pauses
from kpy.registry.problem import NETWORK_CODES

if TYPE_CHECKING:
    from requests import Response

PIECE = 1 << 20
_PROGRESS = 8 << 20  # so much must have come before the retries begin anew


class ResumingStream(io.RawIOBase):
    """Reads the body of `response`, and of what `reopen(offset)` gives, until `size` bytes came.

    Not thread-safe, as any stream. Ends early only by an error.
    """

    def __init__(
        self, response: "Response", size: int, reopen: "Callable[[int], Response]", pauses: Pauses
    ) -> None:
        super().__init__()
        self._response = response
        self._size = size
        self._reopen = reopen
        self._pauses = pauses
        self._position = 0
        self._failed_at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, at most a piece at a time; empty at the end."""
        size = PIECE if size < 0 else size
        while size:
            try:
                data = read_piece(self._response, size)
            except RegistryError as error:
                if error.code not in NETWORK_CODES or self._position >= self._size:
                    raise
                self._resume(error)
                continue
            if not data and self._position < self._size:
                self._resume(None)
                continue
            self._position += len(data)
            return data
        return b""

    def _resume(self, error: RegistryError | None) -> None:
        if self._position - self._failed_at >= _PROGRESS:
            self._pauses.refill()
        self._failed_at = self._position
        self._response.close()
        if not self._pauses.pause():
            raise error or RegistryError(
                f"the download ended after {self._position} of {self._size} bytes", code="lost"
            )
        self._response = self._reopen(self._position)
        if self._response.status_code == 206:
            start = self._response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0].strip()
            if start != str(self._position):
                self._response.close()
                raise RegistryError(f"the registry resumes at {start[:20]!r} instead of {self._position}")
            return
        left = self._position  # it knows no Range: skip what we have
        while left:
            skipped = read_piece(self._response, min(left, PIECE))
            if not skipped:
                raise RegistryError("the download is shorter than before", code="lost")
            left -= len(skipped)

    def close(self) -> None:
        if not self.closed:
            self._response.close()
        super().close()
