"""The inputs of a step as files, and what is mounted of them by content (R20)."""

from collections.abc import Callable

from kpy.layer.source import FileSource
from kpy.layer.tree import Tree
from kpy.layer.treesource import TreeSource
from kpy.solver.copy import Copier, Rules, copy_key
from kpy.solver.lookup import parts_of
from kpy.solver.target import LayerTarget
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
    target = LayerTarget(Tree.empty())
    copier = Copier(source, target, Rules(None, None, keep_owner=True, exclude=None, now=0), tag="")
    copier.copy_path("/".join(parts_of(path)), "/mount")
    return str(copy_key(target, digests(copier, source, services)))


def digests(copier: Copier, source: FileSource, services: Services) -> Callable[[str], str]:
    """The digest of a file that is copied, by its path in the target."""

    def of(path: str) -> str:
        entry = copier.wanted_at(path)
        return services.hashes.sha256(source, entry) if entry is not None else ""

    return of
