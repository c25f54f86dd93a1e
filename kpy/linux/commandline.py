"""The command line of this process as others see it (proc(5), /proc/PID/cmdline): anybody in the same pid namespace can read
it, whatever keeps them from its memory."""

import ctypes
import os

_ARG_START, _ARG_END = 48, 49  # fields of /proc/PID/stat, from 1
_PROGRAMS = (b"kpy", b"__main__.py")


def hide() -> None:
    """Have it end with the verb: arguments may hold passwords (URLs, build arguments), which no RUN is to read. They are in
    memory that the interpreter has copied at its start. Does nothing where the kernel does not say where that is."""
    first, last = _place()
    if not first < last:
        return
    shown = ctypes.string_at(first, last - first).split(b"\0")
    words = 1 + next((place for place, word in enumerate(shown) if os.path.basename(word) in _PROGRAMS), 0)
    if words < len(shown) and not shown[words].startswith(b"-"):
        words += 1
    kept = sum(len(word) + 1 for word in shown[:words])
    if kept < last - first:
        ctypes.memset(first + kept, 0, last - first - kept)


def _place() -> tuple[int, int]:
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[_ARG_START - 3]), int(fields[_ARG_END - 3])
    except (OSError, IndexError, ValueError):
        return 0, 0
