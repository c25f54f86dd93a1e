"""One flag that ends work in all threads, and can be waited for together with file descriptors."""

import contextlib
import os
import threading
from collections.abc import Callable
from types import TracebackType

from kpy.errors import InterruptedBuildError


class Cancel:
    """Set once, from any thread, also after it was closed. `fileno()` becomes readable then, for select and poll."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._closed = False
        self._calls: list[Callable[[], None]] = []

    def __enter__(self) -> "Cancel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
