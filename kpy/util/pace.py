"""The least rate at which an answer must come. Knows nothing of HTTP.

A timeout of the next bytes alone lets a peer that sends one byte a minute hold a build forever.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field


class TooSlowError(TimeoutError):
    """Less came than must."""


@dataclass(frozen=True, slots=True)
class Pace:
    """At least so many bytes in so many seconds of waiting. Our own time, between reads, is not the peer's."""

    least: int = 1024
    seconds: float = 60.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)


class PacedReader(io.RawIOBase):
    """Reads one answer of `raw`; raises TooSlowError when it comes too slowly.

    The first bytes may take as long as they do: a server may have work to do, and the timeout of a read is theirs.
    """

    def __init__(self, raw: io.RawIOBase, pace: Pace) -> None:
        super().__init__()
        self._raw = raw
        self._pace = pace
        self._began = False
        self._waited = 0.0
        self._came = 0

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: "memoryview | bytearray") -> int | None:  # type: ignore[override]
        start = self._pace.clock()
        count: int | None = self._raw.readinto(buffer)
        if self._began:
            self._count(self._pace.clock() - start, count or 0)
        self._began = True
        return count

    def _count(self, waited: float, came: int) -> None:
        self._waited += waited
        self._came += came
        if self._waited < self._pace.seconds:
            return
        if self._came < self._pace.least and came:  # at the end, slowness does not matter any more
            raise TooSlowError(f"less than {self._pace.least} bytes came in {self._pace.seconds:g} seconds")
        self._waited, self._came = 0.0, 0

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
