"""What is to be read, and programs, that may let us wait for ever: waited for in short turns, so that the work can end. For
writing, see outlet.py."""

import io
import os
import select
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import BinaryIO, cast

from kpy.util.checkpoint import checkpoint

_TURN = 0.1  # seconds


def source(stream: BinaryIO) -> BinaryIO:
    """The same to read, if it is something that may never come; nothing may have been read of it."""
    number = _endless(stream)
    return stream if number is None else cast("BinaryIO", io.BufferedReader(_Source(number, stream)))


def run(
    argv: Sequence[str], seconds: float, data: bytes = b"", env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run a program with this on its standard input, and its output captured. It is killed after so many seconds, and when the
    work is to end. Raises OSError, subprocess.TimeoutExpired."""
    limit = time.monotonic() + seconds
    rest: bytes | None = data
    program = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    with program:
        try:
            while True:
                checkpoint()
                try:
                    out, said = program.communicate(rest, timeout=min(_TURN, max(limit - time.monotonic(), 0)))
                    return subprocess.CompletedProcess(argv, program.returncode, out, said)
                except subprocess.TimeoutExpired:
                    rest = None  # it is remembered
                    if time.monotonic() >= limit:
                        raise
        except BaseException:
            program.kill()
            raise


def wait(program: "subprocess.Popen[bytes]") -> int:
    """Its exit code."""
    while True:
        checkpoint()
        try:
            return program.wait(_TURN)
        except subprocess.TimeoutExpired:
            pass


class _Source(io.RawIOBase):
    def __init__(self, number: int, stream: BinaryIO) -> None:
        super().__init__()
        self._number, self._stream = number, stream

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        _until(self._number, select.POLLIN)
        return os.readv(self._number, [buffer])


def _until(number: int, event: int) -> None:
    poll = select.poll()
    poll.register(number, event)
    while True:
        checkpoint()
        if poll.poll(_TURN * 1000):
            return


def _endless(stream: BinaryIO) -> int | None:
    """Its descriptor, if it is no file."""
    try:
        number = stream.fileno()
        mode = os.fstat(number).st_mode
    except (OSError, AttributeError, ValueError):
        return None
    return number if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode) else None
