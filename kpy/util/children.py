"""Children of this process that lead a session of their own, away from the terminal's Ctrl-C.

A process that a RUN left and that became our child is in a session of its own as well: nothing else tells it from one
that we started. So all that we start so is started here.
"""

import contextlib
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

_lock = threading.Lock()
_leaders: dict[int, "subprocess.Popen[bytes]"] = {}


def lead(argv: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a program in a new session; the options are Popen's."""
    with _lock:  # between its setsid and our note of it, nobody may look
        program: subprocess.Popen[bytes] = subprocess.Popen(argv, start_new_session=True, **options)
        for pid in [pid for pid, known in _leaders.items() if known.returncode is not None]:
            del _leaders[pid]
        _leaders[program.pid] = program
    return program


@contextlib.contextmanager
def leaders() -> Iterator[frozenset[int]]:
    """The ids of those that have not been waited for. None is started while the block runs."""
    with _lock:
        yield frozenset(pid for pid, program in _leaders.items() if program.returncode is None)
