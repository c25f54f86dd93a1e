"""What a Dockerfile offers (`--call=outline`, `--call=targets`): stages, arguments, secrets, and their descriptions.

Images are not asked for: what a base image sets is not known here, and neither are its ONBUILD triggers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from kpy.dockerfile.comments import description
from kpy.dockerfile.instructions import Arg
from kpy.dockerfile.model import Dockerfile, Stage
from kpy.dockerfile.span import Span
from kpy.errors import ImageNotFoundError
from kpy.oci.config import ImageConfig
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Image
from kpy.oci.manifest import Manifest
from kpy.oci.platform import Platform
from kpy.plan.convert import convert
from kpy.plan.effort import Effort
from kpy.plan.lint import variables_in
from kpy.plan.model import BaseImage, Plan, PlanOptions, RunOp
from kpy.plan.notes import Notes
from kpy.plan.scope import Globals, platform_args
from kpy.plan.state import StageState


@dataclass(frozen=True, slots=True)
class TargetStage:
    """A stage that can be built. `name` is empty when it has none; then its number names it."""

    name: str
    index: int
    is_default: bool
    description: str
    base: str
    platform: str
    span: Span


@dataclass(frozen=True, slots=True)
class Argument:
    """A build argument, with the value that it has in this build."""

    name: str
    value: str
    description: str
    span: Span


@dataclass(frozen=True, slots=True)
class Needed:
    """A secret or an ssh agent that some RUN mounts."""

    name: str
    required: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Outline:
    """What the build of one target can be told, each in the order of the file."""

    name: str
    description: str
    arguments: tuple[Argument, ...]
    secrets: tuple[Needed, ...]
    ssh: tuple[Needed, ...]


def targets(dockerfile: Dockerfile) -> tuple[TargetStage, ...]:
    """Every stage; the last one is built when no target is named."""
    return tuple(
        TargetStage(
            stage.name,
            stage.index,
            stage is dockerfile.stages[-1],
            _describe(stage),
            stage.start.image,
            stage.start.platform,
            stage.start.span,
        )
        for stage in dockerfile.stages
    )


def outline(dockerfile: Dockerfile, options: PlanOptions, effort: Effort | None = None) -> Outline:
    """What the target and the stages it needs use. Raises DockerfileError, UsageError."""
    notes = Notes()
    plan = convert(dockerfile, options, _empty_image, notes, effort)
    label = plan.targets[0].stage
    target = next(state.stage for state in notes.stages.values() if state.stage.label == label)
    return Outline(
        target.name,
        _describe(target),
        _arguments(dockerfile, options, notes.stages.values()),
        _needed(plan, dockerfile, "secret"),
        _needed(plan, dockerfile, "ssh"),
    )


def _describe(stage: Stage) -> str:
    return description(stage.start.span.source, stage.start.span.first, stage.name)


def _empty_image(name: str, platform: Platform) -> BaseImage:
    """An image that has nothing, in place of each that a FROM names. Its content is never asked for."""
    digest = Digest.of(name.encode("utf-8", "replace"))
    descriptor = Descriptor("", digest, 0)
    image = Image(Manifest(b"", "", descriptor, ()), ImageConfig(platform), (), _Nothing())
    return BaseImage(name, image, digest)


class _Nothing:
    """Content of images that are not there."""

    def open(self, descriptor: Descriptor, /) -> BinaryIO:
        """See BlobSource."""
        raise ImageNotFoundError(f"no blob {descriptor.digest}")


def _needed(plan: Plan, dockerfile: Dockerfile, kind: str) -> tuple[Needed, ...]:
    found: dict[str, Needed] = {}
    for step in plan.steps:
        if not isinstance(step.op, RunOp) or step.span is None or step.span.source is not dockerfile.source:
            continue
        for mount in step.op.mounts:
            if mount.kind == kind:
                before = found.get(mount.id)
                required = mount.required or (before is not None and before.required)
                found[mount.id] = Needed(mount.id, required, before.span if before else step.span)
    return tuple(sorted(found.values(), key=lambda item: (item.span.first, item.name)))


def _arguments(
    dockerfile: Dockerfile, options: PlanOptions, states: Iterable[StageState]
) -> tuple[Argument, ...]:
    """Arguments that the stages declare, that their FROM uses, and that defaults of those use."""
    escape = dockerfile.directives.escape
    platform = options.platforms[0] if options.platforms else options.build_platform
    predefined = platform_args(options.build_platform, platform, options.target)
    values = Globals.evaluate(dockerfile.global_args, predefined, dict(options.build_args), escape).values
    outer = {item.key: (arg.span, item.value) for arg in dockerfile.global_args for item in arg.args}
    found: dict[str, Argument] = {}
    used: list[str] = []
    for state in states:
        for word in (state.stage.start.image, state.stage.start.platform):
            used += variables_in(word, values, escape)
        for name, default, span in _declared(state):
            if default is not None or (name not in outer and name not in predefined):
                value = next((item.value for item in reversed(state.scope.args) if item.key == name), None)
                found.setdefault(name, _argument(name, value or "", span))
            else:
                used.append(name)
    seen: set[str] = set()
    while used:
        name = used.pop()
        if name in outer and name not in seen:
            seen.add(name)
            span, default = outer[name]
            found.setdefault(name, _argument(name, values.get(name, ""), span))
            used += variables_in(default or "", values, escape)
    return tuple(sorted(found.values(), key=lambda item: (item.span.first, item.name)))


def _declared(state: StageState) -> Iterator[tuple[str, str | None, Span]]:
    for instruction in state.stage.instructions:
        if isinstance(instruction, Arg):
            for item in instruction.args:
                yield item.key, item.value, instruction.span


def _argument(name: str, value: str, span: Span) -> Argument:
    return Argument(name, value, description(span.source, span.first, name), span)
