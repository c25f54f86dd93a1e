"""What each instruction does to a stage: fold metadata, or add a step. One method for each instruction."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol, assert_never

from kpy.dockerfile import instructions as ins
from kpy.dockerfile.expose import check_signal, parse_ports
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.span import Span
from kpy.dockerfile.words import expand, expand_words
from kpy.oci.config import Healthcheck, ImageConfig, RuntimeConfig
from kpy.oci.platform import Platform
from kpy.plan import copying, lint, running
from kpy.plan.effort import Effort
from kpy.plan.graph import Graph
from kpy.plan.history import go_healthcheck, go_list
from kpy.plan.model import Notice, PlanOptions, ScratchOp, WorkdirOp
from kpy.plan.notes import Notes
from kpy.plan.scope import Globals, unprocessed
from kpy.plan.state import StageState, absolute


class Planner(Protocol):
    """What the dispatcher needs of the planner of a whole Dockerfile."""

    graph: Graph
    options: PlanOptions
    globals: Globals
    escape: str
    alone: bool
    warnings: list[Notice]
    notes: Notes
    effort: Effort

    def source_step(self, name: str, state: StageState, span: Span, /, *, mount: bool = False) -> tuple[str, str]:
        """The step that --from means, and `context` or `image`."""
        ...

    def image_step(self, name: str, platform: Platform, span: Span, /, *, stage: str = "") -> tuple[str, ImageConfig]:
        """The step and configuration of an image."""
        ...


class Dispatcher:
    """Applies instructions to the state of one stage."""

    def __init__(self, planner: Planner, state: StageState) -> None:
        self.planner = planner
        self.state = state

    def dispatch(self, item: ins.Instruction) -> None:
        """Apply one instruction. Raises DockerfileError at its span."""
        self.planner.effort.check()
        match item:
            case ins.Run():
                running.plan_run(self, item)
            case ins.Copy() | ins.Add():
                self._check_copy(item)
                copying.plan_copy(self, item)
            case ins.Arg():
                self._arg(item)
            case ins.Env():
                self._env(item)
            case ins.Label():
                self._label(item)
            case ins.Cmd() | ins.Entrypoint():
                self._command(item)
            case ins.HealthcheckInstruction():
                self._healthcheck(item)
            case ins.Workdir():
                self._workdir(item)
            case ins.User():
                user = self.expand(item.user, item.span)
                self._set(replace(self.state.runtime, user=user), f"USER {user}")
            case ins.Expose():
                self._expose(item)
            case ins.Volume():
                self._volume(item)
            case ins.StopSignal():
                self._stop_signal(item)
            case ins.Shell():
                self._set(replace(self.state.runtime, shell=item.argv), f"SHELL {go_list(item.argv, quoted=False)}")
            case ins.Maintainer():
                self.state.author = item.name
                self.state.note(f"MAINTAINER {item.name}")
            case ins.Onbuild():
                runtime = self.state.runtime  # no history entry, as BuildKit (I07)
                self.planner.notes.findings += lint.check_trigger(item)
                self.state.runtime = replace(runtime, onbuild=(*runtime.onbuild, item.expression))
            case _:
                assert_never(item)

    # --- helpers -------------------------------------------------------------

    def expand(self, word: str, span: Span, **how: bool) -> str:
        """Expand with the variables before this instruction (X10)."""
        return self.expander(span)(word, **how)

    def expander(self, span: Span) -> Callable[..., str]:
        """An expansion that sees the variables as they are now, however often it is used."""
        env = dict(self.state.scope.env)

        def process(word: str, **how: bool) -> str:
            try:
                found = expand(word, env, escape=self.planner.escape, **how)
            except FormError as error:
                raise unprocessed(word, span, error) from error
            self.planner.effort.spend(len(found.text) - len(word), span)
            self._undefined(found.unset, span)
            return found.text

        return process

    def expand_words(self, word: str, span: Span) -> list[str]:
        """Expand and split at blanks (X13)."""
        self.expand(word, span)  # for what is not defined
        try:
            return expand_words(word, self.state.scope.env, escape=self.planner.escape)
        except FormError as error:
            raise unprocessed(word, span, error) from error

    def _undefined(self, unset: Iterable[str], span: Span) -> None:
        self.planner.notes.findings += lint.check_variables(unset, self.state.scope, span)

    def _check_copy(self, item: ins.Copy | ins.Add) -> None:
        steps, ident = self.planner.graph.steps, self.state.step
        while isinstance(steps[ident].op, WorkdirOp):
            ident = steps[ident].inputs[0]
        self.planner.notes.findings += lint.check_copy(
            item, self.state.scope, self.planner.escape, self.planner.options.ignore,
            is_empty=isinstance(steps[ident].op, ScratchOp),
        )  # fmt: skip

    def _set(self, runtime: RuntimeConfig, text: str) -> None:
        self.state.runtime = runtime
        self.state.note(text)

    # --- metadata ------------------------------------------------------------

    def _arg(self, item: ins.Arg) -> None:
        shown = []
        for arg in item.args:
            if arg.value is not None and arg.key not in self.planner.globals.build_args:
                self.expand(arg.value, item.span)
            found = self.state.scope.declare(arg, self.planner.globals, item.span, self.planner.escape, self.planner.effort)
            shown.append(found.key if found.value is None else f"{found.key}={found.value}")
        self.state.note("ARG " + " ".join(shown))

    def _pairs(self, item: ins.Env | ins.Label) -> list[tuple[str, str]]:
        process = self.expander(item.span)
        return [(process(pair.key), process(pair.value or "")) for pair in item.pairs]

    def _env(self, item: ins.Env) -> None:
        runtime = self.state.runtime
        pairs = self._pairs(item)
        for name, value in pairs:
            runtime = runtime.with_env(name, value)
            self.state.scope.unset(name)
            self.state.scope.set(name, value, item.span)
        self._set(runtime, "ENV " + " ".join(f"{name}={value}" for name, value in pairs))

    def _label(self, item: ins.Label) -> None:
        pairs = self._pairs(item)
        labels = {**self.state.runtime.labels, **dict(pairs)}
        self._set(replace(self.state.runtime, labels=labels), "LABEL " + " ".join(f"{k}={v}" for k, v in pairs))

    def _argv(self, command: ins.Command) -> tuple[str, ...]:
        if isinstance(command, ins.ExecForm):
            return command.argv
        return (*self.state.shell, command.text)

    def _command(self, item: ins.Cmd | ins.Entrypoint) -> None:
        argv = self._argv(item.command)
        runtime = self.state.runtime
        self.planner.notes.findings += lint.check_command(item, has_shell=bool(runtime.shell))
        if isinstance(item, ins.Cmd):
            self.state.cmd_set = True
            self._set(replace(runtime, cmd=argv, args_escaped=True), f"CMD {go_list(argv)}")
            return
        if not self.state.cmd_set:  # an inherited CMD was meant for another entrypoint (I02)
            runtime = replace(runtime, cmd=None)
        self._set(replace(runtime, entrypoint=argv), f"ENTRYPOINT {go_list(argv)}")

    def _healthcheck(self, item: ins.HealthcheckInstruction) -> None:
        if item.command is None:
            check = Healthcheck(("NONE",))
        else:
            command = item.command
            test = ("CMD", *command.argv) if isinstance(command, ins.ExecForm) else ("CMD-SHELL", command.text)
            check = Healthcheck(test, item.interval, item.timeout, item.start_period, item.start_interval, item.retries)
        self._set(replace(self.state.runtime, healthcheck=check), f"HEALTHCHECK {go_healthcheck(check)}")

    def _workdir(self, item: ins.Workdir) -> None:
        state = self.state
        path = self.expand(item.path, item.span)
        self.planner.notes.findings += lint.check_workdir(item, path, is_first=not state.workdir_set)
        state.workdir_set = True
        if not path:  # a variable that is not set: the directory stays what it is
            path = state.runtime.workdir or "/"
        if not path.startswith("/"):
            path = absolute(state.workdir, path)
        written = path
        state.runtime = replace(state.runtime, workdir=path)  # an absolute one stays as it is written
        if path == "/":  # and nothing else: `/.` and `/..` make an empty layer, as in BuildKit
            state.note("WORKDIR /")
            return
        path = absolute("/", path)
        state.step = self.planner.graph.add(
            WorkdirOp(path, state.runtime.user),
            [state.step],
            name=state.next_name(f"WORKDIR {path}", alone=self.planner.alone),
            stage=state.stage.label,
            span=item.span,
        )
        state.note(f"WORKDIR {written}", layer=True, marked=False)

    def _expose(self, item: ins.Expose) -> None:
        words = [word for port in sorted(item.ports) for word in self.expand_words(port, item.span)]  # as BuildKit sorts
        self.planner.notes.findings += lint.check_expose(words, item.span)
        try:
            ports = parse_ports(words)
        except FormError as error:
            raise item.span.error(error.message, hint=error.hint) from error
        known = sorted({*self.state.runtime.exposed_ports, *ports})
        self._set(replace(self.state.runtime, exposed_ports=tuple(known)), f"EXPOSE [{' '.join(ports)}]")

    def _volume(self, item: ins.Volume) -> None:
        process = self.expander(item.span)
        paths = [process(path) for path in item.paths]
        if any(not path.strip() for path in paths):
            raise item.span.error("VOLUME specified can not be an empty string")
        volumes = tuple(sorted({*self.state.runtime.volumes, *paths}))
        self._set(replace(self.state.runtime, volumes=volumes), f"VOLUME {go_list(paths, quoted=False)}")

    def _stop_signal(self, item: ins.StopSignal) -> None:
        text = self.expand(item.signal, item.span)
        try:
            check_signal(text)
        except FormError as error:
            raise item.span.error(error.message, hint=error.hint) from error
        self._set(replace(self.state.runtime, stop_signal=text), f"STOPSIGNAL {text}")
