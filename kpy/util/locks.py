"""Locks between processes and threads, by flock on a file: gone with the process that held them."""

import errno
import fcntl
import os
import time
from types import TracebackType

from kpy.errors import InterruptedBuildError, StoreError
from kpy.util.cancel import Cancel
from kpy.util.checkpoint import checkpoint


class FileLock:
    """`with FileLock(path):` holds the file exclusively, or together with other `shared` holders.

    Waits until it is free: at most `timeout` seconds (then StoreError), and not when `cancel` is set (then
    InterruptedBuildError). The file is made if it is missing; a `transient` one is removed again at release.
    Two FileLocks of one path exclude each other in one process too. One object serves one block at a time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        shared: bool = False,
        timeout: float | None = None,
        cancel: Cancel | None = None,
        transient: bool = False,
    ) -> None:
        self._path = os.fspath(path)
        self._operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._timeout = timeout
        self._cancel = cancel
        self._transient = transient
        self._descriptor = -1

    def __enter__(self) -> "FileLock":
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        wait = 0.005
        while not self._try():
            if self._cancel is not None and self._cancel.is_set:
                raise InterruptedBuildError(f"interrupted while waiting for the lock {self._path}")
            checkpoint()
            if deadline is not None and time.monotonic() >= deadline:
                raise StoreError(f"{self._path} is locked by another process", hint="wait until the other build has ended")
            time.sleep(wait)
            wait = min(wait * 2, 0.2)
        return self

    def _try(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._problem(error) from error
        try:
            fcntl.flock(descriptor, self._operation | fcntl.LOCK_NB)
            # A transient file that its last holder removed meanwhile locks nothing.
            if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                self._descriptor = descriptor
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError as error:
            os.close(descriptor)
            raise self._problem(error) from error
        os.close(descriptor)
        return False

    def _problem(self, error: OSError) -> StoreError:
        hint = ""
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            hint = "this file system has no locks: use a directory on another one"
        return StoreError(f"cannot lock {self._path}: {os.strerror(error.errno or 0).lower()}", hint=hint)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if self._transient:
            try:
                os.unlink(self._path)
            except OSError:
                pass  # a leftover lock file does no harm
        os.close(descriptor)


def is_held_above(path: str | os.PathLike[str]) -> bool:
    """Is the file locked by a process that this one comes from? To wait for that one is to wait for ever."""
    try:
        inode = os.stat(path).st_ino
        with open("/proc/locks", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return False
    # 1: FLOCK ADVISORY WRITE pid major:minor:inode first last; on an overlay, devices are not those of stat(2)
    holders = {int(row[4]) for row in rows if row[1] == "FLOCK" and row[5].rpartition(":")[2] == str(inode)}
    return not holders.isdisjoint(_ancestors())


def _ancestors() -> list[int]:
    found, pid = [], os.getppid()
    while pid > 0:
        found.append(pid)
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])  # after the name, which may hold blanks
        except OSError:
            break
    return found
