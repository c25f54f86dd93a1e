"""ADD of archives (C22): what is in the tar goes into the layer; contents wait in one spool file until written.

Knows tar entries and the layer target; which files are archives is decided by their first bytes, never by names.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from kpy.errors import ContentError, ContextError
from kpy.layer.decompress import decompressor, sniff_archive
from kpy.layer.entry import Entry, Kind
from kpy.layer.tarread import Content, read_tar
from kpy.solver.copy import CAPABILITY, Rules
from kpy.solver.lookup import resolve
from kpy.solver.target import LayerTarget, Open, Spooled
from kpy.util import paths
from kpy.util.streams import RangeReader


class Spool:
    """One unlinked temporary file that contents are appended to; read back by position. Not thread-safe."""

    def __init__(self, directory: str) -> None:
        self._file = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._size = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def add(self, chunks: Callable[[], Iterable[bytes]]) -> tuple[Spooled, str]:
        """Append all chunks; where they are, and their sha256."""
        start, hasher = self._size, hashlib.sha256()
        for chunk in chunks():
            hasher.update(chunk)
            view = memoryview(chunk)
            while view:
                written = os.write(self._file, view)
                self._size += written
                view = view[written:]
        return Spooled(start, self._size - start), hasher.hexdigest()

    def opener(self, place: Spooled) -> Open:
        """Opens a range."""

        def read() -> BinaryIO:
            return io.BufferedReader(RangeReader(self._file, place.start, place.size))

        return read


def is_archive(opener: Open) -> bool:
    """Does the file begin as a tar does, plain or compressed?"""
    with opener() as stream:
        return sniff_archive(stream) is not None


def unpack(opener: Open, name: str, dest: str, target: LayerTarget, rules: Rules, spool: Spool) -> None:
    """Put the entries of an archive below `dest`, which is made as a directory.

    Links are followed as if the destination were the root: that of `/etc` leads to `etc` below it, and none leads out.
    `./` itself changes nothing.
    Raises ContentError for a broken archive, ContextError when something is in the way.
    """
    top = dest.strip("/")
    try:
        target.make_dirs(top, 0o755, rules.owner, rules.now)
    except NotADirectoryError as error:
        raise ContextError(f"cannot unpack {name} to /{top}: /{error} is not a directory") from error
    unpacker = _Unpacker(name, _Below(target, target.resolve(top)), target, rules, spool)
    with ExitStack() as stack:
        raw = stack.enter_context(opener())
        plain = stack.enter_context(decompressor(raw))
        try:
            for entry, content in read_tar(plain, layer=False):
                if entry.path:
                    unpacker.put(entry, content)
        except ContentError as error:
            raise ContentError(f"cannot unpack {name}: {error.message}", hint=error.hint) from error


@dataclass(frozen=True, slots=True)
class _Below:
    """What is below the canonical directory `top`, as if that were the root."""

    target: LayerTarget
    top: str

    def lookup(self, path: str, /) -> Entry | None:
        """The entry at exactly this path."""
        return self.target.lookup(paths.join(self.top, path) if path else self.top)

    def place(self, path: str) -> str:
        """The path from the real root, links followed but for the last component."""
        return paths.join(self.top, resolve(self, path, follow_last=False))


@dataclass(slots=True)
class _Unpacker:
    """Puts entries of the archive `name` into the directory `below`. `names` are those of each hard-linked file."""

    name: str
    below: _Below
    target: LayerTarget
    rules: Rules
    spool: Spool
    names: dict[object, list[str]] = field(default_factory=dict)
    _parent: tuple[str, str] | None = None  # the last one, and where it is: entries of one directory come together

    def put(self, entry: Entry, content: Content) -> None:
        """Put one entry."""
        place = self._place(entry)
        if place.rpartition("/")[2].startswith(".wh."):
            raise ContextError(
                f"cannot unpack {entry.path} of {self.name}: a name that starts with .wh. would delete files in the image"
            )
        if entry.kind is Kind.HARDLINK:
            self._link(entry, place)
            return
        changed = self._changed(entry, place)
        if entry.kind is Kind.FILE:
            place_of, sha256 = self.spool.add(content.chunks)
            changed = Entry(place, Kind.FILE, changed.mode, changed.uid, changed.gid, place_of.size, changed.mtime,
                            xattrs=changed.xattrs, sha256=sha256)  # fmt: skip
            if self.target.lookup(place) is None:
                self.target.add(changed, place_of)
                return
            self.target.put(changed, place_of)
        else:
            self.target.put(changed)
        self._parent = None  # a directory or link may be another now

    def _place(self, entry: Entry) -> str:
        """Where it goes: parents are made, and followed where they are symlinks."""
        parent, _, last = entry.path.rpartition("/")
        if self._parent is not None and self._parent[0] == parent:
            return paths.join(self._parent[1], last)
        place = self.below.place(entry.path)
        above = place.rpartition("/")[0]
        try:
            self.target.make_dirs(above, 0o755, (0, 0), self.rules.now)
        except NotADirectoryError as error:
            raise ContextError(f"cannot unpack {self.name}: /{error} is not a directory") from error
        self._parent = (parent, above)
        return place

    def _changed(self, entry: Entry, place: str) -> Entry:
        # --chmod says nothing about what is in an archive (C22)
        uid, gid = self.rules.owner or (entry.uid, entry.gid)
        xattrs = {key: value for key, value in entry.xattrs.items() if key == CAPABILITY}
        return Entry(place, entry.kind, entry.mode, uid, gid, entry.size, entry.mtime, entry.link, entry.device, xattrs)

    def _link(self, entry: Entry, place: str) -> None:
        source = self.below.place(entry.link)
        put = self.target.put_at(source)
        if put is None:
            raise ContentError(f"{entry.path} is a hard link to {entry.link}, which the archive does not have")
        if put.entry.kind is Kind.DIR:
            raise ContentError(f"{entry.path} is a hard link to {entry.link}, which is a directory")
        same = put.same_file or ("archive", self.name, source)
        # owner, mode and time of the file are what was said last, and of all its names
        last = self._changed(entry, place)
        if put.entry.kind is Kind.SYMLINK:
            last = replace(last, mode=put.entry.mode, mtime=put.entry.mtime)
        self.target.add(put.entry, put.content, same)
        self.target.put(replace(put.entry, path=place), put.content, same)
        self._parent = None
        names = self.names.setdefault(same, [source])
        names.append(place)
        for path in names:
            now = self.target.put_at(path)
            if now is not None and now.same_file == same:
                changed = replace(now.entry, mode=last.mode, uid=last.uid, gid=last.gid, mtime=last.mtime)
                self.target.add(changed, now.content, same)
