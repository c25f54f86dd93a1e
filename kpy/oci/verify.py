"""A reader that checks digest and size of what passes through it (N26)."""

import io
from typing import BinaryIO

from kpy.errors import DigestMismatchError
from kpy.oci.descriptor import Descriptor
from kpy.util.streams import pieces


class VerifyingReader(io.RawIOBase):
    """Reads `stream` and raises DigestMismatchError at its end unless it is what the descriptor says.

    Never gives a byte beyond the descriptor's size. Closing it closes the stream.
    """

    def __init__(self, stream: BinaryIO, descriptor: Descriptor, *, what: str = "") -> None:
        super().__init__()
        self._stream = stream
        self._descriptor = descriptor
        self._what = what or f"blob {descriptor.digest}"
        self._hasher = descriptor.digest.hasher()
        self._left = descriptor.size
        self._done = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; all of the rest when it is negative (use that for small blobs only)."""
        if size < 0:
            return b"".join(pieces(self))
        if self._done or size == 0:
            return b""
        data: bytes = self._stream.read(min(size, self._left)) if self._left else b""
        self._hasher.update(data)
        self._left -= len(data)
        if not self._left or not data:
            self._finish()
        return data

    def _finish(self) -> None:
        self._done = True
        size = self._descriptor.size
        if self._left:
            raise DigestMismatchError(f"{self._what} ends after {size - self._left} of {size} bytes")
        if self._stream.read(1):
            raise DigestMismatchError(f"{self._what} is longer than the {size} bytes its descriptor says")
        if self._hasher.hexdigest() != self._descriptor.digest.hex:
            raise DigestMismatchError(
                f"{self._what} does not match its digest: the content has "
                f"{self._descriptor.digest.algorithm}:{self._hasher.hexdigest()}"
            )

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
