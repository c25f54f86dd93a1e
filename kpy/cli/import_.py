"""`kpy import`: a tar of a root file system becomes an image in the local store. The work is `kpy.app.images`."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from kpy.app.options import Environment
from kpy.cli import values
from kpy.cli.flags import Flag, parse, usage
from kpy.cli.options import progress_mode
from kpy.cli.terminal import Terminal
from kpy.cli.working import work
from kpy.errors import UsageError
from kpy.events import Reporter
from kpy.oci.digest import Digest
from kpy.oci.platform import Platform
from kpy.oci.reference import Reference
from kpy.util.cancel import Cancel

_FLAGS = (
    Flag("platform", "value", "the platform of the files (default: this machine's)", "", "PLATFORM"),
    Flag("progress", "value", "auto, plain, tty, quiet, rawjson or none", "", "MODE"),
    Flag("quiet", "switch", "print the digest only", "q"),
)

HELP = f"""\
usage: kpy import [flags] TAR NAME[:TAG]

Make an image of one layer from a tar of a root file system (- is standard input; it may be compressed).
Dockerfiles find it by its name, before any registry is asked.

{usage(_FLAGS)}
"""

Import: TypeAlias = Callable[[str, Reference, Platform | None, Environment, Reporter, Cancel], Digest]


def run(argv: Sequence[str], terminal: Terminal, import_image: Import | None = None) -> int:
    """Import. Raises KpyError."""
    parsed = parse(_FLAGS, argv, "import")
    if len(parsed.arguments) != 2:
        raise UsageError(
            "kpy import takes a tar and a name", hint="for example `kpy import rootfs.tar base:1`"
        )
    source, name = parsed.arguments
    reference = Reference.parse(values.tags([name])[0])
    platforms = values.platforms(parsed.all("platform"))
    if len(platforms) > 1:
        raise UsageError("the files of one tar are for one platform", hint="give --platform once")
    mode = progress_mode(parsed, terminal.variables)
    platform = platforms[0] if platforms else None
    make = import_image or _app()
    digest = work(mode, terminal, lambda report, cancel: make(source, reference, platform, terminal.environment(), report, cancel))
    terminal.out(str(digest))
    return 0


def _app() -> Import:
    from kpy.app.images import import_image

    return import_image
