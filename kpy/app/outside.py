"""Results that are written into a context: whoever made the context made the links in it, and no link may choose another
place. Links outside of contexts are the user's, and are followed.
"""

import os
from collections.abc import Iterable, Iterator

from kpy.app.options import BuildOptions
from kpy.errors import UsageError

LAYOUT = ("blobs", "blobs/sha256", "index.json", "index.json.lock", "oci-layout")
"""What is written to in a directory that is an image layout."""


def check_output(name: str, options: BuildOptions, directory: str, *, replaced: bool, inside: Iterable[str] = ()) -> None:
    """Raise UsageError if a link on the way to `name`, or at it unless it is `replaced`, lies in a context; also if one of the
    paths `inside` does."""
    path = os.path.normpath(os.path.join(directory, name))
    top, below = _split(path, frozenset(_contexts(options, directory)))
    if below is None:
        return
    for inner in ("", *inside):
        parts = [part for part in f"{below}/{inner}".split("/") if part]
        for count in range(1, len(parts) + (0 if replaced and not inner else 1)):
            here = "/".join(parts[:count])
            place = os.path.join(top, here)
            if os.path.islink(place):
                raise UsageError(
                    f"cannot write {name}: {here} is a link in the build context, to {os.readlink(place)}",
                    hint="links in a context are not followed for results: remove it, or name the place itself",
                )


def _contexts(options: BuildOptions, directory: str) -> Iterator[str]:
    """The directories that are contexts."""
    for value in (options.context, *(value for _, value in options.build_contexts)):
        path = os.path.join(directory, value)
        if value and os.path.isdir(path):
            yield os.path.realpath(path)


def _split(path: str, contexts: frozenset[str]) -> tuple[str, str | None]:
    """The first directory of a path that is a context, or in one, and what is below; None if there is none."""
    parts = [part for part in path.split("/") if part]
    for count in range(len(parts) + 1):
        real = os.path.realpath("/" + "/".join(parts[:count]))
        if any(real == context or real.startswith(f"{context.rstrip('/')}/") for context in contexts):
            return real, "/".join(parts[count:])
    return "", None
