"""Several layers of a chain made one, without unpacking them (L10): from the merged trees below and above them, contents
out of the layers. The result is remembered, as every layer is.

The one layer on what is below gives the files that the several give. Names that a RUN linked to a file of a layer
outside stay apart, as they are in the layers; linked names inside are one file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kpy.cache.base import CacheRecord
from kpy.events import StepFinished, StepStarted
from kpy.layer.entry import Entry, Kind, LayerItem
from kpy.layer.tree import Tree
from kpy.layer.treesource import TreeSource
from kpy.oci.digest import Digest
from kpy.oci.image import Chain, Layer, chain_id
from kpy.plan.model import Plan, Target
from kpy.plan.squash import Squash, squashed_history, squashed_layers
from kpy.solver.build_layer import write_layer
from kpy.solver.values import ChainValue, Services
from kpy.util import canonical
from kpy.util.checkpoint import checkpoint

_VERSION = 1


def squashed(
    plan: Plan, target: Target, value: ChainValue, wanted: Squash, services: Services
) -> tuple[Target, ChainValue]:
    """The target and its chain with the layers of `wanted` as one. What is one layer already stays."""
    own = squashed_layers(plan, target, wanted)
    begin = 0 if wanted.base else value.base + own.start
    end = max(value.base + own.stop, begin)
    if end - begin < 2:
        return target, value
    layer = _merged(value.chain[:begin], value.chain[begin:end], services)
    history = squashed_history(target.history, own, end - begin)
    chain = (*value.chain[:begin], layer, *value.chain[end:])
    return replace(target, history=history), ChainValue(chain, 0 if wanted.base else value.base)


def _merged(below: Chain, layers: Chain, services: Services) -> Layer:
    diff_ids = [str(layer.diff_id) for layer in layers]
    under = str(chain_id(below) or "")
    key = Digest.of(canonical.dumps_sorted(["squash", _VERSION, under, diff_ids, services.compression.identity]))
    name = f"squash {len(layers)} layers"
    services.report(StepStarted(str(key), name))
    try:
        record = None if services.no_cache else services.cache.load(key)
        if record is not None and record.layer is not None:
            services.report(StepFinished(str(key), "cached"))
            return record.layer
        layer = _write(below, (*below, *layers), services)
        services.cache.save(CacheRecord(key, layer, description=name))
    except BaseException as error:
        services.report(StepFinished(str(key), "failed", str(error)))
        raise
    services.report(StepFinished(str(key), "done"))
    return layer


def _write(below: Chain, chain: Chain, services: Services) -> Layer:
    old, new = services.layers.tree(below), services.layers.tree(chain)
    changes = list(differences(old, new))
    source = TreeSource(new, services.layers.tar_of(chain), view_root=None, spool=services.spool)
    first: dict[object, str] = {}
    entries: list[Entry] = []
    for entry in changes:
        same = source.link_id(entry) if entry.kind is Kind.FILE else None
        if same is not None and same in first:
            entry = replace(entry, kind=Kind.HARDLINK, link=first[same], size=0, sha256="")
        elif same is not None:
            first[same] = entry.path
        entries.append(entry)
    return _store(entries, source, services)


def _store(entries: Sequence[Entry], source: TreeSource, services: Services) -> Layer:
    with source.reading([entry for entry in entries if entry.kind is Kind.FILE and entry.size]) as opener:

        def items() -> Iterator[LayerItem]:
            for entry in entries:
                services.cancel.check()
                if entry.kind is Kind.FILE and entry.size:
                    yield LayerItem(entry, lambda entry=entry: opener(entry))  # type: ignore[misc]
                else:
                    yield LayerItem(entry)

        return write_layer(items(), services)


def differences(old: Tree, new: Tree) -> Iterator[Entry]:
    """What a layer on `old` must have to give `new`, in the order of layers (L03).

    All that layers above `old` have is in it, changed or not, and whiteouts of what is gone; no whiteout is of what
    was not there (L01).
    """
    todo = [("", True)]
    while todo:
        checkpoint()
        path, there = todo.pop()
        after = new.lookup(path)
        before = old.lookup(path) if there else None
        if after is None:
            yield Entry(path, Kind.WHITEOUT)
            continue
        if before is None or before != after or (path and old.where(before) != new.where(after)):
            yield after
        if after.kind is Kind.DIR:
            kept = before is not None and before.kind is Kind.DIR
            names = {*new.children(path), *(old.children(path) if kept else ())}
            todo += [(f"{path}/{name}" if path else name, kept) for name in sorted(names, reverse=True)]
