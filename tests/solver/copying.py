"""COPY and ADD on trees in memory, and what comes out as text, for the tests of the copy engine."""

import io
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kpy.dockerfile.dockerignore import Ignore
from kpy.layer.entry import Entry, Kind, LayerItem
from kpy.layer.tree import Tree, scan_layer
from kpy.oci.digest import Digest
from kpy.solver.archive import Spool, is_archive, unpack
from kpy.solver.copy import Copier, Rules
from kpy.solver.target import LayerTarget, Spooled, needed, opens
from kpy.util.modes import parse_mode
from tests.fakes import T0, MemoryFiles, dir_item, file_item, link_item, tar_of

NOW = 7_000_000_000


def rules(
    *, owner: tuple[int, int] | None = None, chmod: str = "", keep_owner: bool = False, exclude: Iterable[str] = (),
    parents: bool = False,
) -> Rules:  # fmt: skip
    return Rules(
        owner, parse_mode(chmod) if chmod else None, keep_owner, Ignore.of(exclude) if exclude else None, NOW, parents
    )


def tree_of(files: "Mapping[str, bytes | str | None]") -> Tree:
    """A merged tree, in MemoryFiles.of's notation; directories are 0700 of 9:9 with the time T0."""
    items = []
    for path, what in sorted(files.items()):
        if what is None:
            items.append(dir_item(path, mode=0o700, uid=9, gid=9))
        else:
            items.append(link_item(path, what) if isinstance(what, str) else file_item(path, what))
    return apply(Tree.empty(), items)


def apply(tree: Tree, items: Sequence[LayerItem]) -> Tree:
    """The tree with the items as a layer on it; the layer is written as tar and read again."""
    data = tar_of(*items)
    return tree.apply(scan_layer(io.BytesIO(data)), Digest.of(data))


class Copying:
    """One COPY or ADD."""

    def __init__(self, files: MemoryFiles, tree: Tree, how: Rules) -> None:
        self.tree = tree
        self.target = LayerTarget(tree, tempfile.gettempdir(), most=2)  # so that most of it goes to disk
        weakref.finalize(self, self.target.__exit__)
        self.copier = Copier(files, self.target, how)

    def items(self) -> list[LayerItem]:
        """The layer, with contents."""
        with self.copier.source.reading(needed(self.target, 0)) as opener:
            return list(self.target.items(lambda put: opens(put, [opener])))

    def result(self) -> Tree:
        """The tree afterwards."""
        return apply(self.tree, self.items())


def copy(
    files: "Mapping[str, bytes | str | None] | MemoryFiles", dest: str, *patterns: str,
    onto: "Mapping[str, bytes | str | None]" = {}, **how: object,
) -> Copying:  # fmt: skip
    """COPY patterns… dest."""
    source = files if isinstance(files, MemoryFiles) else MemoryFiles.of(files)
    work = Copying(source, tree_of(onto), rules(**how))  # type: ignore[arg-type]
    for pattern in patterns:
        work.copier.copy(pattern, dest)
    return work


class Added:
    """What one ADD of an archive made of a tree."""

    def __init__(self, tree: Tree, items: Iterable[LayerItem]) -> None:
        self.tree = tree
        self._items = list(items)

    def items(self) -> list[LayerItem]:
        """The layer, with contents."""
        return self._items


def add(tar: bytes, dest: str, spool: Path, *, onto: "Mapping[str, bytes | str | None]" = {}, **how: object) -> Added:
    """ADD of one archive. The layer's contents can be read while the spool is open, so they are read here."""
    target = LayerTarget(tree_of(onto), str(spool), most=2)
    with target, Spool(str(spool)) as space:
        assert is_archive(lambda: io.BytesIO(tar))
        unpack(lambda: io.BytesIO(tar), "x.tar", dest, target, rules(**how), space)  # type: ignore[arg-type]
        found = []
        for item in target.items(lambda put: space.opener(put.content) if isinstance(put.content, Spooled) else None):
            if item.open is not None:
                with item.open() as stream:
                    content = stream.read()
                item = replace(item, open=lambda content=content: io.BytesIO(content))  # type: ignore[misc]  # noqa: PLW2901
            found.append(item)
    return Added(target.tree, found)


def shown(entry: Entry) -> str:
    """`f 644 0:0` and what else is not as usual."""
    text = f"{entry.kind.value} {entry.mode:o}" if entry.kind is not Kind.SYMLINK else f"l {entry.link}"
    if (entry.uid, entry.gid) != (0, 0):
        text += f" {entry.uid}:{entry.gid}"
    return text + {T0: "", NOW: " now"}.get(entry.mtime, f" @{entry.mtime}")


def layer(work: "Copying | Added") -> dict[str, str]:
    """The entries of the layer."""
    items = work.items()
    found = {}
    for item in items:
        entry = item.entry
        found[entry.path] = f"= {entry.link}" if entry.kind is Kind.HARDLINK else shown(entry)
    return found


def paths(work: "Copying | Added") -> list[str]:
    """The files and links of the layer, without directories."""
    return [item.entry.path for item in work.items() if item.entry.kind is not Kind.DIR]
