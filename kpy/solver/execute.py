"""One function for each operation: from the values of its inputs to its own value, through the cache."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import assert_never

from kpy.cache.base import CacheRecord
from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.forms import FormError
from kpy.errors import ContextError, KpyError
from kpy.layer.entry import Entry, Kind, LayerItem
from kpy.layer.source import FileSource
from kpy.layer.tree import Tree
from kpy.linux.users import lookup_owner
from kpy.oci.digest import Digest
from kpy.oci.image import Layer
from kpy.plan.model import (
    ContextOp,
    CopyOp,
    CopySource,
    GitOp,
    HttpOp,
    ImageOp,
    RunOp,
    ScratchOp,
    Step,
    WorkdirOp,
)
from kpy.solver import cachekey
from kpy.solver.archive import Spool, is_archive, unpack
from kpy.solver.build_layer import SECOND, store_layer
from kpy.solver.copy import Copier, Rules, copy_key
from kpy.solver.inline import InlineFile
from kpy.solver.inputs import digests, files_of, mount_key
from kpy.solver.lookup import parts_of, wildcards
from kpy.solver.run import execute_run
from kpy.solver.target import LayerTarget, Open, Put, Spooled, needed, opens
from kpy.solver.values import ChainValue, FilesValue, Services, Value
from kpy.util.modes import parse_mode


@dataclass(frozen=True, slots=True)
class Outcome:
    """The value of a step, and whether it came from the cache."""

    value: Value
    cached: bool = False


def execute(step: Step, inputs: Sequence[Value], services: Services) -> Outcome:
    """Do one step. Raises KpyError with the step's place in the Dockerfile."""
    try:
        return _execute(step, inputs, services)
    except KpyError as error:
        if step.span is not None:
            step.span.blame(error, step=step.name)
        raise


def _execute(step: Step, inputs: Sequence[Value], services: Services) -> Outcome:
    match step.op:
        case ImageOp(base=base):
            services.layers.add_image(base.image, base.name)
            return Outcome(ChainValue(base.image.chain, len(base.image.chain)))
        case ScratchOp():
            return Outcome(ChainValue(()))
        case ContextOp(name):
            context = services.contexts[name]
            return Outcome(FilesValue(context.files, context.root, local=True))
        case HttpOp() | GitOp():
            return Outcome(services.fetch(step.op, step.id))
        case RunOp():
            return _run(step, step.op, inputs, services)
        case CopyOp():
            return _copy(step, step.op, inputs, services)
        case WorkdirOp():
            return _workdir(step, step.op, chain_of(inputs[0]), services)
        case _:
            assert_never(step.op)


def chain_of(value: Value) -> ChainValue:
    """The value of a step that makes a root file system."""
    assert isinstance(value, ChainValue)
    return value


def cached(
    key: Digest, parent: ChainValue, step: Step, services: Services, make: Callable[[], Layer]
) -> Outcome:
    """The layer with this key, from the cache or made now."""
    fresh = services.no_cache or step.stage in services.no_cache_stages
    record = None if fresh else services.cache.load(key)
    if record is not None and record.layer is not None:
        return Outcome(ChainValue((*parent.chain, record.layer), parent.base), cached=True)
    layer = make()
    services.cache.save(CacheRecord(key, layer, description=step.name))
    return Outcome(ChainValue((*parent.chain, layer), parent.base))


def _run(step: Step, op: RunOp, inputs: Sequence[Value], services: Services) -> Outcome:
    parent = chain_of(inputs[0])
    mounts = [mount_key(mount.source, inputs[mount.input], services) if mount.input >= 0 else "" for mount in op.mounts]
    key = cachekey.run_key(op, parent.chain, mounts, services.compression.identity)
    return cached(key, parent, step, services, lambda: execute_run(step, op, inputs, services))


def names_of(tree: Tree) -> tuple[bytes | None, bytes | None]:
    """/etc/passwd and /etc/group of a root file system."""
    return tree.content("etc/passwd"), tree.content("etc/group")


def _copy(step: Step, op: CopyOp, inputs: Sequence[Value], services: Services) -> Outcome:
    """COPY and ADD: plan on trees, take the key of the plan, and write the layer if nobody has it."""
    parent = chain_of(inputs[0])
    named = bool(op.chown) and not all(part.isdigit() or part == "root" for part in op.chown.split(":") if part)
    tree = Tree.empty() if op.link and not named else services.layers.tree(parent.chain)
    owner = None
    if op.chown:
        owner = lookup_owner(op.chown, *names_of(tree))
    rules = Rules(
        owner=owner,
        mode=parse_mode(op.chmod) if op.chmod else None,
        keep_owner=op.keep_owner,
        exclude=Ignore.of(op.exclude) if op.exclude else None,
        now=(services.epoch or 0) * SECOND,
        parents=op.parents,
    )
    with ExitStack() as stack:
        target = stack.enter_context(LayerTarget(Tree.empty() if op.link else tree, services.spool))
        spool = stack.enter_context(Spool(services.spool))
        work = _Copying(op, rules, target, services, spool, stack)
        for group in op.sources:
            work.group(group, inputs[group.input])
        for name, content in op.heredocs:
            work.heredoc(name, content)
        below = None if op.link else parent.chain
        key = cachekey.copy_key(copy_key(target, digests(work.sources, services)), below, services.compression.identity)
        return cached(key, parent, step, services, lambda: store_layer(work.items(), services))


class _Copying:
    """The sources of one COPY or ADD, put into the target one after another."""

    def __init__(
        self, op: CopyOp, rules: Rules, target: LayerTarget, services: Services, spool: Spool, stack: ExitStack
    ) -> None:
        self.op = op
        self.rules = rules
        self.target = target
        self.services = services
        self.spool = spool
        self.stack = stack
        self.sources: list[FileSource] = []

    def _copier(self, source: FileSource) -> Copier:
        self.sources.append(source)
        return Copier(source, self.target, self.rules, number=len(self.sources) - 1)

    def group(self, group: CopySource, value: Value) -> None:
        """Copy or unpack the paths of one group."""
        source, _ = files_of(value, self.services)
        copier = self._copier(source)
        may_unpack = group.unpack is True or (group.unpack is None and isinstance(value, FilesValue) and value.local)
        for pattern in group.paths:
            if not may_unpack or self.op.parents:
                copier.copy(pattern, self.op.dest)
                continue
            try:
                found = wildcards(source, pattern)
            except FormError as error:
                raise ContextError(f"bad pattern {pattern!r}: {error.message}", hint=error.hint) from error
            for path in ["/".join(parts_of(pattern))] if found is None else found:
                self._add(copier, path, source)

    def _add(self, copier: Copier, path: str, source: FileSource) -> None:
        """ADD one path: an archive is unpacked, anything else copied."""
        entry = copier.find(path)
        if entry.kind is Kind.FILE and entry.size:
            opener = self._opener(source, entry)
            if is_archive(opener):
                unpack(opener, path, self.op.dest, self.target, self.rules, self.spool)
                return
        copier.copy_path(path, self.op.dest)

    def _opener(self, source: FileSource, entry: Entry) -> Open:
        reading = self.stack.enter_context(source.reading([entry]))
        return lambda: reading(entry)

    def heredoc(self, name: str, content: str) -> None:
        """A file of the Dockerfile itself (H06)."""
        source = InlineFile(name, content.encode("utf-8", "surrogateescape"))
        self._copier(source).copy_path(name, self.op.dest)

    def items(self) -> Iterator[LayerItem]:
        """The layer, with contents; only now are files fetched or unpacked."""
        openers = [
            self.stack.enter_context(source.reading(needed(self.target, number)))
            for number, source in enumerate(self.sources)
        ]

        def opener(put: Put) -> Open | None:
            if isinstance(put.content, Spooled):
                return self.spool.opener(put.content)
            return opens(put, openers)

        return self.target.items(opener)


def _workdir(step: Step, op: WorkdirOp, parent: ChainValue, services: Services) -> Outcome:
    """Make a directory if it is not there, owned by USER (I12). Always a layer, maybe an empty one (L06)."""
    tree = services.layers.tree(parent.chain)
    passwd, group = names_of(tree)
    owner = lookup_owner(op.user, passwd, group) if op.user else None
    target = LayerTarget(tree)
    try:
        target.make_dirs(op.path.strip("/"), 0o755, owner, (services.epoch or 0) * SECOND)
    except NotADirectoryError as error:
        raise ContextError(f"cannot make the working directory {op.path}: /{error} is not a directory") from error
    key = cachekey.copy_key(copy_key(target, lambda _: ""), parent.chain, services.compression.identity)
    return cached(key, parent, step, services, lambda: store_layer(target.items(), services))

