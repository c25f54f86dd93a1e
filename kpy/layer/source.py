"""A tree of files that COPY and ADD read from: a build context, a merged chain of layers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol, TypeAlias

from kpy.layer.entry import Entry
from kpy.util import paths

Opener: TypeAlias = Callable[[Entry], BinaryIO]


class FileSource(Protocol):
    """Metadata by path, without touching content. Paths are in Entry's form; the root is ""."""

    def lookup(self, path: str, /) -> Entry | None:
        """The entry at exactly this path, following no symlink at all, not even in its parents; None if there is
        none. Kinds are FILE, DIR, SYMLINK, CHAR, BLOCK, FIFO. Files that are one by hard links have equal
        `link_id`."""
        ...

    def children(self, path: str, /) -> Sequence[str]:
        """The sorted names in the directory at exactly this path; empty if it is not a directory."""
        ...

    def listing(self, path: str, /) -> Iterator[Entry]:
        """`lookup` of each of the `children`, when it comes to it: for who wants all of a large directory."""
        ...

    def link_id(self, entry: Entry, /) -> object | None:
        """What is equal for two names of one file, None for a file with one name. Strings, numbers and tuples of
        them."""
        ...

    def reading(self, entries: Iterable[Entry], /) -> AbstractContextManager[Opener]:
        """Make the content of these FILE entries ready (fetch, unpack what is needed); open them inside the block."""
        ...


class _Listed(Protocol):
    def lookup(self, path: str, /) -> Entry | None: ...
    def children(self, path: str, /) -> Sequence[str]: ...


def listing_of(source: _Listed, path: str) -> Iterator[Entry]:
    """FileSource.listing by the other two."""
    for name in source.children(path):
        entry = source.lookup(paths.join(path, name))
        if entry is not None:
            yield entry
