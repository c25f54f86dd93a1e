"""The context of a build that has none: a Dockerfile on standard input."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from kpy.errors import ContextError
from kpy.layer.entry import Entry, Kind
from kpy.layer.source import Opener, listing_of


class EmptyContext:
    """A FileSource with nothing in it."""

    def lookup(self, path: str, /) -> Entry | None:
        """See FileSource."""
        return None if path else Entry("", Kind.DIR, 0o755)

    def children(self, path: str, /) -> Sequence[str]:
        """See FileSource."""
        return ()

    def listing(self, path: str, /) -> Iterator[Entry]:
        """See FileSource."""
        return listing_of(self, path)

    def link_id(self, entry: Entry, /) -> object | None:
        """See FileSource."""
        return None

    @contextmanager
    def reading(self, entries: Iterable[Entry], /) -> Iterator[Opener]:
        """See FileSource."""

        def read(entry: Entry) -> BinaryIO:
            raise ContextError(f"{entry.path}: not found: this build has no context")

        yield read
