"""The streams and the environment that a verb talks to. Writes bytes; knows nothing of progress."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from kpy.app.options import Environment
from kpy.cli import runners
from kpy.errors import KpyError, UsageError
from kpy.util import waiting


@dataclass(frozen=True, slots=True)
class Terminal:
    """Standard streams as bytes, which of them are terminals, and the environment as it was at the start."""

    stdin: BinaryIO
    stdout: BinaryIO
    stderr: BinaryIO
    variables: Mapping[str, str] = field(repr=False)
    directory: str
    stdin_is_terminal: bool = False
    stdout_is_terminal: bool = False
    stderr_is_terminal: bool = False

    def out(self, line: str) -> None:
        """Write a line of the result. Raises KpyError when it cannot be (a full disk), BrokenPipeError."""
        _write(self.stdout, self._line(line), "standard output")

    def err(self, line: str) -> None:
        """Write a line for the human. Raises as `out` does."""
        _write(self.stderr, self._line(line), "standard error")

    def _line(self, text: str) -> bytes:
        data = encode(text + "\n")
        return runners.unheard(data) if runners.listens(self.variables) else data

    def environment(self) -> Environment:
        """What the verbs of `kpy.app` take."""
        return Environment(self.variables, self.directory, waiting.source(self.stdin), self.stdout)


def _write(stream: BinaryIO, line: bytes, name: str) -> None:
    try:
        stream.write(line)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise KpyError(f"cannot write to {name}: {(error.strerror or 'error').lower()}") from error


def encode(text: str) -> bytes:
    """UTF-8; what came from file names as surrogates goes out as the bytes it was."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def standard() -> Terminal:
    """This process's streams, environment and directory. A stream that is closed reads empty, and swallows."""
    try:
        directory = os.getcwd()
    except OSError as error:
        raise UsageError("the working directory does not exist", hint="cd to one that does") from error
    return Terminal(
        sys.stdin.buffer if sys.stdin else open(os.devnull, "rb"),
        sys.stdout.buffer if sys.stdout else open(os.devnull, "wb"),
        sys.stderr.buffer if sys.stderr else open(os.devnull, "wb"),
        dict(os.environ),
        directory,
        stdin_is_terminal=bool(sys.stdin and sys.stdin.isatty()),
        stdout_is_terminal=bool(sys.stdout and sys.stdout.isatty()),
        stderr_is_terminal=bool(sys.stderr and sys.stderr.isatty()),
    )
