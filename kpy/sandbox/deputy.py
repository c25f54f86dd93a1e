"""Work on the files of an image that the builder does for a RUN, before and after it: in a thread that Landlock keeps to
the RUN's own files and those that it is given.

The builder may read its logins and change its store; what it does for an image must not. Landlock restricts single threads
(landlock_restrict_self(2)), so this needs no other process, which a RUN of the same uid could stop or kill. Where the kernel
has no Landlock, descriptors are the only wall (kpy.linux.beneath), here and everywhere.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from kpy.errors import SandboxError
from kpy.linux import landlock, seccomp, syscalls
from kpy.sandbox.spawn import Reach
from kpy.util import threads

_Result = TypeVar("_Result")


def confined(reach: Reach | None, work: Callable[[], _Result]) -> _Result:
    """Do the work in a thread that has only this reach, and give its result, or raise what it raises. None: the work's files
    cannot be told from the builder's (root in its own container), so only descriptors keep it to them.

    Raises SandboxError where there is Landlock and it refuses: the work is not done then.
    """
    if reach is None:
        return work()
    task = _Task(reach, work)
    threads.start(task.run, "kpy-deputy", daemon=False).join()
    return task.result()


class _Task(Generic[_Result]):
    def __init__(self, reach: Reach, work: Callable[[], _Result]) -> None:
        self._reach = reach
        self._work = work
        self._done: list[_Result] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            _enter(self._reach)
            self._done.append(self._work())
        except BaseException as error:  # whoever waits for the result raises it
            self._error = error

    def result(self) -> _Result:
        if self._error is not None:
            raise self._error
        return self._done[0]


def _enter(reach: Reach) -> None:
    """Confine this thread for good."""
    arch = syscalls.native()
    if arch is None:
        return  # no Landlock that we know how to ask for
    try:
        seccomp.no_new_privs()
        landlock.only(arch, reach.whole, reach.programs)
    except OSError as error:
        raise SandboxError(
            f"cannot confine what is done for a RUN: {error.strerror}",
            errno=error.errno or 0,
            hint="the kernel has Landlock, but refuses it here: see its log",
        ) from error
