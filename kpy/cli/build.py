"""`kpy build`: options in, digest out. The build itself is `kpy.app.build`."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from kpy.app.options import BuildOptions, Environment
from kpy.cli.flags import usage
from kpy.cli.options import BUILD_FLAGS, read
from kpy.cli.record import recorded
from kpy.cli.terminal import Terminal
from kpy.cli.working import work
from kpy.events import Reporter
from kpy.oci.digest import Digest
from kpy.util.cancel import Cancel

HELP = f"""\
usage: kpy build [flags] CONTEXT

Build an image from a Dockerfile. CONTEXT is a directory, the URL of a git repository (URL#REF:SUBDIRECTORY), of an
archive or of a Dockerfile (https:, s3:, gs:, azblob:), or - for an archive or a Dockerfile on standard input.
The digest of the image goes to standard output, everything else to standard error.

{usage(BUILD_FLAGS)}
"""


class BuiltImage(Protocol):
    """What the command line needs of `kpy.app.build.Built`."""

    @property
    def digest(self) -> Digest | None:
        """The manifest's or index's; None when no image was asked for."""
        ...


Build: TypeAlias = Callable[[BuildOptions, Environment, Reporter, Cancel], BuiltImage]
BuildThen: TypeAlias = Callable[[BuildOptions, Environment, Reporter, Cancel, Callable[[BuiltImage], None]], BuiltImage]
"""See `done` of `kpy.app.build.build`."""


def run(argv: Sequence[str], terminal: Terminal, build: Build | None = None) -> int:
    """Build. Raises KpyError."""
    options, mode = read(argv, terminal)
    if options.call.name == "context":
        from kpy.cli import listing

        return listing.answer(options, mode, terminal)
    if options.call.name != "build":
        from kpy.cli.check import answer

        return answer(options, mode, terminal)
    make = build or builder()
    with recorded(options, terminal.directory) as record:
        built = work(mode, terminal, lambda report, cancel: make(options, terminal.environment(), report, cancel), record)
    if built.digest is not None:
        to_stdout = any(output.dest == "-" for output in options.outputs)
        (terminal.err if to_stdout else terminal.out)(str(built.digest))
    return 0


class Builder(Protocol):
    """A Build, and a BuildThen."""

    def __call__(
        self, options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel, done: Callable[[Any], None] | None = None, /
    ) -> BuiltImage:
        """See `kpy.app.build.build`."""
        ...


def builder() -> Builder:
    """The build itself, imported when it is wanted."""
    from kpy.app.build import build

    return build
