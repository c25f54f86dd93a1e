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
    path = os.path.join(environment.directory, os.path.expanduser(spec.src))
    return _content(spec, path, os.O_RDONLY)


def _content(spec: SecretSpec, path: str, flags: int) -> bytes:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            if flags & os.O_NONBLOCK and not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _replaced(spec)
            data = stream.read(MAX_SECRET + 1)
    except OSError as error:
        raise UsageError(f"secret {spec.id}: cannot read {spec.src}: {fs.reason(error)}") from error
    if len(data) > MAX_SECRET:
        raise UsageError(f"secret {spec.id}: {spec.src} is larger than {MAX_SECRET >> 10} KiB")
    return data


def _replaced(spec: SecretSpec) -> UsageError:
    return UsageError(f"secret {spec.id}: {spec.src} is another file now, which a RUN put there")


def _file_reader(spec: SecretSpec, environment: Environment) -> Callable[[], bytes]:
    """Where the root is the RUN's and ours, a RUN may put links and pipes in the place of a secret. So where it leads is found
    now; later it may lead elsewhere below its own directory only, as the links of a Kubernetes volume do."""
    path = os.path.abspath(os.path.join(environment.directory, os.path.expanduser(spec.src)))
    if os.path.exists(path) and not os.path.isfile(path):
        return lambda: read_secret(spec, environment)  # a pipe of the shell, which the user named
    directory, first = os.path.realpath(os.path.dirname(path)), os.path.realpath(path)

    def read() -> bytes:
        now = os.path.realpath(path)
        if os.path.realpath(os.path.dirname(path)) != directory or (now != first and not now.startswith(directory.rstrip("/") + "/")):
            raise _replaced(spec)
        return _content(spec, now, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)

    return read


def secret_readers(specs: Sequence[SecretSpec], environment: Environment) -> dict[str, Callable[[], bytes]]:
    """By id, what reads the value when it is asked for."""

    def reader(spec: SecretSpec) -> Callable[[], bytes]:
        return (lambda: read_secret(spec, environment)) if spec.env else _file_reader(spec, environment)

    return {spec.id: reader(spec) for spec in specs}
