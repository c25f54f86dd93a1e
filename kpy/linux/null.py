"""/dev/null, and nothing else. In a live root whose /dev is the RUN's too, a RUN may have put a link there: what is opened by
that name would be its standard input, or where our output goes."""

import contextlib
import os
import stat
from collections.abc import Iterator

from kpy.errors import SandboxError

_NULL = os.makedev(1, 3)  # Documentation/admin-guide/devices.txt


@contextlib.contextmanager
def null() -> Iterator[int]:
    """A descriptor of it, for reading and writing, while the block runs. Raises SandboxError if something else is there."""
    try:
        descriptor = os.open("/dev/null", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _replaced(error.strerror or "") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _NULL:
            raise _replaced("it is another file")
        yield descriptor
    finally:
        os.close(descriptor)


def _replaced(why: str) -> SandboxError:
    return SandboxError(
        f"/dev/null of this container cannot be used: {why.lower()}", hint="a RUN has replaced it: start the build in a fresh container"
    )
