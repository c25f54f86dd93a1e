"""Threads and pools of threads, whose work ends when that of the thread ends that started it (kpy.util.checkpoint)."""

import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import ParamSpec, TypeVar

from kpy.errors import SandboxError

Args = ParamSpec("Args")
Result = TypeVar("Result")


def start(work: Callable[[], object], name: str, *, daemon: bool = True) -> threading.Thread:
    """A thread that does the work. Raises SandboxError where there are no more."""
    context = copy_context()
    thread = threading.Thread(target=lambda: context.run(work), name=name, daemon=daemon)
    with _room():
        thread.start()
    return thread


class Pool(ThreadPoolExecutor):
    """Some threads, each of which does one thing after another."""

    def submit(self, work: Callable[Args, Result], /, *arguments: Args.args, **named: Args.kwargs) -> "Future[Result]":
        """As ThreadPoolExecutor. Raises SandboxError where there are no more threads."""
        bound = partial(work, *arguments, **named)
        with _room():
            return super().submit(copy_context().run, bound)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what runs. After an error, what has not begun does not."""
        self.shutdown(wait=True, cancel_futures=kind is not None)


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise SandboxError(
            "cannot start a thread: there may be no more of them",
            errno=errno.EAGAIN,
            hint="raise the limit of processes (pids.max of the container, `ulimit -u`), or end others of this user",
        ) from error
