"""Progress for programs: BuildKit's rawjson, one SolveStatus object per line. Shows what the events say, no more."""

import base64
import hashlib
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, assert_never

from kpy.cli.failure import HIDDEN
from kpy.cli.progress import Lines, LineWriter
from kpy.cli.runners import unheard_json
from kpy.events import Event, StepFinished, StepLog, StepProgress, StepStarted, Warned
from kpy.util.canonical import dumps

_HIDDEN = re.compile(f"[{HIDDEN}]")  # JSON may hold them as they are


class JsonProgress:
    """Writes `{"vertexes": …}`, `{"statuses": …}`, `{"logs": …}`, `{"warnings": …}` as the events come."""

    def __init__(self, stream: Lines, now: Callable[[], float] = time.time) -> None:
        self._out = LineWriter(stream)
        self._now = now
        self._lock = threading.Lock()
        self._started: dict[str, dict[str, Any]] = {}
        self._statuses: dict[tuple[str, str], str] = {}  # step and label: when it began

    def __enter__(self) -> "JsonProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __call__(self, event: Event, /) -> None:
        """Write the object of an event."""
        with self._lock:
            self.write(self._status(event))

    def write(self, status: dict[str, Any]) -> None:
        """Write an object, as one line."""
        self._out.write(unheard_json(_HIDDEN.sub(_escape, dumps(status).decode())).encode() + b"\n")

    def _status(self, event: Event) -> dict[str, Any]:
        now = datetime.fromtimestamp(self._now(), UTC).isoformat().replace("+00:00", "Z")
        match event:
            case StepStarted():
                vertex = {"digest": _digest(event.id), "name": event.name, "started": now}
                self._started[event.id] = vertex
                return {"vertexes": [vertex]}
            case StepFinished():
                unknown = {"digest": _digest(event.id), "name": event.id}
                ended = {**self._started.pop(event.id, unknown), "completed": now}
                if event.outcome == "cached":
                    ended["cached"] = True
                if event.outcome == "failed":
                    ended["error"] = event.message
                return {"vertexes": [ended]}
            case StepProgress():
                began = self._statuses.setdefault((event.id, event.label), now)
                status: dict[str, Any] = {
                    "id": event.label,
                    "vertex": _digest(event.id),
                    "current": event.current,
                }
                status |= {"total": event.total} if event.total else {}
                status |= {"timestamp": now, "started": began}
                status |= {"completed": now} if 0 < event.total <= event.current else {}
                return {"statuses": [status]}
            case StepLog():
                data = base64.b64encode(event.data).decode()
                return {"logs": [{"vertex": _digest(event.id), "stream": 1, "data": data, "timestamp": now}]}
            case Warned():
                short = base64.b64encode(event.message.encode("utf-8", "surrogateescape")).decode()
                detail = (
                    [base64.b64encode(event.hint.encode("utf-8", "surrogateescape")).decode()]
                    if event.hint
                    else []
                )
                warning: dict[str, Any] = {"level": 1, "short": short, "detail": detail}
                if event.first_line:
                    place = {"start": {"line": event.first_line}, "end": {"line": event.last_line}}
                    warning |= {"sourceInfo": {"filename": event.file}, "range": [place]}
                return {"warnings": [warning]}
            case _:
                assert_never(event)


def _digest(ident: str) -> str:
    """BuildKit's readers expect a digest; one of the step's id serves."""
    return ident if ident.startswith("sha256:") else "sha256:" + hashlib.sha256(ident.encode()).hexdigest()


def _escape(found: re.Match[str]) -> str:
    """The same character to who reads JSON; nothing to a terminal that the lines go to."""
    return f"\\u{ord(found[0]):04x}"
