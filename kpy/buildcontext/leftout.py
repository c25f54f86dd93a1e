"""What .dockerignore keeps out of a directory context, and by which of its lines (G10). For people who look for what
makes their context large; a build never asks."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from kpy.buildcontext.directory import DirectoryContext
from kpy.dockerfile.dockerignore import Rule
from kpy.util import paths


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
    todo = [""]
    while todo:
        path = todo.pop()
        if path and context.excluded(path):
            found = _leave(context, path)
            if found is not None:
                yield found
                continue
        if os.path.isdir(_place(context, path)) and not os.path.islink(_place(context, path)):
            todo += sorted((paths.join(path, name) for name in _names(_place(context, path))), reverse=True)


def _leave(context: DirectoryContext, path: str) -> LeftOut | None:
    """None for a directory that is excluded, but in which something is not."""
    place = _place(context, path)
    is_directory = os.path.isdir(place) and not os.path.islink(place)
    if is_directory and context.lookup(path) is not None:
        return None
    rule = context.ignore.decisive(path)
    assert rule is not None
    files, size = 0, 0
    todo = [place]
    while todo:
        here = todo.pop()
        if os.path.isdir(here) and not os.path.islink(here):
            todo += [os.path.join(here, name) for name in _names(here)]
            continue
        try:
            size += os.lstat(here).st_size
        except OSError:
            continue  # it has just gone
        files += 1
    return LeftOut(path, rule, is_directory, files, size)


def _place(context: DirectoryContext, path: str) -> str:
    return os.path.join(context.root, path) if path else context.root


def _names(directory: str) -> list[str]:
    """What is excluded need not be readable."""
    try:
        return os.listdir(directory)
    except OSError:
        return []
