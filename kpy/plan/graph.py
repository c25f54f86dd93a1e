"""The steps of a plan as they are found: each once, by the digest of what it does."""

from collections.abc import Sequence
from typing import Any

from kpy.dockerfile.span import Span
from kpy.oci.digest import Digest
from kpy.plan.model import Op, Step
from kpy.plan.strings import check_strings
from kpy.util import canonical
from kpy.util.keyed import data_of


class Graph:
    """Collects steps. Adding the same operation on the same inputs twice gives the same step."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}

    def add(
        self, op: Op, inputs: Sequence[str] = (), *, name: str = "", stage: str = "", span: Span | None = None
    ) -> str:
        """The id of the step; the first name and span that it was given stay. Raises DockerfileError, UsageError for text that
        no path, argument or variable can have."""
        check_strings(op, span)
        ident = step_id(op, inputs)
        if ident not in self.steps:
            self.steps[ident] = Step(ident, op, tuple(inputs), name, stage, span)
        return ident

    def reachable(self, ends: Sequence[str]) -> tuple[Step, ...]:
        """The steps that the ends need, inputs first, in the order of addition."""
        wanted: set[str] = set()
        todo = list(ends)
        while todo:
            ident = todo.pop()
            if ident not in wanted:
                wanted.add(ident)
                todo.extend(self.steps[ident].inputs)
        return tuple(step for ident, step in self.steps.items() if ident in wanted)


def op_to_json(op: Op) -> dict[str, Any]:
    """The operation as data, for ids: all of its fields but those that say why not."""
    return {"type": type(op).__name__, **data_of(op)}


def step_id(op: Op, inputs: Sequence[str]) -> str:
    """The digest of an operation and of the ids of its inputs."""
    return str(Digest.of(canonical.dumps_sorted([op_to_json(op), list(inputs)])))
