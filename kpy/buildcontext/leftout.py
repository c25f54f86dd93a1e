"""What .dockerignore keeps out of a directory context, and by which of its lines (G10). For people who look for what
makes their context large; a build never asks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kpy.buildcontext.directory import DirectoryContext
from kpy.dockerfile.dockerignore import Rule
from kpy.errors import ContextError
from kpy.layer.entry import Entry, Kind
from kpy.util import paths
from kpy.util.checkpoint import checkpoint


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file, or a directory of which nothing is in the context; `files` and `size` of all that is in it."""

    path: str
    rule: Rule
    is_directory: bool
    files: int
    size: int


def left_out(context: DirectoryContext) -> Iterator[LeftOut]:
    """In the order of a layer; of a directory that is out as a whole only the directory."""
    everything = context.with_ignore(None)
    todo = [""]
    while todo:
        path = todo.pop()
        if path and context.excluded(path):
            found = _leave(context, everything, path)
            if found is not None:
                yield found
                continue
        todo += sorted((paths.join(path, name) for name in _names(everything, path)), reverse=True)


def _leave(context: DirectoryContext, everything: DirectoryContext, path: str) -> LeftOut | None:
    """None for a directory that is excluded, but in which something is not."""
    is_directory = (top := _look(everything, path)) is not None and top.kind is Kind.DIR
    if is_directory and context.lookup(path) is not None:
        return None
    rule = context.ignore.decisive(path)
    assert rule is not None
    files, size = 0, 0
    todo = [top] if top is not None else []
    while todo:
        checkpoint()
        entry = todo.pop()
        if entry.kind is Kind.DIR:
            todo += _inside(everything, entry.path)
            continue
        size += entry.size or len(entry.link.encode("utf-8", "surrogateescape"))
        files += 1
    return LeftOut(path, rule, is_directory, files, size)


def _look(everything: DirectoryContext, path: str) -> Entry | None:
    """What is excluded need not be readable."""
    try:
        return everything.lookup(path)
    except ContextError:
        return None


def _inside(everything: DirectoryContext, directory: str) -> Sequence[Entry]:
    try:
        return list(everything.listing(directory))
    except ContextError:
        return ()


def _names(everything: DirectoryContext, directory: str) -> Sequence[str]:
    try:
        return everything.children(directory)
    except ContextError:
        return ()
