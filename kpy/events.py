"""What happens during a build, as plain values for whoever shows it. Knows nothing of terminals.

A Reporter is called from several threads; it must be thread-safe and never raise. Times are the
reporter's business: events carry none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class StepStarted:
    """Step `id` begins; `name` is the line to show, such as `[builder 2/5] RUN make`."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class StepProgress:
    """`current` of `total` bytes of `label` (a digest, a file) are done. `total` 0: not known."""

    id: str
    label: str
    current: int
    total: int


@dataclass(frozen=True, slots=True)
class StepLog:
    """Output of a command, as it came, in pieces that need not end at a line."""

    id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class StepFinished:
    """Step `id` ended: `done`, `cached` (nothing ran) or `failed` (with `message`)."""

    id: str
    outcome: Literal["done", "cached", "failed"]
    message: str = ""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should know; `hint` says what to do. Shown once each. The lines of `file` that it is about, if it is
    about some, are in the message, too."""

    message: str
    hint: str = ""
    file: str = ""
    first_line: int = 0
    last_line: int = 0


Event: TypeAlias = StepStarted | StepProgress | StepLog | StepFinished | Warned
Reporter: TypeAlias = Callable[[Event], None]


def silent(_: Event) -> None:
    """Report to nobody."""


@contextmanager
def step(report: Reporter, ident: str, name: str) -> Iterator[None]:
    """Report the start of a step, and its end, failed if the block raises."""
    report(StepStarted(ident, name))
    try:
        yield
    except BaseException as error:
        report(StepFinished(ident, "failed", str(error)))
        raise
    report(StepFinished(ident, "done"))
