"""Values of --secret, read when a RUN asks for them and not before."""

import os
from collections.abc import Callable, Sequence

from kpy.app.options import Environment, SecretSpec
from kpy.errors import UsageError
from kpy.util import fs

MAX_SECRET = 500 << 10  # BuildKit's limit


def read_secret(spec: SecretSpec, environment: Environment) -> bytes:
    """The value. Raises UsageError that names the secret and where it should be, never what it is."""
    if spec.env:
        value = environment.variables.get(spec.env)
        if value is None:
            raise UsageError(f"secret {spec.id}: the environment variable {spec.env} is not set")
        return value.encode("utf-8", "surrogateescape")
    path = os.path.join(environment.directory, os.path.expanduser(spec.src))
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_SECRET + 1)
    except OSError as error:
        raise UsageError(f"secret {spec.id}: cannot read {spec.src}: {fs.reason(error)}") from error
    if len(data) > MAX_SECRET:
        raise UsageError(f"secret {spec.id}: {spec.src} is larger than {MAX_SECRET >> 10} KiB")
    return data


def secret_readers(specs: Sequence[SecretSpec], environment: Environment) -> dict[str, Callable[[], bytes]]:
    """By id, what reads the value when it is asked for."""

    def reader(spec: SecretSpec) -> Callable[[], bytes]:
        return lambda: read_secret(spec, environment)

    return {spec.id: reader(spec) for spec in specs}
