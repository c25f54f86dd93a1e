"""`kpy keygen`: a pair of keys for signing. The making is `kpy.app.keys`."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from kpy.app.keys import Ask
from kpy.app.options import Environment
from kpy.cli.flags import Flag, parse, usage
from kpy.cli.interrupt import raised
from kpy.cli.progress import PlainProgress
from kpy.cli.terminal import Terminal
from kpy.errors import UsageError
from kpy.events import Reporter

_FLAGS = (Flag("output-key-prefix", "value", "write PREFIX.key and PREFIX.pub (default: kpy)", "", "PREFIX"),)

HELP = f"""\
usage: kpy keygen [flags]

Make a private key for `kpy build --sign-key` and the public key for `kpy verify --key`. Nothing is overwritten.

The private key is encrypted with a password: that in KPY_KEY_PASSWORD, or in COSIGN_PASSWORD; else it is asked for on a
terminal. Without a terminal one of the two must be set. One that is set but empty is taken, with a warning: then whoever
can read the file can sign. `kpy build --sign-key` reads the password from the same variables.

{usage(_FLAGS)}
"""

Keygen: TypeAlias = Callable[[str, Environment, Ask | None, Reporter], tuple[str, str]]


def run(argv: Sequence[str], terminal: Terminal, keygen: Keygen | None = None) -> int:
    """Make the keys. Raises KpyError."""
    parsed = parse(_FLAGS, argv, "keygen")
    if parsed.arguments:
        raise UsageError(
            f"kpy keygen takes no arguments, got {parsed.arguments[0]!r}", hint="use --output-key-prefix"
        )
    prefix = parsed.one("output-key-prefix") or "kpy"
    ask = _ask if terminal.stdin_is_terminal else None
    for path in (keygen or _app())(prefix, terminal.environment(), ask, PlainProgress(terminal.stderr)):
        terminal.out(path)
    return 0


def _ask() -> str:
    """The password, typed twice and not shown. Raises UsageError."""
    from getpass import getpass

    try:
        with raised():
            password = getpass("Password for the private key: ")
            if password and getpass("The same again: ") != password:
                raise UsageError("the passwords are not the same", hint="try again")
    except (EOFError, UnicodeDecodeError) as error:
        raise UsageError("no password was typed", hint="set KPY_KEY_PASSWORD") from error
    return password


def _app() -> Keygen:
    from kpy.app.keys import keygen

    return keygen
