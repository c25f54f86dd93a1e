"""Contents of a tree's files, for COPY --from and the like: from an unpacked view, or out of the layers.

Opens nothing outside the view's root; refuses a view or a layer that does not have what the tree says.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from kpy.errors import ContentError, StoreError
from kpy.layer.entry import Entry, Kind
from kpy.layer.source import Opener, listing_of
from kpy.layer.tarread import Content, read_tar
from kpy.layer.tree import Tree
from kpy.oci.digest import Digest
from kpy.util import fs, paths


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
        folder = tempfile.mkdtemp(prefix="files-", dir=self._spool)
        try:
            places = self._unpack([entry for entry in entries if entry.kind is Kind.FILE], folder)

            def opener(entry: Entry) -> BinaryIO:
                place = places.get(self._tree.where(entry))
                if place is None:
                    raise ContentError(f"{entry.path!r} was not asked for")
                return open(place, "rb")

            yield opener
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _unpack(self, entries: Sequence[Entry], folder: str) -> dict[tuple[Digest, int], str]:
        wanted: dict[Digest, dict[int, Entry]] = {}
        for entry in entries:
            layer, position = self._tree.where(entry)
            wanted.setdefault(layer, {})[position] = entry
        places: dict[tuple[Digest, int], str] = {}
        for layer, positions in wanted.items():
            with self._tar(layer) as tar:
                for number, (found, content) in enumerate(read_tar(tar, layer=True)):
                    entry_wanted = positions.get(number)
                    if entry_wanted is None:
                        continue
                    if found.kind is not Kind.FILE or found.size != entry_wanted.size:
                        raise ContentError(f"layer {layer.short} does not have {entry_wanted.path!r} as its index says")
                    place = os.path.join(folder, str(len(places)))
                    _store(content, place, entry_wanted)
                    places[layer, number] = place
            if any((layer, number) not in places for number in positions):
                raise ContentError(f"layer {layer.short} is shorter than its index says")
        return places


def _store(content: Content, place: str, entry: Entry) -> None:
    try:
        with open(place, "xb", buffering=0) as out:
            for chunk in content.chunks():
                view = memoryview(chunk)
                while view:
                    view = view[out.write(view) :]
    except OSError as error:
        raise fs.store_error(f"unpack {entry.path!r} to", place, error) from error


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
