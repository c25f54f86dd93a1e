"""Which layers of a build become one (`--squash`, L10), and what the history says of it. Pure.

As docker's --squash: the entries of the instructions stay, as entries without a layer, and one more has the layer of
them all. (kaniko's --single-snapshot and buildah's --squash keep nothing of them.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kpy.dockerfile.span import Span
from kpy.errors import UsageError
from kpy.oci.config import History
from kpy.plan.model import CopyOp, Plan, RunOp, Target, WorkdirOp

LAST_LINE = 1 << 31


@dataclass(frozen=True, slots=True)
class Squash:
    """What is wanted: the layers of instructions that begin on these lines; with `base`, those of the base image too."""

    first: int = 1
    last: int = LAST_LINE
    base: bool = False

    @property
    def is_range(self) -> bool:
        """Are only some instructions meant?"""
        return (self.first, self.last) != (1, LAST_LINE)

    def __str__(self) -> str:
        return f"{self.first}..{'' if self.last == LAST_LINE else self.last}"


def squashed_layers(plan: Plan, target: Target, wanted: Squash) -> range:
    """Which of the layers that the build adds are meant, counted from 0.

    Raises UsageError for a range of lines that has no layer, or between whose layers are others.
    """
    spans = _spans(plan, target)
    found = [place for place, span in enumerate(spans) if span is not None and wanted.first <= span.first <= wanted.last]
    if not wanted.is_range:
        return range(len(spans))
    lines = ", ".join(dict.fromkeys(str(span.first) for span in spans if span is not None)) or "none"
    if not found:
        raise UsageError(f"--squash={wanted}: no layer comes from these lines", hint=f"lines that make layers: {lines}")
    if found[-1] - found[0] + 1 != len(found):
        raise UsageError(
            f"--squash={wanted}: layers of other lines are between these in the image (ONBUILD)",
            hint=f"lines in the order of their layers: {lines}",
        )
    return range(found[0], found[-1] + 1)


def _spans(plan: Plan, target: Target) -> Sequence[Span | None]:
    """Where the instructions stand that the target's layers are from, the lowest layer first; None for triggers of an
    ONBUILD, which have no line here."""
    steps = {step.id: step for step in plan.steps}
    spans = []
    step = steps[target.step]
    while isinstance(step.op, RunOp | CopyOp | WorkdirOp):
        spans.append(step.span if step.span is not None and step.span.source is plan.source else None)
        step = steps[step.inputs[0]]
    return spans[::-1]


def squashed_history(history: Sequence[History], layers: range, count: int) -> tuple[History, ...]:
    """The build's part of the history when the layers of the range are one. `count`: of how many layers it is made."""
    found: list[History] = []
    merged = History(comment=f"kpy: {count} layers squashed into one")
    layer = 0
    for item in history:
        inside = not item.empty_layer and layer in layers
        layer += not item.empty_layer
        found.append(replace(item, empty_layer=True) if inside else item)
        if inside and layer == layers.stop:
            found.append(merged)
    if not layers:  # only the base's layers
        found.append(merged)
    return tuple(found)
