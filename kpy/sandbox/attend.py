"""Following a program that holds a RUN: its output as it comes, what it answers, Ctrl-C; and whatever becomes of the
program, no process of the RUN outlives it. Knows nothing of roots, mounts and ids.

A RUN may have our uid, and so stop or kill the program. What it held becomes ours then, for we are a subreaper
(prctl(2), PR_SET_CHILD_SUBREAPER) while RUNs run, and we kill it.
"""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from kpy.errors import InterruptedBuildError, SandboxError
from kpy.linux import libc
from kpy.sandbox import reap
from kpy.util import children
from kpy.util.cancel import Cancel

PATIENCE = 1.0
"""Seconds that a cancelled program has to end what it holds, before we do it."""

_BLOCK = 1 << 16
_LOOK = 0.5  # seconds between two looks at whether somebody stopped the program
_turn = threading.Lock()
_runs = 0
_before: frozenset[tuple[int, bytes]] = frozenset()


class LeftRunningError(SandboxError):
    """Processes of a RUN are still there, and cannot be ended. Nothing that they use may be taken back beside them."""


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Be a subreaper while the block runs, in one thread or in several. Children that are there already stay ours."""
    _adopt(1)
    try:
        yield
    finally:
        _adopt(-1)


def _adopt(step: int) -> None:
    global _runs, _before
    with _turn:
        _runs += step
        if _runs == step == 1:  # the first; who uses kpy as a library may have started others
            _before = frozenset((pid, _birth(pid)) for pid in _foreign())
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, min(_runs, 1))


def follow(
    program: "subprocess.Popen[bytes]", answer: int, said: bytearray, log: Callable[[bytes], None], cancel: Cancel
) -> None:
    """Pass output on until the program ends, and the cancellation down: that is InterruptedBuildError then. `said` gets what
    the program writes to the other end of `answer`, also when this raises.

    When this returns or raises, the program is reaped and no process of its RUN is left, or it is LeftRunningError. Call
    it in `adopting`.
    """
    with program:
        try:
            with _Watch(program, answer, said) as watch:
                try:
                    watch.run(log, cancel)
                except BaseException:
                    watch.end()
                    raise
        finally:
            _wait(program)
            sweep(orderly=program.returncode >= 0)
            _rest(answer, said.extend)
        assert program.stdout is not None
        _rest(program.stdout.fileno(), log)
        if watch.cancelled or cancel.is_set:
            raise InterruptedBuildError("interrupted")


class _Watch:
    """What is to be waited for, all at once."""

    def __init__(self, program: "subprocess.Popen[bytes]", answer: int, said: bytearray) -> None:
        assert program.stdout is not None
        self._program = program
        self._output = program.stdout.fileno()
        self._answer = answer
        self._said = said
        self._ended = _pidfd(program.pid)
        self._limit = 0.0
        self.cancelled = False
        self._poll = select.poll()
        for descriptor in (self._output, answer, self._ended):
            if descriptor >= 0:
                self._poll.register(descriptor, select.POLLIN)

    def __enter__(self) -> "_Watch":
        return self

    def __exit__(self, *_: object) -> None:
        if self._ended >= 0:
            os.close(self._ended)

    def run(self, log: Callable[[bytes], None], cancel: Cancel) -> None:
        """Until the program ends: others may hold the pipe of the output for longer."""
        self._poll.register(cancel.fileno(), select.POLLIN)
        try:
            self._pass_on(log, cancel)
        finally:
            if not self.cancelled:
                self._poll.unregister(cancel.fileno())

    def _pass_on(self, log: Callable[[bytes], None], cancel: Cancel) -> None:
        while True:
            ready = self._ready()
            if cancel.fileno() in ready:
                self._poll.unregister(cancel.fileno())
                self.cancelled = True  # the flag itself may come later: Cancel.wake
                self._tell_to_end()
            if self._output in ready:
                block = os.read(self._output, _BLOCK)
                if block:
                    log(block)
                else:
                    self._poll.unregister(self._output)
            if not self._goes_on(ready):
                return

    def end(self) -> None:
        """End it, and drop its output: whoever wanted that has failed."""
        self._tell_to_end()
        while True:
            ready = self._ready()
            if self._output in ready and not os.read(self._output, _BLOCK):
                self._poll.unregister(self._output)
            if not self._goes_on(ready):
                return

    def _ready(self) -> set[int]:
        return {descriptor for descriptor, _ in self._poll.poll(_LOOK * 1000)}

    def _tell_to_end(self) -> None:
        self._limit = time.monotonic() + PATIENCE
        self._program.send_signal(signal.SIGTERM)
        self._program.send_signal(signal.SIGCONT)

    def _goes_on(self, ready: set[int]) -> bool:
        if self._ended in ready:
            return False
        if self._answer in ready:
            block = os.read(self._answer, _BLOCK)
            self._said += block
            if not block:  # only the program holds the other end
                self._poll.unregister(self._answer)
                return self._ended >= 0
        if self._limit and time.monotonic() > self._limit:
            self._program.kill()
            return False
        if not ready:
            if self._program.poll() is not None:
                return False
            if _is_stopped(self._program.pid):  # its RUN did that, and would have us wait for ever
                self._program.send_signal(signal.SIGCONT)
        return True


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1  # a kernel before 5.3, or a filter that does not know it: the answer's end must do


def _is_stopped(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None


def _wait(program: "subprocess.Popen[bytes]") -> None:
    """It closed its end of the answer, or it never will."""
    try:
        program.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()


def sweep(seconds: float = 2 * reap.SECONDS, *, orderly: bool = False) -> None:
    """End what became our child and was not started by us: processes of RUNs whose program is gone. Raises
    LeftRunningError.

    Of a program that ended in `orderly` fashion, and so has ended all of its RUN, only what surely is a RUN's: as process 1 of
    a container, we get the orphans of all that others start in it (docker exec, kubectl debug), and those are not ours to kill.
    """
    strays = _marked if orderly else _strays
    with _turn:
        try:
            left = reap.end(strays, lambda: _reaped(strays), seconds)
        except OSError as error:
            raise LeftRunningError(f"cannot see what RUN has left: {error}", errno=error.errno or 0) from error
    if left:
        names = ", ".join(f"{_name(pid)} ({pid})" for pid in left[:5])
        raise LeftRunningError(
            f"{len(left)} processes of RUN cannot be ended: {names}",
            hint="they wait for a disk that does not answer, or are another user's, and this builder lacks CAP_KILL",
        )


def _strays() -> list[int]:
    return [pid for pid in _foreign() if not _before or (pid, _birth(pid)) not in _before]


def _marked() -> list[int]:
    """Those with more seccomp filters than we have ourselves: nobody gets rid of one, and only RUNs get them here."""
    own = _filters(os.getpid())
    return [pid for pid in _strays() if _filters(pid) > own]


def _filters(pid: int) -> int:
    """How many seccomp filters a process has; 0 where the kernel does not say (before 5.9)."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return next((int(line.split()[1]) for line in file if line.startswith(b"Seccomp_filters:")), 0)
    except (OSError, ValueError, IndexError):
        return 0


def _foreign() -> list[int]:
    """A RUN's processes are never of our session, and what we start is, or is known."""
    with children.leaders() as ours:
        session = os.getsid(0)
        return [pid for pid in reap.children(os.getpid()) if pid not in ours and _session(pid, session) != session]


def _birth(pid: int) -> bytes:
    """With its id, this is one process and no other."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19]
    except (OSError, IndexError):
        return b""


def _reaped(strays: Callable[[], list[int]]) -> bool:
    found = strays()
    if not found:
        return not strays()  # while some die, a look may miss others
    for pid in found:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return False


def _session(pid: int, default: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return default  # it is gone: somebody waited for it, so it was one of ours


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read(64).strip()
    except OSError:
        return "?"


def _rest(pipe: int, take: Callable[[bytes], None]) -> None:
    """What is still in it. Nobody writes any more."""
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while block := os.read(pipe, _BLOCK):
            take(block)
