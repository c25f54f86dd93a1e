"""What --from means, in every stage, needed or not: BuildKit reads them all before it looks which stages it needs.

Planning finds the same mistakes in the stages that are needed; this is for the others, and for cycles.
"""

import re
from collections.abc import Iterator
from typing import Protocol

from kpy.dockerfile import instructions as ins
from kpy.dockerfile.model import Dockerfile, Stage
from kpy.dockerfile.span import Span, suggest
from kpy.errors import UsageError
from kpy.oci.platform import Platform
from kpy.oci.reference import Reference
from kpy.plan.names import NamedContexts


class Planner(Protocol):
    """What this needs of the planner of a whole Dockerfile."""

    dockerfile: Dockerfile
    contexts: NamedContexts
    platform: Platform

    def base_name(self, start: ins.From, /) -> str:
        """The expanded image name of a FROM."""
        ...

    def parent_stage(self, name: str, /, *, before: int) -> Stage | None:
        """The stage that FROM means."""
        ...

    def named_stage(self, name: str, /) -> Stage | None:
        """The stage that --from means."""
        ...


def stage_number(name: str) -> int | None:
    """The number that a stage is asked for by (F05), None for a name. As Go's strconv.Atoi, signs are part of it."""
    return int(name) if re.fullmatch(r"[+-]?[0-9]{1,9}", name) else None


def check_number(number: int, count: int, span: Span) -> None:
    """Is there a stage of that number? Raises DockerfileError."""
    if not 0 <= number < count:
        raise span.error(f"invalid stage index {number}", hint=f"the stages are 0 to {count - 1}")


def check_references(planner: Planner) -> None:
    """Check all names, and that no stage needs itself. Raises DockerfileError."""
    edges = [list(_needed(planner, stage)) for stage in planner.dockerfile.stages]
    done: set[int] = set()
    for start in range(len(edges)):
        path, todo = {start}, [(start, iter(edges[start]))]
        while todo:
            here, rest = todo[-1]
            following = next(((index, span) for index, span in rest if index not in done), None)
            if following is None:
                done.add(here)
                path.discard(here)
                todo.pop()
                continue
            index, span = following
            if index in path:
                raise span.error(f"circular dependency detected on stage: {planner.dockerfile.stages[index].label}")
            path.add(index)
            todo.append((index, iter(edges[index])))


def _needed(planner: Planner, stage: Stage) -> Iterator[tuple[int, Span]]:
    """The stages that a stage needs, and where it says so."""
    start, platform = stage.start, planner.platform
    name = planner.base_name(start)
    if stage.name and planner.contexts.find(stage.name, platform) is not None:
        return  # a context stands for the whole stage
    parent = planner.parent_stage(name, before=stage.index)
    if parent is not None:
        yield parent.index, start.span
    elif name != "scratch":
        _check_image(planner, name, start.span)
    for item in stage.instructions:
        if isinstance(item, ins.Copy) and item.from_:
            yield from _source(planner, item.from_, item.span)
        elif isinstance(item, ins.Run):
            for mount in item.mounts:
                found = planner.named_stage(mount.from_) if mount.from_ else None
                if found is not None and planner.contexts.find(found.name, platform) is None:
                    yield found.index, item.span


def _source(planner: Planner, name: str, span: Span) -> Iterator[tuple[int, Span]]:
    if "$" in name:
        return  # what it means is known only where the stage's arguments are (X12)
    number = stage_number(name)
    stage = planner.named_stage(name)
    if number is not None:
        check_number(number, len(planner.dockerfile.stages), span)
        yield number, span
    elif stage is not None:
        if planner.contexts.find(stage.name, planner.platform) is None:
            yield stage.index, span
    elif name != "scratch":
        _check_image(planner, name, span)


def _check_image(planner: Planner, name: str, span: Span) -> None:
    """Can it be the name of an image?"""
    if planner.contexts.find(name, planner.platform) is not None:
        return
    try:
        Reference.parse(name)
    except UsageError as error:
        stage = planner.named_stage(name)
        known = [item.name for item in planner.dockerfile.stages if item.name]
        hint = f"FROM finds stages by their names in lower case: write {stage.name}" if stage else suggest(name.lower(), known)
        raise span.error(error.message, hint=hint or error.hint) from error
