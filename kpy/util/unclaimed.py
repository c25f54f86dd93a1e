"""Names that nobody has, in directories that hostile code wrote or writes: at random, and others while somebody has them."""

import errno
import os
import secrets

TYPE_CHECKING = False  # as mypy knows it; importing typing takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Callable

_TRIES = 100
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR})


def take(attempt: "Callable[[bytes], None]", prefix: bytes = b".kpy-") -> bytes:
    """Have `attempt` make something at a new name, or move it there; the name. Raises what `attempt` raises, and OSError
    (EBUSY) if all names were taken, by whoever sees them before we use them."""
    for _ in range(_TRIES):
        name = prefix + secrets.token_hex(8).encode()
        try:
            attempt(name)
            return name
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.fsdecode(prefix))
