"""RUN to steps: argv, environment, mounts (R01-R22, H07, H08, A08, A11)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kpy.dockerfile import instructions as ins
from kpy.dockerfile.heredoc import HeredocFile, heredoc_shell_text
from kpy.dockerfile.mounts import check_mount, parse_size
from kpy.dockerfile.span import Span
from kpy.plan.model import MountOp, RunOp
from kpy.plan.scope import PROXY_ARGS
from kpy.plan.state import absolute

if TYPE_CHECKING:
    from kpy.plan.dispatch import Dispatcher

_EXPANDED = ("kind", "source", "target", "id", "sharing", "mode", "uid", "gid", "size", "env")


def plan_run(dispatcher: "Dispatcher", item: ins.Run) -> None:
    """Add the step of a RUN to the stage."""
    state, planner = dispatcher.state, dispatcher.planner
    argv, script = _argv(dispatcher, item)
    inputs = [state.step]
    mounts = _sockets_placed([_mount(dispatcher, mount, item.span, inputs) for mount in item.mounts])
    op = RunOp(
        argv=argv,
        env=_environment(state.scope.env, mounts),
        cwd=state.workdir,
        user=state.runtime.user,
        mounts=mounts,
        network=_network(dispatcher, item),
        security=item.security if item.security != "sandbox" else "",
        devices=item.devices,
        script=script,
        hosts=planner.options.hosts,
        shm_size=planner.options.shm_size,
        platform=str(state.platform),
        proxies=_proxies(dict(planner.options.build_args)),
        ulimits=planner.options.ulimits,
        hostname=dict(planner.options.build_args).get("BUILDKIT_SANDBOX_HOSTNAME") or "",
    )
    prefix = state.scope.run_prefix()
    planner.effort.spend(sum(map(len, op.env)) + sum(map(len, prefix)), item.span)
    text = item.original.strip().splitlines()[0] if item.original.strip() else "RUN"
    state.step = planner.graph.add(
        op, inputs, name=state.next_name(text, alone=planner.alone), stage=state.stage.label, span=item.span
    )
    state.note("RUN " + " ".join([*prefix, *argv]), layer=True)


def _proxies(given: Mapping[str, str]) -> tuple[str, ...]:
    """Proxy variables of --build-arg, in upper and lower case whichever was given; an empty value is none (A08)."""
    folded = {name.lower(): value for name, value in given.items() if name in PROXY_ARGS and value}
    return tuple(
        f"{name}={given.get(name) or folded[name.lower()]}" for name in PROXY_ARGS if name.lower() in folded
    )


def _sockets_placed(mounts: list[MountOp]) -> tuple[MountOp, ...]:
    """SSH mounts with a target each: the Nth of them, whatever has one, is `ssh_agent.N` by default (R18)."""
    placed, number = [], 0
    for mount in mounts:
        if mount.kind == "ssh":
            placed.append(replace(mount, target=mount.target or f"/run/buildkit/ssh_agent.{number}"))
            number += 1
        else:
            placed.append(mount)
    return tuple(placed)


def _environment(env: Mapping[str, str], mounts: tuple[MountOp, ...]) -> tuple[str, ...]:
    """The variables of the stage, and SSH_AUTH_SOCK for the first SSH mount unless the stage has one (R18)."""
    found = [f"{name}={value}" for name, value in env.items()]
    sockets = [mount.target for mount in mounts if mount.kind == "ssh"]
    if sockets and "SSH_AUTH_SOCK" not in env:
        found.append(f"SSH_AUTH_SOCK={sockets[0]}")
    return tuple(found)


def _network(dispatcher: "Dispatcher", item: ins.Run) -> str:
    network = dispatcher.expand(item.network, item.span) or "default"
    if network == "default":  # also when the instruction says so: BuildKit leaves it to the build then
        network = dispatcher.planner.options.network or network
    if network not in ("default", "none", "host"):
        raise item.span.error(f"invalid network mode {network!r}", hint="use default, none or host")
    return network


def _argv(dispatcher: "Dispatcher", item: ins.Run) -> tuple[tuple[str, ...], tuple[str, str] | None]:
    command = heredoc_shell_text(item)
    if isinstance(command, HeredocFile):
        return (*dispatcher.state.shell, command.path), (command.name, command.content)
    if isinstance(command, ins.ExecForm):
        return command.argv, None
    return (*dispatcher.state.shell, command.text), None


def _mount(dispatcher: "Dispatcher", mount: ins.Mount, span: Span, inputs: list[str]) -> MountOp:
    """One --mount, expanded and with defaults (R13-R18); its source becomes an input of the step."""
    process = dispatcher.expander(span)
    values = {key: getattr(mount, key) for key in _EXPANDED}
    expanded: dict[str, Any] = {key: process(value) for key, value in values.items() if value is not None}
    mount = replace(mount, **expanded)
    mount = check_mount(mount, span)
    target = absolute(dispatcher.state.workdir, mount.target) if mount.target else ""
    if mount.kind in ("bind", "cache", "tmpfs") and (not target or target == "/"):
        raise span.error(f"invalid mount target {mount.target or ''!r} of --mount=type={mount.kind}", hint="a target below / is needed")
    if mount.kind == "ssh" and mount.source:
        raise span.error("invalid ssh mount: it does not support source", hint="id=ID names an agent of --ssh")
    if mount.kind == "cache" and mount.source and not mount.from_:
        raise span.error("invalid cache mount: it has a source, but no from", hint="name the stage or image: from=NAME")
    source = -1
    if mount.kind == "bind" or (mount.kind == "cache" and mount.from_):
        step, _ = dispatcher.planner.source_step(mount.from_ or "", dispatcher.state, span, mount=True)
        inputs.append(step)
        source = len(inputs) - 1
    octal = int(mount.mode, 8) if mount.mode else {"secret": 0o400, "ssh": 0o600}.get(mount.kind, 0o755)
    ident = mount.id or ""
    if mount.kind == "cache":
        ident = mount.id or target
    elif mount.kind == "secret":
        ident = mount.id or target.rpartition("/")[2]
        if not ident:
            raise span.error("invalid secret mount: it needs an id or a target")
        if not target and not mount.env:
            target = f"/run/secrets/{ident.rpartition('/')[2]}"
    elif mount.kind == "ssh":
        ident = mount.id or "default"
    return MountOp(
        kind=mount.kind,
        target=target,
        source=mount.source or "",
        input=source,
        read_only=mount.read_only if mount.read_only is not None else mount.kind == "bind",
        id=ident,
        sharing=mount.sharing or "shared",
        mode=octal,
        uid=int(mount.uid or 0),
        gid=int(mount.gid or 0),
        size=parse_size(mount.size) if mount.size else 0,
        env=mount.env or "",
        required=bool(mount.required),
        namespace=_namespace(dispatcher) if mount.kind == "cache" else "",
    )


def _namespace(dispatcher: "Dispatcher") -> str:
    """Which caches those of this build are: BuildKit's argument, which no ARG of a Dockerfile can set."""
    return dict(dispatcher.planner.options.build_args).get("BUILDKIT_CACHE_MOUNT_NS") or ""
