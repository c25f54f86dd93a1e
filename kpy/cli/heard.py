"""Standard error while work goes on: what the terminal or the pipe does not take must not hold up the end of the work."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO, cast

from kpy.cli.terminal import Terminal
from kpy.errors import InterruptedBuildError
from kpy.util.cancel import Cancel
from kpy.util.outlet import Outlet

GRACE = 1.0
"""Seconds after a request to end in which somebody may still read."""


class _Patient(io.RawIOBase):
    """Writes, waiting for whoever reads. Once the work is to end, and nobody reads, what is written is dropped."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet
        self._dropped = False

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._outlet.isatty()

    def fileno(self) -> int:
        return self._outlet.fileno()

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        if not self._dropped:
            try:
                self._outlet.write(data)
            except InterruptedBuildError:
                self._dropped = True
        return len(data)


@contextmanager
def heard(terminal: Terminal, cancel: Cancel) -> Iterator[Terminal]:
    """The terminal, with such a standard error."""
    try:
        descriptor = terminal.stderr.fileno()
    except OSError:
        yield terminal  # it is in memory
        return
    terminal.stderr.flush()
    with Outlet(descriptor, cancel, grace=GRACE) as outlet:
        yield replace(terminal, stderr=cast("BinaryIO", _Patient(outlet)))
