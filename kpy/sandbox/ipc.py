"""What a RUN leaves of System V's shared memory, semaphores and message queues, where it shares their namespace with its
builder: removed before the next RUN (and the next build) could find it. POSIX's have names (kpy.sandbox.own)."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kpy.linux import libc, syscalls, sysvipc
from kpy.linux.sysvipc import Object

_GONE = (errno.EINVAL, errno.EIDRM)


@contextmanager
def removed(warn: Callable[[bytes], None], uid: int | None = None) -> Iterator[None]:
    """Have no more of them afterwards than now. `uid`: that of all processes of the RUN; None if it has several. No process
    of it is left when the block ends. A pod has one namespace for all its containers: what was there stays, and so does shared
    memory of other containers, and all that is another user's, if the RUN has but one. `warn` gets a line for what stays."""
    before = frozenset(sysvipc.objects())
    try:
        yield
    finally:
        for key, found in sysvipc.objects().items():
            if key not in before and uid in (None, found.uid) and not _of_another(found):
                try:
                    _remove(found)
                except OSError as error:
                    if error.errno not in _GONE:
                        warn(f"kpy: warning: cannot remove {found.kind} {found.ident}, which RUN left: {error.strerror}\n".encode())


def _of_another(found: Object) -> bool:
    """Was it made by a process that is none of the RUN's: of another container, or alive?"""
    return found.pid == 0 or (found.pid > 0 and os.path.exists(f"/proc/{found.pid}"))


def _remove(found: Object) -> None:
    try:
        sysvipc.remove(found)
    except PermissionError:
        if os.geteuid() != 0:
            raise
        _remove_as(found)  # root of a container may not, but may become who made it


def _remove_as(found: Object) -> None:
    """The system call changes the ids of one thread; the C library's function would change those of all."""
    arch = syscalls.native()
    problems: list[OSError] = []

    def work() -> None:
        try:
            assert arch is not None
            libc.syscall(arch.numbers["setresuid"], "setresuid", -1, found.uid, -1)
            sysvipc.remove(found)
        except OSError as error:
            problems.append(error)

    if arch is None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    thread = threading.Thread(target=work, name="ipc")
    thread.start()
    thread.join()
    for problem in problems:
        raise problem
