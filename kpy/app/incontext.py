"""The one way to read a file that lies in a context for ourselves: its Dockerfile, its ignore file.

Whoever made the context made the links in it, too. They are followed inside the context, as those of COPY are, and only a
regular file is read: what is elsewhere on this machine would be shown in the excerpt of an error.
"""

from kpy.errors import ContextError
from kpy.layer.entry import Entry, Kind
from kpy.layer.source import FileSource
from kpy.solver.lookup import parts_of, resolve

_NO_FILES = {
    Kind.DIR: "a directory", Kind.FIFO: "a named pipe", Kind.CHAR: "a device", Kind.BLOCK: "a device",
}  # fmt: skip


def read(files: FileSource, path: str, limit: int, *, what: str, hint: str = "") -> bytes | None:
    """The content of the file at `path` in the context, of at most `limit` bytes; None if there is nothing.

    `what` is what to call it. Raises ContextError, never with anything of what a link leads to.
    """
    entry = _find(files, path, what, hint)
    if entry is None:
        return None
    if entry.kind is not Kind.FILE:
        raise ContextError(f"cannot read {what}: it is {_NO_FILES.get(entry.kind, 'no file')}", hint=hint)
    parts, size = [], 0
    with files.reading([entry]) as opener, opener(entry) as stream:
        while size <= limit and (data := stream.read(min(1 << 20, limit + 1 - size))):
            parts.append(data)
            size += len(data)
    if size > limit:
        raise ContextError(f"cannot read {what}: it is larger than {limit >> 20} MiB")
    return b"".join(parts)


def _find(files: FileSource, path: str, what: str, hint: str) -> Entry | None:
    """What is there, links followed."""
    try:
        entry = files.lookup(resolve(files, "/".join(parts_of(path))))
    except ContextError as error:
        raise ContextError(f"cannot read {what}: {error.message}", hint=error.hint) from error
    if entry is None and (link := _link(files, path)) is not None:
        raise ContextError(
            f"cannot read {what}: {link.path} is a link to {link.link}, which is not in the context",
            hint=f"links in a context are followed inside it only{'; ' if hint else ''}{hint}",
        )
    return entry


def _link(files: FileSource, path: str) -> Entry | None:
    """The first link on the way to a path."""
    parts = parts_of(path)
    for count in range(1, len(parts) + 1):
        entry = files.lookup("/".join(parts[:count]))
        if entry is not None and entry.kind is Kind.SYMLINK:
            return entry
    return None
