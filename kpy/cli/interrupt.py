"""Ctrl-C and requests to end, for the verbs that can stop in the middle: the first one cancels, a second one exits."""

import _thread
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from kpy.util.cancel import Cancel

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt:
    """The flag that ends the work, and which signal set it; 0 while none did."""

    def __init__(self, cancel: Cancel, restore: bytes) -> None:
        self.cancel = cancel
        self.signal = 0
        self._restore = restore

    def handle(self, number: int, _: FrameType | None) -> None:
        """Take a signal."""
        if self.signal:
            if self._restore:
                os.write(2, self._restore)
            os._exit(128 + number)
        self.signal = number
        # Setting the flag takes a lock, which the main thread may hold at this very moment: let another thread wait
        # for it. Not threading.Thread, which takes a lock to start.
        _thread.start_new_thread(self.cancel.set, ())

    @property
    def exit_code(self) -> int:
        """128 + the signal, as shells count."""
        return 128 + (self.signal or signal.SIGINT)


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
            for number, handler in before.items():
                signal.signal(number, handler)
