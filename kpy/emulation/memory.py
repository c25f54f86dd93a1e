"""Memory of the processes that ask: paths in, answers out, through /proc/PID/mem (process_vm_readv is refused by the
seccomp profiles of older docker)."""

import errno
import os
from collections.abc import Callable
from time import monotonic

_SHORT, _PATH_MAX = 256, 4096
_MOST = 512  # of descriptors held open
_AGE = 0.5  # seconds; see `descriptor`


def _fault() -> OSError:
    return OSError(errno.EFAULT, os.strerror(errno.EFAULT))


class Memory:
    """Reads and writes. `is_waiting` says whether the process that asks is still there: what its pid names could be
    another one by now."""

    def __init__(self, is_waiting: Callable[[], bool]) -> None:
        self._is_waiting = is_waiting
        self._open: dict[int, tuple[int, float]] = {}

    def forget(self, pid: int) -> None:
        """The process executes a program: an open descriptor stays with the old memory, after vfork the parent's."""
        held = self._open.pop(pid, None)
        if held is not None:
            os.close(held[0])

    def close(self) -> None:
        """Let go of all."""
        for pid in list(self._open):
            self.forget(pid)

    def descriptor(self, pid: int) -> int:
        """One of its memory, to read and write. Good until the process is next spoken of.

        A descriptor is young, or it could belong to a process whose pid has been given to another. In half a
        second no kernel comes around to the same pid again: it would have to start all 32768 others first."""
        held = self._open.get(pid)
        now = monotonic()
        if held is not None:
            if now < held[1]:
                return held[0]
            self.forget(pid)
        if len(self._open) >= _MOST:
            self.close()
        path = f"/proc/{pid}/mem"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            self.close()  # our own limit is a low one
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if not self._is_waiting():
            os.close(descriptor)
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        self._open[pid] = (descriptor, now + _AGE)
        return descriptor

    def read(self, pid: int, address: int, size: int) -> bytes:
        """That much, or what there is before memory ends. Raises OSError EFAULT if there is nothing."""
        if not address or address >= 1 << 63:
            raise _fault()
        data = b""
        for _ in range(2):
            try:
                data = os.pread(self.descriptor(pid), size, address)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                raise _fault() from error
            if data:
                return data
            self.forget(pid)  # its memory is gone by exec: open the new one
        raise _fault()

    def write(self, pid: int, address: int, data: bytes) -> None:
        """All of it, or EFAULT. (Memory that the process may not write itself can be written: a program that passes
        such a pointer fools only itself.)"""
        if not address or address >= 1 << 63:
            raise _fault()
        for _ in range(2):
            try:
                done = os.pwrite(self.descriptor(pid), data, address)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                raise _fault() from error
            if done == len(data):
                return
            if done:
                break
            self.forget(pid)
        raise _fault()

    def exactly(self, pid: int, address: int, size: int) -> bytes:
        """As many bytes as asked for, or EFAULT."""
        data = self.read(pid, address, size) if size else b""
        if len(data) != size:
            raise _fault()
        return data

    def path(self, pid: int, address: int) -> bytes:
        """A path, without its NUL. Raises OSError ENAMETOOLONG as the kernel does."""
        data = self.read(pid, address, _SHORT)
        end = data.find(b"\0")
        if end < 0:
            data = self.read(pid, address, _PATH_MAX)
            end = data.find(b"\0")
            if end < 0:
                if len(data) < _PATH_MAX:
                    raise _fault()
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return data[:end]

    def string(self, pid: int, address: int, limit: int) -> bytes:
        """A string of at most `limit` bytes. Raises OSError ERANGE if it is longer."""
        data = self.read(pid, address, limit + 1)
        end = data.find(b"\0")
        if end < 0:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE)) if len(data) > limit else _fault()
        return data[:end]
