"""Ctrl-C and requests to end, for the verbs that can stop in the middle: the first one cancels, a second one exits."""

import _thread
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from kpy.errors import InterruptedBuildError
from kpy.util.cancel import Cancel

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = 0.05  # seconds
_PATIENCE = 0.8  # seconds from the signal on; much less is needed but where a library computes, or a disk does not answer
_LONGEST = 20.0  # while a RUN is being ended; Kubernetes gives a container 30


class Interrupt:
    """The flag that ends the work, and which signal set it; 0 while none did."""

    def __init__(self, cancel: Cancel, restore: bytes) -> None:
        self.cancel = cancel
        self.signal = 0
        self._restore = restore
        self.over = False
        self.tries_again = False
        """To set the flag, from time to time."""

    def handle(self, number: int, _: FrameType | None) -> None:
        """Take a signal."""
        if self.signal:
            if self._restore and select.select([], [2], [], 0)[1]:  # the terminal may be stopped
                os.write(2, self._restore)
            os._exit(128 + number)
        self.signal = number
        self.cancel.hurried = True
        self.set()

    def set(self, *_: object) -> None:
        """Set the flag, now or soon."""
        # That takes a lock, which the main thread may hold at this very moment: let another thread wait for it. Not
        # threading.Thread, which takes a lock to start.
        try:
            _thread.start_new_thread(self._end, ())
        except RuntimeError:
            # A RUN has started as many processes as there may be. Waking ends it; then there is room.
            self.cancel.wake()
            signal.signal(signal.SIGALRM, self.set)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
            self.tries_again = True

    def _end(self) -> None:
        """End the work; and if it does not end in time, the process. Then the next build removes what is half done, as after a
        kill."""
        start = time.monotonic()
        self.cancel.set()
        time.sleep(_PATIENCE)
        while self.cancel.is_held and time.monotonic() - start < _LONGEST:
            time.sleep(_AGAIN)
        if not self.over:
            if select.select([], [2], [], 0)[1]:
                os.write(2, self._restore + b"error: interrupted\n")
            os._exit(self.exit_code)

    @property
    def exit_code(self) -> int:
        """128 + the signal, as shells count."""
        return 128 + (self.signal or signal.SIGINT)


@contextmanager
def raised() -> Iterator[None]:
    """Turn these signals into InterruptedBuildError until the block ends: it has something to restore (a terminal's echo)."""

    def end(number: int, _: FrameType | None) -> None:
        error = InterruptedBuildError("interrupted")
        error.exit_code = 128 + number
        raise error

    before = {number: signal.signal(number, end) for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def caught(*, terminal: bool) -> Iterator[Interrupt]:
    """Turn SIGINT, SIGTERM and SIGHUP into a set Cancel, until the block ends. A signal that is ignored stays so.

    With `terminal`, a hard exit first shows the cursor again and ends the line.
    """
    with Cancel() as cancel:
        interrupt = Interrupt(cancel, b"\x1b[?25h\n" if terminal else b"")
        before = {}
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and shells' background jobs
                before[number] = signal.signal(number, interrupt.handle)
        try:
            yield interrupt
        finally:
            interrupt.over = True
            if interrupt.tries_again:
                signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
