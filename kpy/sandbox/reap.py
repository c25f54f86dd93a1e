"""Ending all processes of a RUN, however fast they fork. Knows no rights and no roots. Imports little: the programs that
hold a RUN need it.

What is killed one by one may have forked before, and at a limit of processes each that dies makes room for the next.
So all are stopped before any is killed: what is stopped does not fork. And the dead are reaped last: until then they
count as processes. A signal to a process group reaches all of it at once, children that are just being made included
(copy_process in kernel/fork.c, `delayed`); who left its group is found by walking from parents to children, again and
again until nobody new is there.
"""

import os
import signal
import time

from kpy.linux import libc

TYPE_CHECKING = False  # as mypy knows it; importing collections takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SECONDS = 5.0
"""What has not ended so long after a SIGKILL does not obey us, or waits for a disk that does not answer."""

_WALKING = 0.5  # seconds, at most: some may wake those that we stop (SIGCONT), and are killed awake then
_SHORT, _LONG = 0.0005, 0.01  # seconds between two looks at those that die


def ended(flags: int = 0) -> "tuple[int, int] | None":
    """Wait for a child that has ended, and reap it: its id, and the exit code as a shell gives it. None if none has ended,
    with WNOHANG. Raises ChildProcessError if there is none left.

    A process of a RUN can make its parent its tracer (PTRACE_TRACEME), and then it stops at each signal and execve until
    that lets it go on. So we do: it is traced no more, and goes on as it would have without."""
    while True:
        pid, status = os.waitpid(-1, flags)
        if pid == 0:
            return None
        if os.WIFEXITED(status):
            return pid, os.WEXITSTATUS(status)
        if os.WIFSIGNALED(status):
            return pid, 128 + os.WTERMSIG(status)
        if os.WIFSTOPPED(status):
            _release(pid, os.WSTOPSIG(status))


def _release(pid: int, number: int) -> None:
    """Let go a process or thread that stopped because we trace it. It gets the signal, but for those that only tell a
    tracer that it is there: SIGTRAP comes of execve, and SIGSTOP is how a tracee waits for its tracer."""
    try:
        libc.ptrace_detach(pid, 0 if number in (signal.SIGSTOP, signal.SIGTRAP) else number)
    except ProcessLookupError:
        pass  # somebody killed it


def end_children(seconds: float = SECONDS, *, alone: bool = False) -> "Sequence[int]":
    """Kill all that came of this process, and reap. It must be a subreaper, with one thread, and no children but of the
    RUN. Those that are left after so many seconds: none, as a rule.

    `alone`: this process can signal no others but those that came of it (Landlock's scope). Then all are killed at once:
    no fork goes on beside that (kill_something_info in kernel/signal.c holds the lock of all processes). Of who is not
    alone it would be the end of all processes of the user."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if alone:
        try:
            os.kill(-1, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # there is nobody
    return end(lambda: children(os.getpid()), _reap, seconds)


def end(tops: "Callable[[], Sequence[int]]", reap: "Callable[[], bool]", seconds: float = SECONDS) -> "Sequence[int]":
    """Stop and kill those that `tops` gives, and all that came of them. `reap` waits for the dead of them, without
    blocking, and says whether nobody is left. Those that are left after so many seconds: none, as a rule."""
    limit = time.monotonic() + seconds
    pause = _SHORT
    while not reap():
        if time.monotonic() > limit:
            return tops()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            _signal_all(tops, number)
        time.sleep(pause)
        pause = min(pause * 2, _LONG)
    return ()


def children(pid: int) -> "list[int]":
    """The children of all its threads, zombies too. While some die, others may be left out (proc(5)). Raises OSError."""
    return _reader()(pid)


def _reap() -> bool:
    try:
        while ended(os.WNOHANG):
            pass
    except ChildProcessError:
        return True
    return False


def _signal_all(tops: "Callable[[], Sequence[int]]", number: int) -> None:
    """Walk until there is nobody who has not got the signal, or for long enough. Whoever is found gets it before another is
    looked into: beside hundreds that run, we run seldom."""
    limit = time.monotonic() + _WALKING
    told: set[int] = set()
    groups: set[int] = set()
    is_new = True
    while is_new and time.monotonic() < limit:
        is_new = False
        for family in _families(tops):
            fresh = [pid for pid in family if pid not in told]
            for pid in fresh:
                _signal(pid, groups, number)
            told.update(fresh)
            is_new = is_new or bool(fresh)


def _families(tops: "Callable[[], Sequence[int]]") -> "Iterator[Sequence[int]]":
    """First the tops, then the children of each process, the nearest first."""
    read = _reader()
    first = tops()
    yield first
    there = set(first)
    pending = list(first)
    for pid in pending:  # which grows
        try:
            family = [child for child in read(pid) if child not in there]  # ids are used again: no process twice
        except OSError:
            continue  # it is gone, and its children are others'
        yield family
        there.update(family)
        pending += family


def _signal(pid: int, groups: "set[int]", number: int) -> None:
    """To the process, and first to its group, unless that is in `groups` already or is ours."""
    try:
        group = os.getpgid(pid)
        if group > 1 and group != os.getpgrp() and group not in groups:  # kill(2): -1 is everybody, 0 is our own
            groups.add(group)
            os.killpg(group, number)
            if group == pid:
                return
    except (ProcessLookupError, PermissionError):
        pass
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # whoever calls looks again


def _reader() -> "Callable[[int], list[int]]":
    """What gives the children of a process, at about this time."""
    if os.path.exists("/proc/thread-self/children"):
        return _listed
    parents = _parents()  # a kernel without CONFIG_PROC_CHILDREN
    return lambda pid: [child for child, parent in parents if parent == pid]


def _listed(pid: int) -> "list[int]":
    # A directory has 2 links, and one more for each in it: most processes have one thread.
    if os.stat(f"/proc/{pid}/task").st_nlink == 3:
        return _of_thread(pid, pid)
    found: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            found += _of_thread(pid, int(thread))
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended
    return found


def _of_thread(pid: int, thread: int) -> "list[int]":
    descriptor = os.open(f"/proc/{pid}/task/{thread}/children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while block := os.read(descriptor, 1 << 16):
            text += block
    finally:
        os.close(descriptor)
    return [int(word) for word in text.split()]


def _parents() -> "list[tuple[int, int]]":
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                    # pid (name) state ppid: the name may hold anything, parentheses and blanks included
                    found.append((int(name), int(file.read().rpartition(b")")[2].split()[1])))
            except (OSError, IndexError):
                continue
    return found
