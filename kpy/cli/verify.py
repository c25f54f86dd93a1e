"""`kpy verify`: is this image signed with that key? The answer is `kpy.app.verify`'s."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from kpy.app.options import Environment
from kpy.cli.flags import Flag, parse, usage
from kpy.cli.progress import PlainProgress
from kpy.cli.terminal import Terminal
from kpy.errors import UsageError
from kpy.events import Reporter
from kpy.oci.digest import Digest
from kpy.oci.reference import Reference

_FLAGS = (
    Flag("key", "value", "the public key", "", "FILE"),
    Flag("insecure-registry", "list", "a registry to speak plain HTTP with, HOST[:PORT]", "", "HOST"),
)

HELP = f"""\
usage: kpy verify --key FILE [flags] IMAGE

Check that an image in a registry is signed with the private half of the key. Its digest goes to standard
output; without a good signature the exit code is 10. The key is RSA of 2048 bits or more (with a warning below 3072),
ECDSA on P-256, P-384 or P-521, or Ed25519.

{usage(_FLAGS)}
"""

Verify: TypeAlias = Callable[[Reference, str, tuple[str, ...], Environment, Reporter], Digest]


def run(argv: Sequence[str], terminal: Terminal, verify: Verify | None = None) -> int:
    """Verify. Raises KpyError."""
    parsed = parse(_FLAGS, argv, "verify")
    if len(parsed.arguments) != 1:
        raise UsageError(
            "kpy verify takes exactly one image",
            hint="for example `kpy verify --key kpy.pub registry.example/app:1`",
        )
    if not parsed.one("key"):
        raise UsageError("kpy verify needs --key", hint="the public key, such as --key kpy.pub")
    reference = Reference.parse(parsed.arguments[0])
    digest = (verify or _app())(
        reference, parsed.one("key"), parsed.all("insecure-registry"), terminal.environment(), PlainProgress(terminal.stderr)
    )
    terminal.out(str(digest))
    return 0


def _app() -> Verify:
    from kpy.app.verify import verify

    return verify
