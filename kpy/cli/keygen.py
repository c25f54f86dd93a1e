"""`kpy keygen`: a pair of keys for signing. The making is `kpy.app.keys`."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from kpy.app.options import Environment
from kpy.cli.flags import Flag, parse, usage
from kpy.cli.terminal import Terminal
from kpy.errors import UsageError

_FLAGS = (Flag("output-key-prefix", "value", "write PREFIX.key and PREFIX.pub (default: kpy)", "", "PREFIX"),)

HELP = f"""\
usage: kpy keygen [flags]

Make a private key for `kpy build --sign-key` and the public key for `kpy verify --key`. Nothing is overwritten.

{usage(_FLAGS)}
"""

Keygen: TypeAlias = Callable[[str, Environment], tuple[str, str]]


def run(argv: Sequence[str], terminal: Terminal, keygen: Keygen | None = None) -> int:
    """Make the keys. Raises KpyError."""
    parsed = parse(_FLAGS, argv, "keygen")
    if parsed.arguments:
        raise UsageError(
            f"kpy keygen takes no arguments, got {parsed.arguments[0]!r}", hint="use --output-key-prefix"
        )
    prefix = parsed.one("output-key-prefix") or "kpy"
    for path in (keygen or _app())(prefix, terminal.environment()):
        terminal.out(path)
    return 0


def _app() -> Keygen:
    from kpy.app.keys import keygen

    return keygen
