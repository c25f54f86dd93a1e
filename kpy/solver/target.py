"""The layer that a COPY, ADD or WORKDIR makes, as it grows over the tree that it goes on.

Knows the merged tree below (metadata only) and what was put so far; never touches a disk.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO

from kpy.layer.entry import Entry, Kind, LayerItem, sort_key
from kpy.layer.tree import Tree
from kpy.solver.lookup import resolve
from kpy.util import paths

Open = Callable[[], BinaryIO]

_LINK_MODE = 0o777


@dataclass(frozen=True, slots=True)
class Put:
    """An entry of the new layer. `same_file` is equal for names of one file (hard links)."""

    entry: Entry
    open: Open | None = None
    same_file: object | None = None


class LayerTarget:
    """Collects the entries of one new layer. Paths are in Entry's form, canonical (no symlink in a parent)."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.puts: dict[str, Put] = {}
        self._replaced: set[str] = set()

    def lookup(self, path: str, /) -> Entry | None:
        """What is at the path now: put by this layer, or in the tree below."""
        if path in self.puts:
            return self.puts[path].entry
        if self._replaced:
            above = path
            while above:
                if above in self._replaced:
                    return None
                above = above.rpartition("/")[0]
        return self.tree.lookup(path) if path else Entry("", Kind.DIR, 0o755)

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        """The canonical path, following symlinks inside the root."""
        return resolve(self, path, follow_last=follow_last)

    def enter(self, directory: str, name: str) -> str:
        """The canonical path of a name in a directory whose path is canonical.

        Raises NotADirectoryError (with the path) when it is a link to what is below something else.
        """
        path = paths.join(directory, name)
        there = self.lookup(path)
        if there is None or there.kind is not Kind.SYMLINK:
            return path
        path = self.resolve(path)
        above = path.rpartition("/")[0]
        while above and (there := self.lookup(above)) is None:
            above = above.rpartition("/")[0]
        if above and there is not None and there.kind is not Kind.DIR:
            raise NotADirectoryError(above)
        return path

    def put(self, entry: Entry, opener: Open | None = None, same_file: object | None = None) -> None:
        """Set what is at a path. A directory over a directory keeps what is in it; anything else replaces all."""
        old = self.lookup(entry.path)
        if old is not None and old.kind is Kind.DIR and entry.kind is not Kind.DIR:
            prefix = entry.path + "/"
            for path in [path for path in self.puts if path.startswith(prefix)]:
                del self.puts[path]
            self._replaced.add(entry.path)
        self.puts[entry.path] = Put(entry, opener, same_file)

    def make_dirs(self, path: str, mode: int, owner: tuple[int, int], mtime: int) -> list[str]:
        """Make the directory and its missing parents; the canonical paths of those made, top first.

        Raises NotADirectoryError (with the path) when something else is in the way.
        """
        made: list[str] = []
        here = ""
        for part in path.split("/") if path else ():
            here = self.enter(here, part)
            found = self.lookup(here)
            if found is None:
                self.put(Entry(here, Kind.DIR, mode, *owner, mtime=mtime))
                made.append(here)
            elif found.kind is not Kind.DIR:
                raise NotADirectoryError(here)
        return made

    def items(self) -> list[LayerItem]:
        """The layer: sorted, with the parents of what it holds (L02), hard links after their first name (L03).

        Parents are given with the metadata that they have, since some engines would make missing ones anew.
        """
        entries = dict(self.puts)
        for path in self.puts:
            above = path.rpartition("/")[0]
            while above and above not in entries:
                found = self.lookup(above)
                entries[above] = Put(found if found is not None else Entry(above, Kind.DIR, 0o755))
                above = above.rpartition("/")[0]
        first: dict[object, str] = {}
        items: list[LayerItem] = []
        for put in sorted(entries.values(), key=lambda item: sort_key(item.entry)):
            entry, same = put.entry, put.same_file
            if entry.kind is Kind.DIR and entry.path in self._replaced:
                items.append(LayerItem(entry))
                items.append(LayerItem(Entry(entry.path, Kind.OPAQUE)))
            elif same is not None and same in first:
                items.append(LayerItem(replace(entry, kind=Kind.HARDLINK, link=first[same], size=0)))
            else:
                if same is not None:
                    first[same] = entry.path
                items.append(LayerItem(entry, put.open))
        return items
