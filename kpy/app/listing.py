"""`kpy build --call=context`: what is in the contexts of a build, and what .dockerignore keeps out (G10). Nothing is built,
no content is read."""

from contextlib import ExitStack
from dataclasses import dataclass

from kpy.app.inputs import open_inputs
from kpy.app.options import BuildOptions, Environment
from kpy.buildcontext.directory import DirectoryContext
from kpy.buildcontext.leftout import LeftOut, left_out
from kpy.dockerfile.dockerignore import Rule
from kpy.events import Reporter
from kpy.layer.entry import Entry
from kpy.solver.lookup import walk
from kpy.util.cancel import Cancel


@dataclass(frozen=True, slots=True)
class Listing:
    """One context. `name` is "" for the main one; `ignore_file` is the one that holds, "" if there is none; `rules` are
    its lines, whether they match something or not."""

    name: str
    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...] = ()
    ignore_file: str = ""
    rules: tuple[Rule, ...] = ()


def contexts(
    options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel
) -> tuple[Listing, ...]:
    """The main context, and named ones that are directories. Raises KpyError."""
    with ExitStack() as stack:
        sources = open_inputs(options, environment, report, cancel, stack).sources
        found = []
        for name, context in sources.contexts.items():
            entries = tuple(walk(context.files, ""))
            if isinstance(context.files, DirectoryContext):
                ignore = context.files.ignore
                found.append(Listing(name, entries, tuple(left_out(context.files)), ignore.name, ignore.rules))
            else:
                found.append(Listing(name, entries))
        return tuple(found)
