"""Stages to a plan: which stages are needed, what each starts from, where the result is (F01-F15, I07)."""

import re
from collections.abc import Sequence
from dataclasses import replace

from kpy.dockerfile.instructions import Add, Copy, From, Instruction, Run, Workdir
from kpy.dockerfile.lint import rules
from kpy.dockerfile.lint.text import check_stage
from kpy.dockerfile.model import Dockerfile, Stage
from kpy.dockerfile.parser import parse_onbuild
from kpy.dockerfile.span import Span, suggest
from kpy.errors import DockerfileError, KpyError, UsageError
from kpy.oci.config import ImageConfig
from kpy.oci.platform import Platform
from kpy.plan import lint
from kpy.plan.contexts import files_step, stage_of_files
from kpy.plan.dispatch import Dispatcher
from kpy.plan.effort import Effort
from kpy.plan.graph import Graph
from kpy.plan.model import (
    BaseImage,
    ContextOp,
    ImageOp,
    Notice,
    Plan,
    PlanOptions,
    ResolveImage,
    ScratchOp,
    Target,
)
from kpy.plan.names import FILES, NamedContexts
from kpy.plan.notes import Notes
from kpy.plan.references import check_number, check_references, stage_number
from kpy.plan.scope import NON_ENV_ARGS, PROXY_ARGS, Globals, Scope, expand_in, platform_args
from kpy.plan.state import StageState, absolute, initial_env, with_default_path


def convert(
    dockerfile: Dockerfile, options: PlanOptions, resolve: ResolveImage, notes: Notes | None = None, effort: Effort | None = None
) -> Plan:
    """Plan the build of the target stage for each platform. What else it learns goes to `notes`; `effort` bounds it.

    Raises DockerfileError (with a span) for what the Dockerfile gets wrong, UsageError for the options, and what
    `resolve` and `effort.check` raise, the first with the line of the FROM.
    """
    graph = Graph()
    effort = effort or Effort()
    targets: list[Target] = []
    warnings: dict[str, Notice] = {}
    for platform in options.platforms or (options.build_platform,):
        planner = _Planner(dockerfile, options, platform, resolve, graph, notes or Notes(), effort)
        try:
            targets.append(planner.target())
        except RecursionError as error:
            raise dockerfile.stages[-1].start.span.error("the stages depend on each other too deeply") from error
        warnings |= {item.message: item for item in planner.warnings}
    steps = graph.reachable([target.step for target in targets])
    return Plan(steps, tuple(targets), tuple(warnings.values()), dockerfile.source)


class _Planner:
    """The plan of one target platform."""

    def __init__(
        self, dockerfile: Dockerfile, options: PlanOptions, platform: Platform, resolve: ResolveImage, graph: Graph,
        notes: Notes, effort: Effort,
    ) -> None:  # fmt: skip
        self.dockerfile = dockerfile
        self.options = options
        self.platform = platform
        self.resolve = resolve
        self.graph = graph
        self.notes = notes
        self.effort = effort
        self.warnings: list[Notice] = []
        self.escape = dockerfile.directives.escape
        self.alone = len(dockerfile.stages) == 1
        self.contexts = NamedContexts(options.contexts)
        self.build_args = dict(options.build_args)
        stage_name = options.target or dockerfile.stages[-1].name
        predefined = platform_args(options.build_platform, platform, stage_name)
        self.globals = Globals.evaluate(dockerfile.global_args, predefined, self.build_args, self.escape, effort)
        self.notes.findings += lint.check_froms(self, predefined, {name.lower() for name, *_ in options.contexts})
        self.states: dict[int, StageState] = {}
        self.in_work: list[Stage] = []

    # --- which stage ---------------------------------------------------------

    def target(self) -> Target:
        """Plan the target stage and what it needs."""
        self._check_global_froms()
        stage = self.find_target(self.options.target)
        state = self.state_of(stage, stage.start.span)
        for other in self.dockerfile.stages if self.options.every_stage else ():
            self.state_of(other, other.start.span)
        self._warn_unused_args()
        labels = {**state.runtime.labels, **dict(self.options.labels)}
        return Target(
            platform=state.platform,
            step=state.step,
            runtime=replace(state.runtime, labels=labels),
            history=tuple(state.history),
            base=state.base,
            author=state.author,
            stage=stage.label,
        )

    def find_target(self, name: str) -> Stage:
        """The stage of --target: by name, by number, or the last (F10)."""
        stages = self.dockerfile.stages
        if not name:
            return stages[-1]
        for stage in reversed(stages):
            if stage.name == name.lower():
                return stage
        number = stage_number(name)
        if number is not None and 0 <= number < len(stages):
            return stages[number]
        known = [stage.name for stage in stages if stage.name]
        listed = f"the stages are: {', '.join(known)}" if known else "no stage of this Dockerfile has a name"
        raise UsageError(f"target stage {name!r} could not be found", hint=suggest(name.lower(), known) or listed)

    def _check_global_froms(self) -> None:
        """BuildKit reads the FROM of every stage, needed or not, and all names of stages and images."""
        for stage in self.dockerfile.stages:
            self.base_name(stage.start)
            self.base_platform(stage.start)
        check_references(self)

    def base_name(self, start: From) -> str:
        """The expanded image name of a FROM."""
        name = expand_in(start.image, self.globals.values, start.span, self.escape, self.effort)
        if not name:
            unset = re.findall(r"\$\{?(\w+)", start.image)
            hint = f"{', '.join(unset)} has no value: give it a default with ARG before FROM, or use --build-arg" if unset else ""
            if len(unset) == 1 and unset[0] not in self.globals.declared:
                hint = suggest(unset[0], self.globals.values) or hint
            raise start.span.error(f"invalid base name: ({start.image}) should not be blank", hint=hint)
        return name

    # --- a stage -------------------------------------------------------------

    def state_of(self, stage: Stage, wanted_by: Span) -> StageState:
        """The finished state of a stage; plans it the first time."""
        if stage.index in self.states:
            return self.states[stage.index]
        if stage in self.in_work:
            raise wanted_by.error(f"circular dependency detected on stage: {stage.label}")
        self.in_work.append(stage)
        self.notes.findings += check_stage(stage)
        try:
            state = self._stage(stage)
        finally:
            self.in_work.pop()
        self.states[stage.index] = self.notes.stages[stage.index] = state
        return state

    def _stage(self, stage: Stage) -> StageState:
        context = self.contexts.find(stage.name, self.platform) if stage.name else None
        if context is not None:  # it stands for the whole stage (F08)
            return self._from_context(stage, stage.name, self.platform, context)
        state = self._start(stage)
        self._count(state, stage.instructions)
        dispatcher = Dispatcher(self, state)
        self._onbuild(state, dispatcher)
        for instruction in stage.instructions:
            dispatcher.dispatch(instruction)
        return state

    def _from_context(self, stage: Stage, name: str, platform: Platform, context: tuple[str, str]) -> StageState:
        if context[0] in FILES:
            files = files_step(self.graph, name, *context, stage.start.span)
            return stage_of_files(self.graph, stage, name, files, platform)
        return self._from_image(stage, name, platform)

    def _count(self, state: StageState, instructions: Sequence[Instruction]) -> None:
        state.total += sum(isinstance(item, Run | Copy | Add | Workdir) for item in instructions)

    def _start(self, stage: Stage) -> StageState:
        start = stage.start
        platform = self.base_platform(start)
        name = self.base_name(start)
        context = self.contexts.find(name, platform)
        if context is not None:
            return self._from_context(stage, name, platform, context)
        parent = self.parent_stage(name, before=stage.index)
        if parent is not None:
            return self._from_stage(stage, self.state_of(parent, start.span))
        return self._from_image(stage, name, platform)

    def base_platform(self, start: From) -> Platform:
        """The platform that a FROM asks for, else that of the target."""
        if not start.platform:
            return self.platform
        text = expand_in(start.platform, self.globals.values, start.span, self.escape, self.effort)
        if not text:
            raise start.span.error(f"empty platform value from expression {start.platform}")
        try:
            return Platform.parse(text)
        except UsageError as error:
            raise start.span.error(f"failed to parse platform {text}: {error.message}", hint=error.hint) from error

    def _from_stage(self, stage: Stage, parent: StageState) -> StageState:
        return StageState(
            stage=stage,
            platform=parent.platform,
            step=parent.step,
            scope=parent.scope.child(initial_env(parent.runtime), self.effort, stage.start.span),
            runtime=parent.runtime,
            base=parent.base,
            history=list(parent.history),
            author=parent.author,
            workdir_set=parent.workdir_set,
        )

    def _from_image(self, stage: Stage, name: str, platform: Platform) -> StageState:
        step, config = self._image_or_stage(name, platform, stage.start.span, before=stage.index, stage=stage.label)
        runtime = with_default_path(config.runtime)
        if runtime.workdir and not runtime.workdir.startswith("/"):
            # BuildKit joins a relative one with itself; what runs there must be the same here
            runtime = replace(runtime, workdir=absolute(absolute("/", runtime.workdir), runtime.workdir))
        return StageState(
            stage=stage,
            platform=config.platform,
            step=step,
            scope=Scope(initial_env(runtime)),
            runtime=runtime,
            base=config,
            author=config.author,
        )

    def _onbuild(self, state: StageState, dispatcher: Dispatcher) -> None:
        """Run the triggers of the base, in order, right after FROM; the result has none of them (I07)."""
        triggers = state.runtime.onbuild
        state.runtime = replace(state.runtime, onbuild=())
        instructions = []
        for text in triggers:
            try:
                instructions.append(parse_onbuild(text, name=f"ONBUILD of {state.stage.start.image}"))
            except DockerfileError as error:
                raise state.stage.start.span.error(
                    f"failed to run the ONBUILD trigger {text.splitlines()[0] if text else ''!r} of {state.stage.start.image}: {error.message}",
                    hint=error.hint,
                ) from error
        self._count(state, instructions)
        for instruction in instructions:
            dispatcher.dispatch(instruction)

    # --- what names mean -----------------------------------------------------

    def parent_stage(self, name: str, *, before: int) -> Stage | None:
        """The stage that FROM means: the last earlier one of that name, which FROM has to write in lower case."""
        for stage in reversed(self.dockerfile.stages[:before]):
            if stage.name and stage.name == name:
                return stage
        return None

    def named_stage(self, name: str) -> Stage | None:
        """The stage that --from means: the last one of that name in the whole file, in any case."""
        for stage in reversed(self.dockerfile.stages):
            if stage.name and stage.name == name.lower():
                return stage
        return None

    def image_step(self, name: str, platform: Platform, span: Span, *, stage: str = "") -> tuple[str, ImageConfig]:
        """The step and configuration of an image, of `scratch`, or of a named context that is an image."""
        _, value = self.contexts.find(name, platform) or ("image", name)
        if value == "scratch":
            # an empty image is for the target, whatever the FROM asks for
            empty = ImageConfig(platform=self.platform)
            return self.graph.add(ScratchOp(), name="FROM scratch", stage=stage, span=span), empty
        base = self._resolve(value, platform, span)
        if base.other_platform:
            detail = f"the image {value} is for {base.image.config.platform}, not for {platform}"
            self.notes.findings.append(rules.INVALID_BASE_IMAGE_PLATFORM.found(detail, span))
        config = base.image.config
        if not config.diff_ids and all(item.empty_layer for item in config.history):
            return self.graph.add(ScratchOp(), name=f"FROM {value}", stage=stage, span=span), config  # F02
        name_shown = f"FROM {base.name}@{base.digest}"
        return self.graph.add(ImageOp.of(base), name=name_shown, stage=stage, span=span), config

    def _resolve(self, name: str, platform: Platform, span: Span) -> BaseImage:
        try:
            return self.resolve(name, platform)
        except UsageError as error:
            raise span.error(error.message, hint=error.hint) from error
        except KpyError as error:
            span.blame(error)
            raise

    def source_step(self, name: str, state: StageState, span: Span, *, mount: bool = False) -> tuple[str, str]:
        """The step that --from means, and what kind of source it is: `context` or `image` (C18).

        For a `mount` there are only names: stages have no numbers there (F05).
        """
        if not name:
            return self.graph.add(ContextOp(""), name="load build context"), "context"
        context = self.contexts.find(name, state.platform)
        if context is not None and context[0] in FILES:
            return files_step(self.graph, name, *context, span), "context"
        if context is not None:
            return self.image_step(name, state.platform, span)[0], "image"
        if mount and stage_number(name) is not None:
            raise span.error(
                f"from={name} of --mount: no stage of that name is found, and numbers mean nothing here",
                hint="give the stage a name (FROM … AS NAME) and write from=NAME; only COPY --from takes numbers",
            )
        return self._stage_or_image(name, state, span), "image"

    def _stage_or_image(self, name: str, state: StageState, span: Span) -> str:
        index = state.stage.index
        number = stage_number(name)
        if number is not None:
            check_number(number, len(self.dockerfile.stages), span)
            if number > index:
                raise span.error(f"cannot use stage {name}: it needs to be defined before current stage {state.stage.label!r}")
            return self.state_of(self.dockerfile.stages[number], span).step
        stage = self.named_stage(name)
        if stage is not None and stage.index > index:
            raise span.error(
                f'cannot copy from stage "{name}", it needs to be defined before current stage "{state.stage.label}"',
                hint="move the stage up",
            )
        if stage is not None:
            return self.state_of(stage, span).step
        return self._image_or_stage(name, state.platform, span, before=index)[0]

    def _image_or_stage(
        self, name: str, platform: Platform, span: Span, *, before: int, stage: str = ""
    ) -> tuple[str, ImageConfig]:
        """The image; if there is none, perhaps an earlier stage was meant."""
        try:
            return self.image_step(name, platform, span, stage=stage)
        except KpyError as error:
            known = [item.name for item in self.dockerfile.stages[:before] if item.name]
            error.hint = suggest(name.lower(), known) or error.hint
            raise

    def _warn_unused_args(self) -> None:
        """--build-arg that no ARG declares (A06)."""
        declared = {item.key for state in self.states.values() for item in state.scope.args} | set(self.globals.declared)
        known = declared | set(self.globals.values) | set(PROXY_ARGS) | set(NON_ENV_ARGS)
        unused = sorted(key for key in self.build_args if key not in known and not key.startswith("BUILDKIT_") and key != "SOURCE_DATE_EPOCH")
        if unused:
            self.warnings.append(Notice(f"one or more build-args were not consumed: {', '.join(unused)}"))
