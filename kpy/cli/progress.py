"""Progress as plain lines (BuildKit's), as JSON, or not at all; and the choice among them. Terminals: `progress_tty.py`.

Reporters are called from several threads, each has its own lock, and none raises: when nobody reads, they fall silent.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from kpy.cli import runners
from kpy.cli.failure import harmless, one_line
from kpy.cli.options import ProgressMode
from kpy.cli.terminal import Terminal, encode
from kpy.errors import UsageError
from kpy.events import Event, StepFinished, StepLog, StepProgress, StepStarted, Warned

_EVERY = 5.0  # seconds between lines about one transfer
_LONGEST = 64 * 1024  # a line of output that does not end is shown in pieces of this many bytes


class Progress(Protocol):
    """A Reporter with an end."""

    def __call__(self, event: Event, /) -> None:
        """Show it. Never raises."""
        ...

    def __enter__(self) -> "Progress":
        """Nothing is shown, and no thread runs, before the first event."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        ...


def choose(mode: ProgressMode, terminal: Terminal) -> Progress:
    """The reporter for `mode`. Raises UsageError for `tty` where there is no terminal."""
    capable = terminal.stderr_is_terminal and terminal.variables.get("TERM", "") not in ("", "dumb")
    if mode == "tty" and not terminal.stderr_is_terminal:
        raise UsageError("--progress=tty: standard error is not a terminal", hint="use --progress=plain")
    if mode == "tty" or (mode == "auto" and capable):
        from kpy.cli.progress_tty import LiveProgress

        return LiveProgress(terminal.stderr, color=not terminal.variables.get("NO_COLOR"))
    if mode == "rawjson":
        from kpy.cli.progress_json import JsonProgress

        return JsonProgress(terminal.stderr)
    if mode in ("quiet", "none"):
        return Silence()
    stream = runners.Unheard(terminal.stderr) if runners.listens(terminal.variables) else terminal.stderr
    return PlainProgress(stream, on_terminal=terminal.stderr_is_terminal)


class Silence:
    """Shows nothing."""

    def __call__(self, event: Event, /) -> None:
        """Drop it."""

    def __enter__(self) -> "Silence":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Lines(Protocol):
    """What is written to."""

    def write(self, data: bytes, /) -> object: ...
    def flush(self) -> object: ...


class LineWriter:
    """Writes bytes to a stream until that fails once, then drops them."""

    def __init__(self, stream: Lines) -> None:
        self._stream = stream
        self._broken = False

    def write(self, data: bytes) -> None:
        """Write and flush. Never raises for a stream that is closed or full."""
        if self._broken:
            return
        try:
            self._stream.write(data)
            self._stream.flush()
        except (OSError, ValueError):
            self._broken = True


@dataclass(slots=True)
class _Step:
    """What is known of a running step."""

    number: int
    name: str
    started: float
    partial: bytes = b""
    shown: dict[str, float] = field(default_factory=dict)  # label: when a line about it was last written
    began: dict[str, float] = field(default_factory=dict)


class PlainProgress:
    """`#5 [2/4] RUN make`, `#5 0.123 output`, `#5 DONE 1.2s`: one line at a time, for logs.

    Names and messages are always harmless. Output keeps its bytes, colours too, unless a terminal would obey them.
    """

    def __init__(
        self, stream: Lines, clock: Callable[[], float] = time.monotonic, *, on_terminal: bool = False
    ) -> None:
        self._out = LineWriter(stream)
        self._on_terminal = on_terminal
        self._clock = clock
        self._lock = threading.Lock()
        self._steps: dict[str, _Step] = {}
        self._count = 0
        self._current = ""  # the step whose lines were written last
        self._warned: set[Warned] = set()

    def __enter__(self) -> "PlainProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            for ident, step in self._steps.items():
                self._flush(ident, step)

    def __call__(self, event: Event, /) -> None:
        """Write the lines of an event."""
        with self._lock:
            match event:
                case StepStarted():
                    step = self._step(event.id, event.name)
                    self._line(event.id, step, b"")
                case StepLog():
                    self._log(event.id, self._step(event.id), event.data)
                case StepProgress():
                    self._progress(event, self._step(event.id))
                case StepFinished():
                    self._finish(event, self._step(event.id))
                case Warned():
                    self._warn(event)

    def _step(self, ident: str, name: str = "") -> _Step:
        if ident not in self._steps:
            self._count += 1
            self._steps[ident] = _Step(self._count, name or ident, self._clock())
        return self._steps[ident]

    def _line(self, ident: str, step: _Step, text: bytes) -> None:
        """Write a line of a step; when another step wrote before, name this one first."""
        data = b""
        if self._current != ident:
            data = (b"\n" if self._current else b"") + encode(f"#{step.number} {one_line(step.name)}\n")
            self._current = ident
        if text:
            data += b"#%d %s\n" % (step.number, text)
        self._out.write(data)

    def _log(self, ident: str, step: _Step, data: bytes) -> None:
        *lines, rest = (step.partial + data).split(b"\n")
        if len(rest) > _LONGEST:
            lines.append(rest)
            rest = b""
        step.partial = rest
        for line in lines:
            self._log_line(ident, step, line)

    def _log_line(self, ident: str, step: _Step, line: bytes) -> None:
        # A progress bar redraws its line after carriage returns: the last state is what a log needs.
        line = line.rstrip(b"\r").rpartition(b"\r")[2]
        if self._on_terminal:
            line = encode(harmless(line.decode("utf-8", "surrogateescape")))
        self._line(ident, step, b"%.3f %s" % (self._clock() - step.started, line))

    def _flush(self, ident: str, step: _Step) -> None:
        if step.partial:
            rest, step.partial = step.partial, b""
            self._log_line(ident, step, rest)

    def _progress(self, event: StepProgress, step: _Step) -> None:
        now = self._clock()
        began = step.began.setdefault(event.label, now)
        complete = 0 < event.total <= event.current
        last = step.shown.get(event.label, began)
        if last < 0 or (not complete and now - last < _EVERY):
            return
        step.shown[event.label] = -1.0 if complete else now
        size = human(event.current) + (f" / {human(event.total)}" if event.total else "")
        tail = " done" if complete else ""
        self._line(event.id, step, encode(f"{one_line(event.label)} {size} {now - began:.1f}s{tail}"))

    def _finish(self, event: StepFinished, step: _Step) -> None:
        self._flush(event.id, step)
        match event.outcome:
            case "done":
                text = f"DONE {self._clock() - step.started:.1f}s"
            case "cached":
                text = "CACHED"
            case "failed":
                text = f"ERROR: {one_line(event.message)}" if event.message else "ERROR"
        self._line(event.id, step, encode(text))
        del self._steps[event.id]

    def _warn(self, event: Warned) -> None:
        if event in self._warned:
            return
        self._warned.add(event)
        data = b"\n" if self._current else b""
        self._current = ""
        data += encode(f"warning: {one_line(event.message)}\n")
        if event.hint:
            data += encode(f"hint: {one_line(event.hint)}\n")
        self._out.write(data)


def human(size: int) -> str:
    """Bytes as people read them, in powers of 1000 as docker shows them."""
    if size < 1000:
        return f"{size}B"
    amount = float(size)
    for unit in ("kB", "MB", "GB", "TB"):
        amount /= 1000
        if amount < 999.95 or unit == "TB":
            break
    return f"{amount:.1f}{unit}"
