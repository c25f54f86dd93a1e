"""The inputs of a step as files, and what is mounted of them by content (R20)."""

from collections.abc import Callable, Sequence

from kpy.layer.source import FileSource
from kpy.layer.tree import Tree
from kpy.layer.treesource import TreeSource
from kpy.solver.copy import Copier, Rules, copy_key
from kpy.solver.lookup import parts_of
from kpy.solver.target import LayerTarget, Put, Taken
from kpy.solver.values import ChainValue, FilesValue, Services, Value


def files_of(value: Value, services: Services) -> tuple[FileSource, FilesValue | ChainValue]:
    """The files of any value; those of a chain by its tree, contents from a snapshot or streamed from the layers."""
    if isinstance(value, FilesValue):
        return value.source, value
    tree = services.layers.tree(value.chain)
    return TreeSource(tree, services.layers.tar_of(value.chain), view_root=None, spool=services.spool), value


def mount_key(path: str, value: Value, services: Services) -> str:
    """What is mounted, by content (R20)."""
    source, _ = files_of(value, services)
    with LayerTarget(Tree.empty(), services.spool) as target:
        copier = Copier(source, target, Rules(None, None, keep_owner=True, exclude=None, now=0))
        copier.copy_path("/".join(parts_of(path)), "/mount")
        return str(copy_key(target, digests([source], services)))


def digests(sources: Sequence[FileSource], services: Services) -> Callable[[Put], str]:
    """The digest of a file that a layer puts: of content of these sources, or one that its entry knows."""

    def of(put: Put) -> str:
        if isinstance(put.content, Taken):
            return services.hashes.sha256(sources[put.content.number], put.content.source)
        return put.entry.sha256

    return of
