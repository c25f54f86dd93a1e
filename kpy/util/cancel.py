"""One flag that ends work in all threads, and can be waited for together with file descriptors."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextvars import Token
from types import TracebackType

from kpy.errors import InterruptedBuildError
from kpy.util import checkpoint


class Cancel:
    """Set once, from any thread, also after it was closed. `fileno()` becomes readable then, for select and poll.

    In a `with`, it is what ends the work of this thread: see kpy.util.checkpoint.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._closed = False
        self._calls: list[Callable[[], None]] = []
        self._tokens: list[Token[checkpoint.Ending | None]] = []
        self._held = 0
        self.hurried = False
        """Is it to be set, or is it set, because somebody waits for this process to end?"""

    def __enter__(self) -> "Cancel":
        self._tokens.append(checkpoint.begin(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ValueError):  # another thread's
            while self._tokens:
                checkpoint.end(self._tokens.pop())
        with self._lock:  # who sets it now finds it closed: the number may be another file's by then
            self._closed = True
            os.close(self._read)
            os.close(self._write)

    def set(self) -> None:
        """End the work. Idempotent."""
        with self._lock:
            self._event.set()
            calls, self._calls = self._calls, []
            if not self._closed:
                with contextlib.suppress(BlockingIOError):  # it is readable as it is
                    os.write(self._write, b"x")
        for call in calls:
            call()

    def wake(self) -> None:
        """Have `fileno()` readable, and `set` still to come. Takes no lock: for a signal handler."""
        if not self._closed:
            with contextlib.suppress(BlockingIOError):
                os.write(self._write, b"x")

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """While the block runs, this process must not be ended: it has processes of a RUN to end."""
        with self._lock:
            self._held += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= 1

    @property
    def is_held(self) -> bool:
        """Does some such block run?"""
        return self._held > 0

    def then(self, call: Callable[[], None]) -> None:
        """Call this, from any thread, when it is set: for work that can wait for nothing but its own. Must not raise."""
        with self._lock:
            if not self._event.is_set():
                self._calls.append(call)
                return
        call()

    @property
    def is_set(self) -> bool:
        """Was it set?"""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, at most so long. Says whether it is."""
        return self._event.wait(seconds)

    def check(self) -> None:
        """Raise InterruptedBuildError if it was set."""
        if self._event.is_set():
            raise InterruptedBuildError("interrupted")

    def fileno(self) -> int:
        """A descriptor that is readable once the flag is set."""
        return self._read
