"""A tar as a build context (1.10): indexed once, its contents in one spool file, nothing of it ever on disk by name.

So no path, link, device or mode in it can do anything here. Plain or compressed, told apart by content.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO, cast

from kpy.errors import ContentError, ContextError
from kpy.layer import pax
from kpy.layer.decompress import decompressor, sniff
from kpy.layer.entry import Entry, Kind
from kpy.layer.header import BLOCK
from kpy.layer.index import LayerTree
from kpy.layer.source import Opener, listing_of
from kpy.layer.tarread import Content, TarLimits, read_tar
from kpy.layer.tree import Tree
from kpy.oci.digest import Digest
from kpy.util.cancel import Cancel
from kpy.util.streams import RangeReader

MAX_CONTENT = 64 << 30
MAX_ENTRIES = 4_000_000
HEAD = 1024
"""How many first bytes `looks_like_archive` wants, as BuildKit reads."""

_NO_LAYER = Digest("sha256", "0" * 64)


def looks_like_archive(head: bytes) -> bool:
    """Are these the first bytes of a compressed file or of a tar? As BuildKit's isArchive, and zstd."""
    return sniff(head) != "none" or (len(head) >= BLOCK and head[:BLOCK].strip(b"\0") != b"" and pax.sum_fits(head[:BLOCK]))


class ArchiveContext:
    """A FileSource over the entries of a tar: parents that it does not have are 0755, later entries replace earlier
    ones, links resolve inside. Files whose names are whiteouts in layers are files here."""

    def __init__(self, tree: Tree, ranges: list[tuple[int, int]], number: int) -> None:
        self._tree = tree
        self._ranges = ranges
        self._file = number

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
        """See FileSource: the contents are there, nothing is to be prepared."""
        yield self._open

    def _open(self, entry: Entry) -> BinaryIO:
        _, position = self._tree.where(entry)
        start, size = self._ranges[position]
        return cast("BinaryIO", io.BufferedReader(RangeReader(self._file, start, size)))


@contextmanager
def archive_context(stream: BinaryIO, directory: str, cancel: Cancel, *, what: str) -> Iterator[ArchiveContext]:
    """Read the tar to its end; contents wait in an unlinked file in `directory` while the block runs.

    Raises ContentError (naming it as `what`) for a broken or too large tar, ContextError when the disk is full.
    """
    number = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        spool = _Spool(number)
        entries: list[Entry] = []
        ranges: list[tuple[int, int]] = []
        try:
            with decompressor(stream) as plain:
                for entry, content in read_tar(plain, layer=False, limits=TarLimits(entries=MAX_ENTRIES)):
                    cancel.check()
                    start, digest = spool.add(entry, content, cancel)
                    entries.append(replace(entry, sha256=digest) if digest else entry)
                    ranges.append((start, entry.size))
            tree = Tree.empty().apply(LayerTree(entries), _NO_LAYER)
        except ContentError as error:
            raise ContentError(f"cannot read {what}: {error.message}", hint=error.hint) from error
        except OSError as error:
            raise ContextError(f"cannot unpack {what}: {error.strerror or error}") from error
        yield ArchiveContext(tree, ranges, number)
    finally:
        os.close(number)


class _Spool:
    """Appends contents; runs of zeros become holes, so that a sparse file costs nothing."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._size = 0

    def add(self, entry: Entry, content: Content, cancel: Cancel) -> tuple[int, str]:
        """Where the content starts, and its digest ("" for what has none)."""
        if entry.kind is not Kind.FILE:
            return 0, ""
        if self._size + entry.size > MAX_CONTENT:
            raise ContentError(f"it has more than {MAX_CONTENT >> 30} GiB of files")
        start, hasher = self._size, hashlib.sha256()
        for chunk in content.chunks():
            cancel.check()
            hasher.update(chunk)
            if chunk.count(0) != len(chunk):
                self._write(chunk)
            self._size += len(chunk)
        os.ftruncate(self._number, self._size)
        return start, hasher.hexdigest()

    def _write(self, chunk: bytes) -> None:
        view, at = memoryview(chunk), self._size
        while view:
            written = os.pwrite(self._number, view, at)
            view, at = view[written:], at + written
