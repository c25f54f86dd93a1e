"""`kpy images`: what the local store has names for. The looking is `kpy.app.images`."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from kpy.app.options import Environment, StoredImage
from kpy.cli.failure import in_line
from kpy.cli.flags import Flag, parse, usage
from kpy.cli.progress import human
from kpy.cli.terminal import Terminal
from kpy.errors import UsageError

_FLAGS = (Flag("quiet", "switch", "print digests only", "q"),)

HELP = f"""\
usage: kpy images [flags]

List the images in the local store: name, digest, size, platforms.

{usage(_FLAGS)}
"""

ListImages: TypeAlias = Callable[[Environment], Sequence[StoredImage]]


def run(argv: Sequence[str], terminal: Terminal, list_images: ListImages | None = None) -> int:
    """List. Raises KpyError."""
    parsed = parse(_FLAGS, argv, "images")
    if parsed.arguments:
        raise UsageError(f"kpy images takes no arguments, got {parsed.arguments[0]!r}")
    images = (list_images or _app())(terminal.environment())
    if parsed.on("quiet"):
        for image in images:
            terminal.out(str(image.digest))
        return 0
    rows = [("NAME", "DIGEST", "SIZE", "PLATFORMS")]
    for image in images:
        platforms = ",".join(str(platform) for platform in image.platforms)
        rows.append((in_line(image.name), str(image.digest), human(image.size), platforms))
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(3)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        terminal.out(("".join(cells) + row[3]).rstrip())
    return 0


def _app() -> ListImages:
    from kpy.app.images import list_images

    return list_images
