"""`keygen`: a pair of keys in cosign's format. And the password of private keys, as the environment gives it."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from kpy.app.options import Environment
from kpy.errors import UsageError
from kpy.events import Reporter, Warned
from kpy.signing.keys import PrivateKey, refuse_existing, write_pair

Ask: TypeAlias = Callable[[], str]
_NAMES = ("KPY_KEY_PASSWORD", "COSIGN_PASSWORD")


def passphrase(environment: Environment) -> bytes:
    """KPY_KEY_PASSWORD, or COSIGN_PASSWORD as cosign reads it; empty when neither is set."""
    return _given(environment)[1] or b""


def _given(environment: Environment) -> tuple[str, bytes | None]:
    """Which variable has the password, and the password; None when neither is set. One that is empty comes last."""
    found = [(name, environment.variables[name]) for name in _NAMES if name in environment.variables]
    for name, text in (*(pair for pair in found if pair[1]), *found):
        return name, text.encode("utf-8", "surrogateescape")
    return "", None


def keygen(prefix: str, environment: Environment, ask: Ask | None, report: Reporter) -> tuple[str, str]:
    """Write `prefix.key` and `prefix.pub`; their paths. Raises UsageError if one is there already, or without a password.

    `ask` gives the password when the environment does not; None: nobody is there.
    """
    base = Path(environment.directory) / prefix
    private, public = base.with_name(base.name + ".key"), base.with_name(base.name + ".pub")
    refuse_existing(private, public)
    name, password = _given(environment)
    if password is None:
        if ask is None:
            raise UsageError(
                "the private key needs a password", hint=f"set {' or '.join(_NAMES)}, or run kpy keygen on a terminal"
            )
        password = ask().encode("utf-8", "surrogateescape")
    if not password:
        if not name:
            raise UsageError("the password is empty", hint=f"if that is meant, set {_NAMES[0]} to nothing")
        report(Warned(f"{name} is empty: whoever can read {prefix}.key can sign with it"))
    write_pair(PrivateKey.generate(), private, public, password, force=False)
    return f"{prefix}.key", f"{prefix}.pub"
