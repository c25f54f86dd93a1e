"""`keygen`: a pair of keys in cosign's format."""

from pathlib import Path

from kpy.app.options import Environment
from kpy.signing.keys import PrivateKey, write_pair


def passphrase(environment: Environment) -> bytes:
    """KPY_KEY_PASSWORD, or COSIGN_PASSWORD as cosign reads it; empty when neither is set."""
    variables = environment.variables
    return (variables.get("KPY_KEY_PASSWORD") or variables.get("COSIGN_PASSWORD") or "").encode()


def keygen(prefix: str, environment: Environment) -> tuple[str, str]:
    """Write `prefix.key` and `prefix.pub`; their paths. Raises UsageError if one is there already."""
    base = Path(environment.directory) / prefix
    private, public = base.with_name(base.name + ".key"), base.with_name(base.name + ".pub")
    write_pair(PrivateKey.generate(), private, public, passphrase(environment), force=False)
    return f"{prefix}.key", f"{prefix}.pub"
