"""One file in memory as a FileSource: a heredoc of COPY or ADD (H06)."""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from kpy.layer.entry import Entry, Kind
from kpy.layer.source import Opener, listing_of


class InlineFile:
    """A file `name` of mode 0644, owned by root. Without a time: that of directories that a copy makes."""

    def __init__(self, name: str, data: bytes, mtime: int = 0) -> None:
        self._entry = Entry(name, Kind.FILE, 0o644, size=len(data), mtime=mtime)
        self._data = data

    def lookup(self, path: str, /) -> Entry | None:
        """See FileSource."""
        if not path:
            return Entry("", Kind.DIR, 0o755)
        return self._entry if path == self._entry.path else None

    def children(self, path: str, /) -> Sequence[str]:
        """See FileSource."""
        return () if path else (self._entry.path,)

    def listing(self, path: str, /) -> Iterator[Entry]:
        """See FileSource."""
        return listing_of(self, path)

    def link_id(self, entry: Entry, /) -> object | None:
        """See FileSource."""
        return None

    @contextmanager
    def reading(self, entries: Iterable[Entry], /) -> Iterator[Opener]:
        """See FileSource."""

        def read(_: Entry) -> BinaryIO:
            return io.BytesIO(self._data)

        yield read
