"""Progress on a terminal: finished steps as lines, running steps live below them. The only module that needs rich."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from io import TextIOWrapper
from types import TracebackType
from typing import BinaryIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kpy.cli.failure import harmless, one_line
from kpy.cli.progress import human
from kpy.events import Event, StepFinished, StepLog, StepProgress, StepStarted, Warned

_LOG_LINES = 6
_BARS = 6
_LONGEST = 4096  # bytes of a line that has not ended yet


@dataclass(slots=True)
class _Running:
    name: str
    started: float
    partial: bytes = b""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))
    transfers: dict[str, tuple[int, int]] = field(default_factory=dict)


class LiveProgress:
    """Steps that ended are printed once; running ones are redrawn with their last lines and their transfers.

    The thread that redraws starts with the first event, so that a user namespace can be entered before it.
    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        color: bool,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._text = TextIOWrapper(stream, "utf-8", errors="replace", write_through=True)
        self._console = console or Console(
            file=self._text, force_terminal=True, no_color=not color, highlight=False
        )
        self._clock = clock
        # Two locks: rich calls `_draw` under a lock of its own, so nothing of rich is called under `_lock`.
        self._lock = threading.Lock()
        self._start_lock = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._warned: set[Warned] = set()
        self._live: Live | None = None
        self._silent = False

    def __enter__(self) -> "LiveProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._silent = True
        with self._lock:
            self._running.clear()
        with self._start_lock:
            try:
                if self._live is not None:
                    self._live.stop()
                self._text.detach()  # or it would close the stream, which is not ours
            except (OSError, ValueError):
                pass

    def __call__(self, event: Event, /) -> None:
        """Show an event. A terminal that is gone ends the showing, not the build."""
        if self._silent:
            return
        try:
            with self._lock:
                lines = self._take(event)
            live = self._start()
            if live is not None and lines:
                live.refresh()  # or what ended would be drawn once more, as running, below its last line
            for line in lines:
                self._console.print(line)
        except (OSError, ValueError):
            self._silent = True

    def _start(self) -> Live | None:
        with self._start_lock:
            if self._live is None and not self._silent:
                self._live = Live(
                    console=self._console, get_renderable=self._draw, refresh_per_second=8, transient=True,
                    redirect_stdout=False, redirect_stderr=False,
                )  # fmt: skip
                self._live.start()
            return self._live

    def _take(self, event: Event) -> list[Text]:
        """Remember the event; what it says for good."""
        step = None if isinstance(event, Warned) else self._running.get(event.id)
        match event:
            case StepStarted():
                self._running[event.id] = _Running(one_line(event.name), self._clock())
            case StepLog():
                if step is not None:
                    _log(step, event.data)
            case StepProgress():
                if step is not None:
                    step.transfers[event.label] = (event.current, event.total)
            case StepFinished():
                self._running.pop(event.id, None)
                return [_cut(self._finished(event, step or _Running(one_line(event.id), self._clock())))]
            case Warned():
                return self._warning(event)
        return []

    def _finished(self, event: StepFinished, step: _Running) -> Text:
        seconds = f"{self._clock() - step.started:.1f}s"
        match event.outcome:
            case "done":
                moved = sum(current for current, _ in step.transfers.values())
                tail = f"  {seconds} ({human(moved)})" if moved else f"  {seconds}"
                return Text.assemble((" => ", "blue"), step.name, (tail, "dim"))
            case "cached":
                return Text.assemble((" => ", "blue"), ("CACHED ", "green"), step.name)
            case "failed":
                return Text.assemble(
                    (" => ", "red"), ("ERROR ", "bold red"), step.name, (f"  {seconds}", "dim")
                )

    def _warning(self, event: Warned) -> list[Text]:
        if event in self._warned:
            return []
        self._warned.add(event)
        lines = [Text(f"warning: {one_line(event.message)}", style="yellow")]
        return [*lines, Text(f"hint: {one_line(event.hint)}")] if event.hint else lines

    def _draw(self) -> RenderableType:
        with self._lock:
            now = self._clock()
            rows: list[RenderableType] = []
            for step in self._running.values():
                rows.append(
                    _cut(Text.assemble((" => ", "cyan"), step.name, (f"  {now - step.started:.1f}s", "dim")))
                )
                rows += [_cut(Text(f" => => {line}", style="dim")) for line in step.lines]
                rows += _bars(step.transfers)
            return Group(*rows)


def _bars(transfers: dict[str, tuple[int, int]]) -> list[RenderableType]:
    """Bars of the transfers under way, at most a few, and how many more there are."""
    moving = [
        (label, current, total) for label, (current, total) in transfers.items() if not 0 < total <= current
    ]
    rows: list[RenderableType] = []
    for label, current, total in moving[:_BARS]:
        row = Table.grid(padding=(0, 1))
        row.add_row(
            Text(f" => => {one_line(label)[:24]}", style="dim"),
            ProgressBar(total=total or None, completed=current, width=24, pulse=not total),
            Text(human(current) + (f" / {human(total)}" if total else ""), style="dim"),
        )
        rows.append(row)
    if len(moving) > _BARS:
        rows.append(Text(f" => => and {len(moving) - _BARS} more", style="dim"))
    return rows


def _cut(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _log(step: _Running, data: bytes) -> None:
    """Keep the last lines, as a terminal would show them: what a carriage return overwrote is gone."""
    *lines, rest = (step.partial + data).split(b"\n")
    step.partial = rest[-_LONGEST:]
    for line in lines[-_LOG_LINES:]:
        shown = line.rstrip(b"\r")[-_LONGEST:].rpartition(b"\r")[2].decode("utf-8", "replace")
        step.lines.append(harmless(shown).expandtabs(8))
