"""Paths in trees of files: resolve symlinks inside the root, match wildcards. Touches metadata only."""

from collections.abc import Iterator
from typing import Protocol

from kpy.dockerfile.globs import match
from kpy.errors import ContextError, KpyError
from kpy.layer.entry import Entry, Kind
from kpy.layer.source import FileSource
from kpy.util.checkpoint import checked, checkpoint

MAX_LINKS = 255  # as the kernel and containerd's fs.RootPath


class Lookup(Protocol):
    """Anything that knows the entry at a path, following nothing."""

    def lookup(self, path: str, /) -> Entry | None:
        """The entry at exactly this path."""
        ...


def parts_of(path: str) -> list[str]:
    """The components of a path, `..` taken within the root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts


def resolve(source: Lookup, path: str, *, follow_last: bool = True) -> str:
    """The path with all symlinks followed, inside the root: `..` and absolute targets end at the root.

    Components that do not exist are kept as they are. Raises ContextError for a loop: what came out of it would lie
    behind a symlink, and who applies the layer would follow that.
    """
    todo = [part for part in path.split("/") if part not in ("", ".")]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop(0)
        if part == "..":
            del done[-1:]
            continue
        here = "/".join([*done, part])
        entry = source.lookup(here)
        if entry is not None and entry.kind is Kind.SYMLINK and (todo or follow_last):
            links += 1
            if links > MAX_LINKS:
                raise ContextError(f'"/{path[:200]}": too many levels of symbolic links')
            if entry.link.startswith("/"):
                done = []
            todo = [piece for piece in entry.link.split("/") if piece not in ("", ".")] + todo
        else:
            done.append(part)
    return "/".join(done)


def has_wildcard(part: str) -> bool:
    """Does a component have `*`, `?` or `[` that is not escaped?"""
    escaped = False
    for char in part:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in "*?[":
            return True
    return False


def missing(source: FileSource, path: str) -> KpyError:
    """The error for a source that is not there (C30)."""
    hidden = getattr(source, "exists_but_excluded", None)
    if callable(hidden) and hidden(path):
        return ContextError(
            f'"/{path}": not found: the file is there, but .dockerignore excludes it',
            hint=f"add the line !{path} to .dockerignore",
        )
    parent = path.rpartition("/")[0]
    from kpy.dockerfile.span import suggest

    names = source.children(resolve(source, parent))
    return ContextError(f'"/{path}": not found', hint=suggest(path.rpartition("/")[2], names))


def wildcards(source: FileSource, pattern: str) -> list[str] | None:
    """The paths that a source pattern matches, sorted; None when it has no wildcard (C04).

    As BuildKit: a match ends the descent, `*` does not cross `/`. Nothing has to match, but what is before the first
    wildcard has to be there. Raises FormError for a bad pattern, ContextError for a missing beginning.
    """
    parts = parts_of(pattern)
    first = next((index for index, part in enumerate(parts) if has_wildcard(part)), -1)
    if first < 0:
        return None
    base = resolve(source, "/".join(parts[:first]))
    shown = "/".join(parts[:first])
    if shown and source.lookup(base) is None:
        raise missing(source, shown)
    found = _walk(source, base, parts[first:])
    return [f"{shown}/{item}" if shown else item for item in found]


def _walk(source: FileSource, base: str, patterns: list[str]) -> list[str]:
    """Components are matched one by one: a pattern of N components matches paths of N components."""
    names = source.children(base)
    found = []
    for name in checked(names):
        if not match(patterns[0], name):
            continue
        if len(patterns) == 1:
            found.append(name)
            continue
        below = f"{base}/{name}" if base else name
        entry = source.lookup(below)
        if entry is not None and entry.kind is Kind.DIR:
            found += [f"{name}/{item}" for item in _walk(source, below, patterns[1:])]
    return found


def walk(source: FileSource, path: str) -> Iterator[Entry]:
    """Everything below a directory, parents first, in sorted order; no symlink is followed."""
    todo = [source.listing(path)]  # and no recursion: a tree may be as deep as it likes
    while todo:
        checkpoint()
        entry = next(todo[-1], None)
        if entry is None:
            todo.pop()
            continue
        yield entry
        if entry.kind is Kind.DIR:
            todo.append(source.listing(entry.path))
