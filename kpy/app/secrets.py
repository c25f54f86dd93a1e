"""Values of --secret, read when a RUN asks for them and not before."""

import os
import stat
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
    return _content(spec, _path(spec, environment))


def _path(spec: SecretSpec, environment: Environment) -> str:
    return os.path.realpath(os.path.join(environment.directory, os.path.expanduser(spec.src)))


def _content(spec: SecretSpec, path: str, *, may_wait: bool = True) -> bytes:
    """What is at a path without links. `may_wait`: it may be a pipe, which the user named."""
    try:
        now = os.path.realpath(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if may_wait else os.O_NOFOLLOW | os.O_NONBLOCK))
        with open(descriptor, "rb") as stream:
            if not may_wait and (now != path or not stat.S_ISREG(os.fstat(descriptor).st_mode)):
                raise UsageError(f"secret {spec.id}: {spec.src} is another file now, which a RUN put there")
            data = stream.read(MAX_SECRET + 1)
    except OSError as error:
        raise UsageError(f"secret {spec.id}: cannot read {spec.src}: {fs.reason(error)}") from error
    if len(data) > MAX_SECRET:
        raise UsageError(f"secret {spec.id}: {spec.src} is larger than {MAX_SECRET >> 10} KiB")
    return data


def secret_readers(specs: Sequence[SecretSpec], environment: Environment) -> dict[str, Callable[[], bytes]]:
    """By id, what reads the value when it is asked for."""

    def reader(spec: SecretSpec) -> Callable[[], bytes]:
        if spec.env:
            return lambda: read_secret(spec, environment)
        # Where the path leads is found now. Where the root is the RUN's and ours, a RUN may put links and pipes there.
        path = _path(spec, environment)
        special = os.path.exists(path) and not os.path.isfile(path)
        return lambda: _content(spec, path, may_wait=special)

    return {spec.id: reader(spec) for spec in specs}
