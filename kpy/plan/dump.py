"""A plan as stable text, for golden tests and for looking at: a line for each step, its details below, targets last.

Steps are numbered as the plan lists them, so that no digest of ours is in the text.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import assert_never

from kpy.oci.config import DEFAULT_PATH, History, RuntimeConfig
from kpy.plan.model import (
    ContextOp,
    CopyOp,
    CopySource,
    GitOp,
    HttpOp,
    ImageOp,
    MountOp,
    Plan,
    RunOp,
    ScratchOp,
    Step,
    Target,
    WorkdirOp,
)

_NUMBERED = "["  # how names of steps that have a place in a stage begin


def dump(plan: Plan) -> str:
    """The text; it ends with a line feed. Secrets cannot be in it, since plans have none."""
    labels = {step.id: f"s{number}" for number, step in enumerate(plan.steps, 1)}
    width = max((len(label) for label in labels.values()), default=0)
    rows: list[str] = []
    for step in plan.steps:
        head, *details = _step(step, labels)
        rows.append(f"{labels[step.id]:<{width}} {head}{_place(step)}")
        rows += [f"{'':<{width}}   {detail}" for detail in details]
    for target in plan.targets:
        rows += ["", *_target(target, labels)]
    if plan.warnings:
        rows.append("")
    for warning in plan.warnings:
        line = f"line {warning.span.first}: " if warning.span else ""
        rows.append(f"warning {line}{warning.message}" + (f" ({warning.hint})" if warning.hint else ""))
    return "\n".join(rows) + "\n"


def _place(step: Step) -> str:
    """`[builder 2/5]` for steps that have a place in a stage."""
    return f"   {step.name.partition(']')[0]}]" if step.name.startswith(_NUMBERED) else ""


def _step(step: Step, labels: Mapping[str, str]) -> Iterator[str]:
    """What the step does, then its details."""
    op = step.op
    after = f" ← {labels[step.inputs[0]]}" if step.inputs else ""
    match op:
        case ImageOp(name=name, base=base):
            yield f"SOURCE docker-image://{name}@{base.digest}   {base.image.config.platform}"
        case ScratchOp():
            yield "SOURCE scratch"
        case ContextOp(name):
            yield f"SOURCE local://{name or 'context'}"
        case HttpOp(url, checksum, filename):
            yield f"SOURCE {url}" + _fields(name=filename, checksum=checksum)
        case GitOp():
            yield f"SOURCE git {step.name.removeprefix('fetch ')}" + _fields(keep_git_dir=op.keep_git_dir)
        case WorkdirOp(path, user):
            yield f"FILE   mkdir {_word(path)}{_fields(user=user)}{after}"
        case CopyOp():
            yield from _copy(step, op, labels, after)
        case RunOp():
            yield f"EXEC   {' '.join(_word(arg) for arg in op.argv)}{after}"
            yield from _run(step, op, labels)
        case _:
            assert_never(op)


def _copy(step: Step, op: CopyOp, labels: Mapping[str, str], after: str) -> Iterator[str]:
    sources = [_source(item, path, step, labels) for item in op.sources for path in item.paths]
    sources += [f"<<{_word(name)}" for name, _ in op.heredocs]
    flags = _fields(
        chown=op.chown, chmod=op.chmod, link=op.link, parents=op.parents, exclude=op.exclude, keep_owner=op.keep_owner
    )
    yield f"FILE   {'add' if op.is_add else 'copy'} {' '.join(sources)} → {_word(op.dest)}{flags}{after}"
    for name, content in op.heredocs:
        yield f"<<{_word(name)} {_quote(content)}"


def _source(group: CopySource, path: str, step: Step, labels: Mapping[str, str]) -> str:
    unpack = {None: " (unpack archives)", True: " (unpack)", False: ""}[group.unpack]
    return f"{labels[step.inputs[group.input]]}:{_word(path)}{unpack}"


def _run(step: Step, op: RunOp, labels: Mapping[str, str]) -> Iterator[str]:
    yield f"env {_env(op.env)}"
    rest = _fields(
        cwd=op.cwd if op.cwd != "/" else "",
        user=op.user,
        network=op.network if op.network != "default" else "",
        security=op.security,
        devices=op.devices,
        shm_size=op.shm_size,
    )
    if rest:
        yield rest.strip()
    for name, address in op.hosts:
        yield f"host {name} {address}"
    if op.hostname:
        yield f"hostname {op.hostname}"
    if op.proxies:
        yield f"proxies {' '.join(op.proxies)}"
    if op.script is not None:
        yield f"script {op.script[0]} {_quote(op.script[1])}"
    for mount in op.mounts:
        yield _mount(mount, step, labels)


def _mount(mount: MountOp, step: Step, labels: Mapping[str, str]) -> str:
    origin = f" {labels[step.inputs[mount.input]]}:{mount.source or '/'}" if mount.input >= 0 else ""
    owned = mount.kind in ("cache", "secret", "ssh")
    return f"mount {mount.kind}{origin} → {mount.target or '-'}" + _fields(
        id=mount.id,
        namespace=mount.namespace,
        rw=mount.kind == "bind" and not mount.read_only,
        ro=mount.kind == "cache" and mount.read_only,
        sharing=mount.sharing if mount.kind == "cache" else "",
        mode=f"{mount.mode:04o}" if owned else "",
        uid=mount.uid,
        gid=mount.gid,
        size=mount.size,
        env=mount.env,
        required=mount.required,
    )


def _target(target: Target, labels: Mapping[str, str]) -> Iterator[str]:
    yield f"target {target.stage} {target.platform} ← {labels[target.step]}"
    yield from (f"  {row}" for row in _runtime(target.runtime))
    if target.author:
        yield f"  author {target.author}"
    yield from (f"  {_history(item)}" for item in target.history)


def _runtime(runtime: RuntimeConfig) -> Iterator[str]:
    if runtime.env:
        yield f"env {_env(runtime.env)}"
    for name, argv in (("entrypoint", runtime.entrypoint), ("cmd", runtime.cmd), ("shell", runtime.shell)):
        if argv is not None:
            yield f"{name} {json.dumps(argv, ensure_ascii=False)}"
    for name, text in (("user", runtime.user), ("workdir", runtime.workdir), ("stop-signal", runtime.stop_signal)):
        if text:
            yield f"{name} {text}"
    for key, value in runtime.labels.items():
        yield f"label {_word(key)}={_word(value)}"
    for name, items in (("expose", runtime.exposed_ports), ("volume", runtime.volumes), ("onbuild", runtime.onbuild)):
        yield from (f"{name} {_word(item) if name != 'onbuild' else _quote(item)}" for item in items)
    check = runtime.healthcheck
    if check is not None:
        yield f"healthcheck {json.dumps(check.test, ensure_ascii=False)}" + _fields(
            interval=check.interval, timeout=check.timeout, start_period=check.start_period,
            start_interval=check.start_interval, retries=check.retries,
        )  # fmt: skip


def _history(item: History) -> str:
    return f"history {'      ' if item.empty_layer else 'layer '}{_line(item.created_by)}"


def _env(env: Iterable[str]) -> str:
    """`PATH` alone stands for the default path."""
    return " ".join("PATH" if item == f"PATH={DEFAULT_PATH}" else _word(item) for item in env)


def _fields(**values: "str | int | bool | tuple[str, ...] | None") -> str:
    """` name=value` for what is set."""
    shown = ""
    for name, value in values.items():
        if isinstance(value, bool):
            shown += f" {name}" if value else ""
        elif isinstance(value, tuple):
            shown += f" {name}=[{', '.join(_word(item) for item in value)}]" if value else ""
        elif value:
            shown += f" {name}={_word(str(value))}"
    return shown


def _word(text: str) -> str:
    """As it is if it is one word, else quoted."""
    plain = text and not any(character.isspace() or character in "\"'\\" for character in text)
    return text if plain and text.isprintable() else _quote(text)


def _line(text: str) -> str:
    """On one line: quoted if it has characters that do not print."""
    return text if text.isprintable() else _quote(text)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
