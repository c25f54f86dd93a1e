"""COPY --parents (C20): sources keep their path; `/./` says where the part that is kept begins; `**` is any depth."""

from collections.abc import Iterator

from kpy.dockerfile.globs import match
from kpy.errors import ContextError
from kpy.layer.entry import Kind
from kpy.layer.source import FileSource
from kpy.solver.copy import Copier
from kpy.solver.lookup import has_wildcard, missing, parts_of, resolve
from kpy.util import paths


def split_pivot(pattern: str) -> tuple[list[str], list[str]]:
    """The components before and after the first `/./`."""
    text = pattern
    while text.startswith("./"):
        text = text[2:]
    before, pivot, after = ("/" + text.lstrip("/")).partition("/./")
    return (parts_of(before), parts_of(after)) if pivot else ([], parts_of(text))


def expand(source: FileSource, base: str, patterns: list[str]) -> Iterator[str]:
    """The paths below `base` that match, relative to it, sorted, parents before what is in them, each once."""
    seen: set[str] = set()
    todo = [("", 0)]  # a path, and how many of the patterns it has used up
    while todo:
        path, used = todo.pop()
        if used < len(patterns):
            todo += reversed(_deeper(source, base, path, patterns, used))
        elif path not in seen:
            seen.add(path)
            yield path


def _deeper(source: FileSource, base: str, done: str, patterns: list[str], used: int) -> list[tuple[str, int]]:
    """The next component of a path below `base` that may match."""
    here, head, last = paths.join(base, done) if done else base, patterns[used], used + 1 == len(patterns)
    if head == "**":
        names = [paths.join(done, name) for name in source.children(here)]
        if last:  # what is below comes with it
            return [(name, used + 1) for name in names]
        return [(done, used + 1), *((name, used) for name in names)]
    if not has_wildcard(head):
        below = paths.join(done, head)
        return [(below, used + 1)] if source.lookup(paths.join(base, below)) is not None else []
    return [(paths.join(done, name), used + 1) for name in source.children(here) if match(head, name)]


def copy_with_parents(copier: Copier, pattern: str, dest: str) -> int:
    """Copy all matches; how many there were. A path without wildcards has to be there."""
    before, after = split_pivot(pattern)
    literal = not any(has_wildcard(part) for part in [*before, *after])
    top = dest.strip("/")
    count = 0
    copier.make_dirs(top)
    for base in expand(copier.source, "", before):
        copier.begin()
        real = resolve(copier.source, base)
        for path in expand(copier.source, real, after):
            count += 1
            _copy_path(copier, real, path, top)
        copier.set_time(top, real)
    if not count and literal:
        raise missing(copier.source, "/".join([*before, *after]))
    return count


def _copy_path(copier: Copier, base: str, path: str, top: str) -> None:
    """Copy one match: its parents below the pivot with their own metadata, then itself with all that is in it."""
    source, exclude = copier.source, copier.rules.exclude
    if path and exclude is not None and exclude.matches(path) and not exclude.may_include_below(path):
        return
    place, done = copier.target.resolve(top), ""
    for part in path.split("/")[:-1]:
        done = f"{done}/{part}" if done else part
        place = paths.join(place, part)  # a link in its place is no directory, and not followed
        entry = source.lookup(f"{base}/{done}" if base else done)
        if entry is None or entry.kind is not Kind.DIR:
            raise ContextError(f"cannot copy {path}: {done} is not a directory")
        copier.make_parent(entry, place)
    entry = source.lookup("/".join(piece for piece in (base, path) if piece))
    if entry is None:
        return
    name = path.rpartition("/")[2]
    into = "/".join(piece for piece in (place, name) if piece)
    if entry.kind is Kind.DIR:
        if path:
            copier.copy_dir(entry, into)
        copier.copy_children(entry.path, into, path)
    else:
        copier.copy_entry(entry, into)
