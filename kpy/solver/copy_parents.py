"""COPY --parents (C20): sources keep their path; `/./` says where the part that is kept begins; `**` is any depth."""

from collections.abc import Iterator

from kpy.dockerfile.globs import match
from kpy.errors import ContextError
from kpy.layer.entry import Kind
from kpy.layer.source import FileSource
from kpy.solver.copy import Copier, missing
from kpy.solver.lookup import has_wildcard, parts_of, resolve


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
    for path in _expand(source, base, "", patterns):
        if path not in seen:
            seen.add(path)
            yield path


def _expand(source: FileSource, base: str, done: str, patterns: list[str]) -> Iterator[str]:
    if not patterns:
        yield done
        return
    here = "/".join(part for part in (base, done) if part)
    head, rest = patterns[0], patterns[1:]
    if head == "**":
        if rest:
            yield from _expand(source, base, done, rest)
        for name in source.children(here):
            below = f"{done}/{name}" if done else name
            if not rest:
                yield below
            else:
                yield from _expand(source, base, below, patterns)
        return
    if not has_wildcard(head):
        below = f"{done}/{head}" if done else head
        if source.lookup("/".join(part for part in (base, below) if part)) is not None:
            yield from _expand(source, base, below, rest)
        return
    for name in source.children(here):
        if match(head, name):
            yield from _expand(source, base, f"{done}/{name}" if done else name, rest)


def copy_with_parents(copier: Copier, pattern: str, dest: str) -> int:
    """Copy all matches; how many there were. A path without wildcards has to be there."""
    before, after = split_pivot(pattern)
    literal = not any(has_wildcard(part) for part in [*before, *after])
    top = dest.strip("/")
    count = 0
    copier.make_dirs(top)
    for base in expand(copier.source, "", before):
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
        place = copier.target.resolve(f"{place}/{part}" if place else part)
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
