"""Contents of a tree's files, for COPY --from and the like: from an unpacked view, or out of the layers by way of one
unlinked file.

Opens nothing outside the view's root; refuses a view or a layer that does not have what the tree says.
"""

import io
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, cast

from kpy.errors import ContentError, StoreError
from kpy.layer.entry import Entry, Kind
from kpy.layer.source import Opener, listing_of
from kpy.layer.tarread import Content, read_tar
from kpy.layer.tree import Tree
from kpy.oci.digest import Digest
from kpy.util import fs, paths
from kpy.util.streams import RangeReader


class TreeSource:
    """A FileSource of a tree. `tar` gives a layer's uncompressed tar by diff_id, verified when read to its end;
    `view_root` is a directory that holds the tree, or None; spooled files go below `spool`."""

    def __init__(
        self, tree: Tree, tar: Callable[[Digest], BinaryIO], *, view_root: str | None, spool: str
    ) -> None:
        self._tree = tree
        self._tar = tar
        self._view_root = view_root
        self._spool = spool

    def lookup(self, path: str, /) -> Entry | None:
        """See FileSource."""
        return self._tree.lookup(path)

    def children(self, path: str, /) -> Sequence[str]:
        """See FileSource."""
        return self._tree.children(path)

    def listing(self, path: str, /) -> Iterator[Entry]:
        """See FileSource."""
        return listing_of(self, path)

    def link_id(self, entry: Entry, /) -> object | None:
        """See FileSource."""
        return self._tree.link_id(entry)

    @contextmanager
    def reading(self, entries: Iterable[Entry], /) -> Iterator[Opener]:
        """See FileSource. Without a view every layer that has one of the files is read once, to its end."""
        if self._view_root is not None:
            root_fd = _open_root(self._view_root)
            try:
                yield lambda entry: _open_in_view(root_fd, entry)
            finally:
                os.close(root_fd)
            return
        with fs.io_errors("write", self._spool):
            number = os.open(self._spool, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            places = self._unpack(number, entries)

            def opener(entry: Entry) -> BinaryIO:
                layer, position = self._tree.where(entry)
                place = places.get(layer)
                if place is None or not place.has(position):
                    raise ContentError(f"{entry.path!r} was not asked for")
                return cast("BinaryIO", io.BufferedReader(RangeReader(number, place.starts[position], place.sizes[position])))

            yield opener
        finally:
            os.close(number)

    def _unpack(self, number: int, entries: Iterable[Entry]) -> "dict[Digest, _Places]":
        places: dict[Digest, _Places] = {}
        for entry in entries:
            if entry.kind is Kind.FILE:
                layer, position = self._tree.where(entry)
                places.setdefault(layer, _Places()).want(position, entry.size)
        end = 0
        for layer, place in places.items():
            left = place.count
            with self._tar(layer) as tar:
                for position, (found, content) in enumerate(read_tar(tar, layer=True)):
                    if not place.has(position):
                        continue
                    if found.kind is not Kind.FILE or found.size != place.sizes[position]:
                        raise ContentError(f"layer {layer.short} does not have {found.path!r} as its index says")
                    place.starts[position] = end
                    end = _store(content, number, end, found.path)
                    left -= 1
            if left:
                raise ContentError(f"layer {layer.short} is shorter than its index says")
        return places


class _Places:
    """Which files of a layer are wanted, by their number in its index, how large they are, and where they begin."""

    def __init__(self) -> None:
        self.sizes, self.starts = array("q"), array("q")
        self.count = 0

    def want(self, position: int, size: int) -> None:
        """This one too."""
        more = [-1] * (position + 1 - len(self.sizes))
        self.sizes.extend(more)
        self.starts.extend(more)
        self.count += self.sizes[position] < 0
        self.sizes[position] = size

    def has(self, position: int) -> bool:
        """Is it wanted?"""
        return 0 <= position < len(self.sizes) and self.sizes[position] >= 0


def _store(content: Content, number: int, at: int, path: str) -> int:
    """Write it to the file; where it ends."""
    with fs.io_errors("unpack", path):
        for chunk in content.chunks():
            view = memoryview(chunk)
            while view:
                written = os.pwrite(number, view, at)
                at += written
                view = view[written:]
    return at


def _open_root(root: str) -> int:
    try:
        return os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"cannot open {root}: {error.strerror or error}") from error


def _open_in_view(root_fd: int, entry: Entry) -> BinaryIO:
    try:
        fd = paths.open_file(root_fd, entry.path)
    except OSError as error:
        raise ContentError(f"cannot open {entry.path!r} of the image: {error.strerror or error}") from error
    if os.fstat(fd).st_size != entry.size:
        os.close(fd)
        raise ContentError(f"{entry.path!r} of the unpacked image is not of the size its layer says")
    return open(fd, "rb", buffering=0)
