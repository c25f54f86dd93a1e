"""Keyrings (keyrings(7)): the keys that a process possesses, and leaving those of who started it. Knows no policy."""

import errno

from kpy.linux import libc
from kpy.linux.syscalls import Arch

_GET_KEYRING_ID, _JOIN_SESSION_KEYRING = 0, 1
_SESSION_KEYRING = -3


def leave(arch: Arch) -> None:
    """Have a new, empty session keyring, with all that comes of this process; the one that it was started with is not
    theirs any more. Nothing to do where there are no keys: a kernel without, or a filter that forbids keyctl, to those who
    come of us too. Raises OSError, EDQUOT say."""
    try:
        _keyctl(arch, _JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM) or _may_ask(arch, error.errno):
            raise


def _may_ask(arch: Arch, refused: int) -> bool:
    """Is it the one operation that is refused, and not the whole call?"""
    try:
        _keyctl(arch, _GET_KEYRING_ID, _SESSION_KEYRING)
    except OSError as error:
        return error.errno != refused
    return True


def _keyctl(arch: Arch, operation: int, argument: int | None) -> None:
    libc.syscall(arch.numbers["keyctl"], "keyctl", operation, argument, 0)
