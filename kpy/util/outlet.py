"""Writing to what others read: a pipe, a FIFO, a terminal, a socket. Whoever reads may stop and never go on, so no write
waits in the kernel: we wait here, together with the flag that ends the work.

`O_NONBLOCK` is of the open file, which others share (a shell its terminal, say). So a pipe or a terminal is opened once
more, for us alone; where that is refused, a little is written at a time, when the kernel says that there is room.
"""

import errno
import io
import os
import select
import socket
import stat
import time

from kpy.errors import InterruptedBuildError
from kpy.util.cancel import Cancel

_LITTLE = 512  # bytes: what a pipe that takes any takes at once (PIPE_BUF, pipe(7)), and a terminal mostly
_BLOCK = 1 << 16
_LOOK = 0.2  # seconds between two looks at a clock


class Outlet(io.RawIOBase):
    """Use in a `with`. `descriptor` stays the caller's, and open. When `cancel` is set, writes go on for `grace` seconds;
    then one that would have to wait raises InterruptedBuildError."""

    def __init__(self, descriptor: int, cancel: Cancel | None, *, grace: float = 0.0) -> None:
        super().__init__()
        self._cancel = cancel
        self._grace = grace
        self._limit = 0.0
        mode = os.fstat(descriptor).st_mode
        self._given = descriptor
        self._own = -1
        self._socket: socket.socket | None = None
        self._piece = _BLOCK
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(descriptor))
        elif stat.S_ISFIFO(mode) or os.isatty(descriptor):
            self._reopen()

    def _reopen(self) -> None:
        if os.get_blocking(self._given):
            try:
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._own = os.open(f"/proc/self/fd/{self._given}", flags)
            except OSError:
                self._piece = _LITTLE

    def fileno(self) -> int:
        return self._given

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._given)

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        """All of it. Raises OSError, InterruptedBuildError."""
        view = memoryview(data).cast("B")
        size = len(view)
        while view:
            if self._piece == _LITTLE:
                self._wait()
            try:
                view = view[self._some(view[: self._piece]) :]
            except BlockingIOError:
                self._wait()
        return size

    def _some(self, data: memoryview) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        return os.write(self._descriptor, data)

    @property
    def _descriptor(self) -> int:
        return self._own if self._own >= 0 else self._given

    def _wait(self) -> None:
        """Until there is room."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        watched = -1
        if self._cancel is not None and not self._limit:
            watched = self._cancel.fileno()
            poll.register(watched, select.POLLIN)
        while True:
            patience = min(_LOOK, max(self._limit - time.monotonic(), 0)) if self._limit else _LOOK
            ready = {descriptor for descriptor, _ in poll.poll(patience * 1000)}
            if self._descriptor in ready:
                return
            if watched in ready:
                self._limit = time.monotonic() + self._grace
                poll.unregister(watched)
                watched = -1
            if self._limit and time.monotonic() >= self._limit:
                raise InterruptedBuildError("interrupted while nobody read the output")

    def close(self) -> None:
        if not self.closed:
            if self._own >= 0:
                os.close(self._own)
            if self._socket is not None:
                self._socket.close()
        super().close()


def open_waiting(path: str | os.PathLike[str], flags: int, cancel: Cancel | None) -> int:
    """Open something for writing that may be a FIFO without a reader, and wait for one. Raises OSError,
    InterruptedBuildError."""
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | flags)
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(path, follow_symlinks=not flags & os.O_NOFOLLOW).st_mode):
                raise
        if cancel is None:
            time.sleep(_LOOK)
        else:
            cancel.wait(_LOOK)
            cancel.check()
