"""Whose process is it? The kernel keeps that for us, in a number that it carries from parent to child, through fork,
vfork and exec, and shares among threads, and that is gone with the process: the soft limit RLIMIT_LOCKS, which it has
ignored since 2.4.25. So there are no processes to follow, and no races with their ends.

Programs that set it (sudo sets all its limits back) must not reach the kernel: see filter.py.
"""

import errno
import os
import resource
from time import monotonic

from kpy.emulation.credentials import Credentials
from kpy.emulation.guard import is_unrestricted

_LIMIT = 10  # RLIMIT_LOCKS, for which the resource module has no name
_MARK = 0x6B7079 << 32
_AGE = 0.5  # seconds that a process is remembered for: see kpy.emulation.memory
_MOST = 1024  # of them
_LARGEST = 1 << 16  # a process that invents more combinations of ids than that is told EAGAIN, as by setuid(2)


class Identities:
    """Credentials of processes. What has no mark of ours is the first process of the RUN, or came by it unmarked."""

    def __init__(self, first: Credentials) -> None:
        self.first = first
        self.all_root = is_unrestricted(first)
        """Has there been nobody yet but who passes all checks?"""
        self._known = [first]
        self._numbers = {first: 0}
        self._recent: dict[int, tuple[float, Credentials]] = {}
        """Nobody's change but by `become`: asking the kernel each time would be a tenth of all that a call costs."""

    def of(self, pid: int) -> Credentials:
        """Those of a process or thread. Raises ProcessLookupError."""
        now = monotonic()
        held = self._recent.get(pid)
        if held is not None and now < held[0]:
            return held[1]
        number = resource.prlimit(pid, _LIMIT)[0] - _MARK
        who = self._known[number] if 0 <= number < len(self._known) else self.first
        if len(self._recent) >= _MOST:
            self._recent.clear()
        self._recent[pid] = (now + _AGE, who)
        return who

    @staticmethod
    def has(pid: int) -> bool:
        """Is this a process of the RUN? It has our mark, which none can take off. Raises ProcessLookupError."""
        return _is_mark(resource.prlimit(pid, _LIMIT)[0])

    def become(self, pid: int, who: Credentials) -> None:
        """Give the process these from now on."""
        number = self._numbers.get(who)
        if number is None:
            number = len(self._known)
            if number >= _LARGEST:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self._known.append(who)
            self._numbers[who] = number
        self.all_root = self.all_root and is_unrestricted(who)
        self._recent.clear()  # all threads have become it, and we do not know which those are
        resource.prlimit(pid, _LIMIT, (_MARK + number, resource.prlimit(pid, _LIMIT)[1]))


def is_marked() -> bool:
    """Is this process in a RUN whose root is emulated?"""
    return _is_mark(resource.getrlimit(_LIMIT)[0])


def _is_mark(soft: int) -> bool:
    return soft != resource.RLIM_INFINITY and 0 <= soft - _MARK < _LARGEST


def mark() -> bool:
    """Make this process the first of a RUN. False if its hard limit leaves no room for the mark."""
    hard = resource.getrlimit(_LIMIT)[1]
    if hard != resource.RLIM_INFINITY and hard < _MARK + _LARGEST:
        return False
    resource.setrlimit(_LIMIT, (_MARK, hard))
    return True
