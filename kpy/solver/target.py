"""The layer that a COPY, ADD or WORKDIR makes, as it grows over the tree that it goes on.

Knows the merged tree below (metadata only) and what was put so far; never touches the disk of anybody. Most of what
was put waits in a temporary file, so that memory does not grow with the layer.
"""

import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from kpy.layer.entry import Entry, Kind, LayerItem
from kpy.layer.source import Opener
from kpy.layer.tree import Tree
from kpy.solver.lookup import resolve
from kpy.util import paths
from kpy.util.checkpoint import checked
from kpy.util.spill import Spill

Open = Callable[[], BinaryIO]

_KINDS = {kind.value: kind for kind in Kind}
_NO_XATTRS: dict[str, bytes] = {}


@dataclass(frozen=True, slots=True)
class Taken:
    """The content is that of a FILE of the source with this number."""

    number: int
    source: Entry


@dataclass(frozen=True, slots=True)
class Spooled:
    """The content is this range of a spool file."""

    start: int
    size: int


Content = Taken | Spooled


@dataclass(frozen=True, slots=True)
class Put:
    """An entry of the new layer, and where the content of a FILE is. `same_file` is equal for names of one file (hard
    links): plain data, see FileSource.link_id."""

    entry: Entry
    content: Content | None = None
    same_file: object | None = None


class LayerTarget:
    """Collects the entries of one new layer. Paths are in Entry's form, canonical (no symlink in a parent).

    `spool` is a directory for what is more than `most` entries; without one, all is kept in memory.
    """

    def __init__(self, tree: Tree, spool: str | None = None, *, most: int = 2048) -> None:
        self.tree = tree
        self._puts: Spill[Put] = Spill(spool, _pack, _unpack, most=most)
        self._replaced: set[str] = set()

    def __enter__(self) -> "LayerTarget":
        return self

    def __exit__(self, *_: object) -> None:
        self._puts.__exit__()

    def put_at(self, path: str) -> Put | None:
        """What this layer puts at a path."""
        return self._puts.get(path.replace("/", "\0"))

    def lookup(self, path: str, /) -> Entry | None:
        """What is at the path now: put by this layer, or in the tree below."""
        put = self._puts.get(path.replace("/", "\0"))
        if put is not None:
            return put.entry
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

    def put(self, entry: Entry, content: Content | None = None, same_file: object | None = None) -> None:
        """Set what is at a path. A directory over a directory keeps what is in it; anything else replaces all."""
        if entry.kind is not Kind.DIR:
            old = self.lookup(entry.path)
            if old is not None and old.kind is Kind.DIR:
                self._puts.remove_from(entry.path.replace("/", "\0") + "\0")
                self._replaced.add(entry.path)
        self.add(entry, content, same_file)

    def add(self, entry: Entry, content: Content | None = None, same_file: object | None = None) -> None:
        """As `put`, for who knows that no directory is replaced by something else."""
        self._puts.set(entry.path.replace("/", "\0"), Put(entry, content, same_file))

    def make_dirs(self, path: str, mode: int, owner: tuple[int, int] | None, mtime: int) -> list[str]:
        """Make the directory and its missing parents; the canonical paths of those made, top first.

        As mkdir does: below a setgid directory they are setgid too, and of its group unless `owner` says whose they are.
        Raises NotADirectoryError (with the path) when something else is in the way.
        """
        made: list[str] = []
        here = ""
        for part in path.split("/") if path else ():
            here = self.enter(here, part)
            found = self.lookup(here)
            if found is None:
                above = self.lookup(here.rpartition("/")[0])
                group = above.gid if above is not None and above.mode & stat.S_ISGID else None
                bits, whose = (mode, (0, 0)) if group is None else (mode | stat.S_ISGID, (0, group))
                self.put(Entry(here, Kind.DIR, bits, *(owner or whose), mtime=mtime))
                made.append(here)
            elif found.kind is not Kind.DIR:
                raise NotADirectoryError(here)
        return made

    def puts(self) -> Iterator[Put]:
        """The layer: sorted, with the parents of what it holds (L02), hard links after their first name (L03).

        Parents are given with the metadata that they have, since some engines would make missing ones anew. A put
        without `same_file` has no link to it.
        """
        first: dict[object, str] = {}
        above: list[str] = []  # where the last one is, and itself
        for put in checked(self._puts.values()):
            entry, same = put.entry, put.same_file
            while above and not entry.path.startswith(above[-1] + "/"):
                above.pop()
            done = above[-1] if above else ""
            for part in entry.path[len(done) :].strip("/").split("/")[:-1]:
                done = paths.join(done, part)
                yield Put(self.lookup(done) or Entry(done, Kind.DIR, 0o755))
                above.append(done)
            above.append(entry.path)
            if entry.kind is Kind.DIR and entry.path in self._replaced:
                yield put
                yield Put(Entry(entry.path, Kind.OPAQUE))
            elif same is not None and same in first:
                yield Put(_link(entry, first[same]), None, same)
            else:
                if same is not None:
                    first[same] = entry.path
                yield put

    def items(self, opener: Callable[[Put], Open | None] = lambda _: None) -> Iterator[LayerItem]:
        """The layer to be written; `opener` says how to open the content of a FILE."""
        for put in self.puts():
            open_it = opener(put) if put.content is not None else None
            yield LayerItem(put.entry, open_it, alone=put.same_file is None)


def needed(target: LayerTarget, number: int) -> Iterator[Entry]:
    """The entries of one source whose content the layer needs, for FileSource.reading."""
    for put in target.puts():
        if isinstance(put.content, Taken) and put.content.number == number:
            yield put.content.source


def opens(put: Put, openers: Sequence[Opener]) -> Open | None:
    """How to open content that is taken from one of the sources, in the order of their numbers."""
    if not isinstance(put.content, Taken):
        return None
    return partial(openers[put.content.number], put.content.source)


def _link(entry: Entry, target: str) -> Entry:
    return Entry(entry.path, Kind.HARDLINK, entry.mode, entry.uid, entry.gid, 0, entry.mtime, target, entry.device,
                 entry.xattrs)  # fmt: skip


def _pack(put: Put) -> tuple[Any, ...]:
    entry, content = put.entry, put.content
    where: tuple[Any, ...] | None = None
    if isinstance(content, Taken):
        where = (content.number, content.source.path, content.source.stat)
    elif content is not None:
        where = (content.start, content.size)
    return (entry.kind.value, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime, entry.link, entry.device,
            dict(entry.xattrs) if entry.xattrs else None, entry.sha256, where, put.same_file)  # fmt: skip


def _unpack(key: str, plain: tuple[Any, ...]) -> Put:
    kind, mode, uid, gid, size, mtime, link, device, xattrs, sha256, where, same = plain
    path = key.replace("\0", "/")
    entry = Entry(path, _KINDS[kind], mode, uid, gid, size, mtime, link, device, xattrs or _NO_XATTRS, sha256)
    content: Content | None = None
    if where is not None and len(where) == 3:
        # Of the source's entry, what tells where its content is and what it is.
        source = Entry(where[1], Kind.FILE, size=size, sha256=sha256, xattrs=_NO_XATTRS, stat=where[2])
        content = Taken(where[0], source)
    elif where is not None:
        content = Spooled(*where)
    return Put(entry, content, same)
