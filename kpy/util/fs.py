"""Files: written whole or not at all, removed safely. Knows nothing of images.

A temporary file is held under flock while somebody writes it, so what a killed process left behind can be told
from what is in use, without clocks or process ids.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO

from kpy.errors import StoreError
from kpy.util import erase
from kpy.util.nesting import TooDeepError

_PREFIX, _SUFFIX = ".kpy-", ".tmp"


@contextmanager
def io_errors(action: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError that says what could not be done to which path."""
    try:
        yield
    except OSError as error:
        raise store_error(action, path, error) from error


def store_error(action: str, path: str | os.PathLike[str], error: OSError) -> StoreError:
    """The StoreError for an OSError: what could not be done to which path, why, and what to do."""
    return StoreError(f"cannot {action} {os.fspath(path)}: {reason(error)}", hint=_hint(error.errno))


def reason(error: OSError) -> str:
    """What the kernel says, in lower case as our messages are."""
    if isinstance(error, TooDeepError):
        return str(error.strerror)
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _hint(number: int | None) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "free some space there, or use another directory (for the store, KPY_HOME names it)"
    if number in (errno.EACCES, errno.EPERM):
        return "check who owns it, or use another directory"
    if number == errno.EROFS:
        return "it is on a read-only file system: use another directory"
    return ""


@contextmanager
def temporary_file(directory: str | os.PathLike[str], *, mode: int = 0o644) -> Iterator[tuple[BinaryIO, str]]:
    """A new file for writing, and its path, in `directory`. At the end of the block it is removed if it still is there.

    To keep it, rename it inside the block.
    """
    stream, path = _create(os.fspath(directory))
    try:
        os.fchmod(stream.fileno(), mode)
        yield stream, path
    finally:
        _unlink_ours(stream, path)
        try:
            stream.close()
        except OSError:
            pass  # a full disk: reported already by who wrote, and the file is gone


def read_regular(descriptor: int, limit: int) -> bytes | None:
    """The beginning of what a descriptor is open on, which is closed; None if that is no regular file. Raises OSError."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:  # not before: a directory is none that it would take
            return file.read(limit)
    finally:
        os.close(descriptor)


def _create(directory: str) -> tuple[BinaryIO, str]:
    while True:
        path = os.path.join(directory, f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return os.fdopen(descriptor, "wb"), path
        except BlockingIOError:
            pass  # remove_stale() was faster than us and is about to unlink it
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                os.close(descriptor)
                raise
            return os.fdopen(descriptor, "wb"), path  # a file system without locks
        os.close(descriptor)


def _unlink_ours(stream: IO[bytes], path: str) -> None:
    try:
        here, ours = os.lstat(path), os.fstat(stream.fileno())
        if (here.st_dev, here.st_ino) == (ours.st_dev, ours.st_ino):
            os.unlink(path)
    except (OSError, ValueError):
        pass


def write_atomic(path: str | os.PathLike[str], data: bytes, *, mode: int = 0o644, durable: bool = False) -> None:
    """Replace the file by `data`: readers see the old content or the new. `durable`: also after a power loss."""
    path = os.fspath(path)
    with temporary_file(os.path.dirname(path) or ".", mode=mode) as (stream, temporary):
        stream.write(data)
        stream.flush()
        if durable:
            os.fsync(stream.fileno())
        os.rename(temporary, path)


def remove_stale(directory: str | os.PathLike[str]) -> int:
    """Remove the temporary files in `directory` that nobody writes any more; says how many."""
    removed = 0
    with os.scandir(directory) as entries:
        names = [e.path for e in entries if e.name.startswith(_PREFIX) and e.name.endswith(_SUFFIX)]
    for path in names:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # gone, or not ours
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
            removed += 1
        except OSError:
            pass  # somebody writes it
        finally:
            os.close(descriptor)
    return removed


def remove_tree(path: str | os.PathLike[str], *, look: Callable[[], None] = lambda: None) -> None:
    """Remove a file, or a directory and all in it, whatever the modes and however deep; follows no symlink. It is no error
    if there is nothing. `look` is called for each file, and may raise."""
    erase.remove(os.fspath(path), look=look)
