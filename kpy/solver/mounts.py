"""`RUN --mount` made ready: sources found or unpacked, secrets fetched, agents connected (R13-R18)."""

import os
from collections.abc import Sequence
from contextlib import ExitStack

from kpy.dockerfile.span import suggest
from kpy.errors import ContextError, SandboxError
from kpy.linux.ledger import Ledger
from kpy.linux.namespaces import gives_owners
from kpy.plan.model import MountOp, RunOp
from kpy.sandbox.base import Mount
from kpy.solver.cachemounts import open_caches
from kpy.solver.inputs import files_of
from kpy.solver.lookup import resolve
from kpy.solver.materialise import materialise
from kpy.solver.values import ChainValue, FilesValue, Services, Value


def make_mounts(
    op: RunOp, inputs: Sequence[Value], services: Services, stack: ExitStack
) -> tuple[list[Mount], list[str]]:
    """The mounts of a RUN, and the variables that secrets set. What they need lives as long as `stack`."""
    mounts: list[Mount] = []
    variables: list[str] = []
    ledger = None if gives_owners() else Ledger()  # what is unpacked here has owners that the disk will not take
    caches = open_caches(op.mounts, inputs, services, stack)
    for item in op.mounts:
        match item.kind:
            case "bind":
                base, path, ours = _source(item, inputs[item.input], services, stack, ledger)
                source = os.path.join(base, path) if path else base
                keep = item.read_only
                mounts.append(Mount("bind", item.target, source, base, keep, discard=not keep, ours=ours, ledger=ledger))
            case "cache":
                cache = caches[item]
                mounts.append(Mount("bind", item.target, cache.path, read_only=item.read_only, ledger=cache.ledger))
            case "tmpfs":
                mounts.append(Mount("tmpfs", item.target, size=item.size))
            case "secret":
                _secret(item, services, mounts, variables)
            case _:
                _ssh(item, services, mounts, stack)
    if op.script is not None:
        mounts.append(_script(op.script))
    return mounts, variables


def planned_mounts(op: RunOp) -> list[Mount]:
    """What `make_mounts` will want, without sources and contents: for Sandbox.check. Optional ones are in it."""
    mounts = []
    for item in op.mounts:
        match item.kind:
            case "bind":
                mounts.append(Mount("bind", item.target, read_only=item.read_only, discard=not item.read_only))
            case "tmpfs":
                mounts.append(Mount("tmpfs", item.target, size=item.size))
            case "secret":
                mounts += [Mount("file", item.target, read_only=True)] if item.target else []
            case _:
                mounts.append(Mount("bind", item.target, read_only=item.read_only))
    return [*mounts, *([_script(op.script)] if op.script is not None else [])]


def _script(script: tuple[str, str]) -> Mount:
    """A heredoc with `#!` (H07)."""
    name, content = script
    return Mount(
        "file", f"/dev/pipes/{name}", read_only=True, data=content.encode("utf-8", "surrogateescape"), mode=0o755
    )


def _source(
    item: MountOp, value: Value, services: Services, stack: ExitStack, ledger: Ledger | None
) -> tuple[str, str, bool]:
    """A directory on disk and the path in it of what is to be mounted; no link is followed on that, whatever an image or a
    context says. Is it there for this RUN alone?"""
    snapshotter, _ = services.strategy()
    if isinstance(value, ChainValue):
        tree = services.layers.tree(value.chain)
        path = resolve(tree, item.source)
        if tree.lookup(path) is None and path:
            raise ContextError(f'"{item.source}": not found in the source of --mount={item.target}')
        if snapshotter.capacity > 1:  # with a single root, the RUN itself needs it
            root = stack.enter_context(snapshotter.view(value.chain))
            if root is None:
                root = stack.enter_context(snapshotter.prepare(value.chain, value.base)).root
            return root, path, False
        return materialise(FilesValue(files_of(value, services)[0]), path, services, stack, ledger), "", True
    path = resolve(value.source, item.source)
    if value.source.lookup(path) is None:
        raise ContextError(f'"/{path}": not found in the build context', hint="is it excluded by .dockerignore?")
    if value.root:
        # The user's word; but where the root is the RUN's and ours, a RUN may have made it a link since.
        if os.path.realpath(value.root) != value.root:
            raise ContextError(
                f"the build context {value.root} leads to {os.path.realpath(value.root)} now, by a link that a RUN made",
                hint="mount it below /kpy, or at a name of its own in /",
            )
        return value.root, path, False
    return materialise(value, path, services, stack, ledger), "", True


def _ssh(item: MountOp, services: Services, mounts: list[Mount], stack: ExitStack) -> None:
    """The socket of an agent (R18)."""
    socket = services.ssh.get(item.id)
    if socket is not None:
        if gives_owners():
            path = stack.enter_context(socket(uid=item.uid, gid=item.gid, mode=item.mode))
        else:  # root is emulated, and the mount says whose it is
            path = stack.enter_context(socket(uid=os.geteuid(), gid=os.getegid(), mode=item.mode))
        mounts.append(Mount("bind", item.target, path, uid=item.uid, gid=item.gid))
    elif item.required:
        raise SandboxError(f"ssh agent {item.id}: not given to this build", hint=f"use --ssh {item.id}, or --ssh {item.id}=KEYFILE")


def _secret(item: MountOp, services: Services, mounts: list[Mount], variables: list[str]) -> None:
    """A secret as a file, a variable, or both (R17). Its value is in no event, key or error."""
    get = services.secrets.get(item.id)
    if get is None:
        if item.required:
            give = f"give it with --secret id={item.id},src=FILE or ,env=NAME"
            raise SandboxError(f"secret {item.id}: not found", hint=suggest(item.id, services.secrets) or give)
        return
    value = get()
    if item.env:
        variables.append(f"{item.env}={value.decode('utf-8', 'surrogateescape')}")
    if item.target:
        mounts.append(
            Mount("file", item.target, read_only=True, data=value, mode=item.mode, uid=item.uid, gid=item.gid)
        )
