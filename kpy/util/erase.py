"""Removing trees that hostile code wrote: by directory descriptors, never through a symlink, never across what is
to be kept, at any depth. Refuses to decide what is to be kept."""

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from kpy.util import unclaimed
from kpy.util.checkpoint import hurried

_GETFLAGS, _SETFLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS (linux/fs.h, 64 bit)
_LOCKED = 0x10 | 0x20  # FS_IMMUTABLE_FL | FS_APPEND_FL
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 100  # descriptors held at once; what is deeper is first moved up


class LeftError(Exception):
    """Somebody waits for the end of this process, and not all is removed: the next one will."""


def in_time(seconds: float = 0.3) -> Callable[[], None]:
    """For removing what the next build would remove as well: raises LeftError after so long if somebody waits for our end."""
    limit = time.monotonic() + seconds

    def enough() -> None:
        if hurried() and time.monotonic() > limit:
            raise LeftError

    return enough


def ancestors(paths: AbstractSet[bytes]) -> frozenset[bytes]:
    """Every directory above one of the relative paths, without the root."""
    found = set()
    for path in paths:
        while b"/" in path:
            path = path.rpartition(b"/")[0]
            found.add(path)
    return frozenset(found)


def empty(
    root: str | int, keep: AbstractSet[bytes] = frozenset(), *, look: Callable[[], None] = lambda: None
) -> list[bytes]:
    """Remove everything below `root`, a path or an open directory, but the relative paths in `keep`, what is below them, and their parents.

    Parents that stay become plain: 0:0 where we may say so, mode 0755. Returns what could not be removed (busy,
    or in a place that we may not write to), but for directories that are empty now. `look` is called for each file, and may raise.
    """
    above = ancestors(keep)
    stuck: list[bytes] = []

    def clear(directory: int, path: bytes) -> None:
        for name in map(os.fsencode, os.listdir(directory)):
            look()
            inner = path + b"/" + name if path else name
            if inner in keep:
                continue
            if inner in above:
                try:
                    child = _open(name, directory)
                except OSError as error:
                    if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                        raise
                    continue  # a file or symlink on the way to a mount point: the mount was made through it
                try:
                    clear(child, inner)
                    _plain(child)
                finally:
                    os.close(child)
            else:
                try:
                    remove(name, directory, look=look)
                except OSError as error:
                    if error.errno not in {errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS}:
                        raise
                    if not _is_empty(name, directory):
                        stuck.append(inner)

    top = os.open(root, _OPEN) if isinstance(root, str) else os.open(".", _OPEN, dir_fd=root)
    try:
        clear(top, b"")
    finally:
        os.close(top)
    return stuck


def remove(name: bytes | str, directory: int | None = None, *, look: Callable[[], None] = lambda: None) -> None:
    """Remove a file or a whole tree, relative to a directory descriptor. Missing is fine. `look` is called for each file, and
    may raise. Raises OSError."""
    try:
        _unlink(name, directory)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in {errno.EISDIR, errno.EPERM}:  # EPERM: POSIX's word for unlink of a directory
            raise
        refused = error
    try:
        top = _open(name, directory)
    except OSError:
        raise refused from None
    try:
        _empty_all(top, look)
    finally:
        os.close(top)
    _rmdir(name, directory)


def _is_empty(name: bytes, directory: int) -> bool:
    try:
        inner = os.open(name, _OPEN, dir_fd=directory)
    except OSError:
        return False
    try:
        return not os.listdir(inner)
    finally:
        os.close(inner)


def _empty_all(top: int, look: Callable[[], None]) -> None:
    """Empty a directory without recursion."""
    stack: list[tuple[int, list[bytes]]] = [(top, [os.fsencode(name) for name in os.listdir(top)])]
    names: list[bytes] = [b""]
    try:
        while stack:
            look()
            current, todo = stack[-1]
            if not todo:
                stack.pop()
                name = names.pop()
                if stack:
                    os.close(current)
                    _rmdir(name, stack[-1][0])
                continue
            name = todo.pop()
            try:
                _unlink(name, current)
                continue
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in {errno.EISDIR, errno.EPERM}:
                    raise
                refused = error
            if len(stack) > _DEEPEST:
                # A chain of directories deeper than descriptors reach: move its rest to the top and go on there.
                stack[0][1].append(_shelve(name, current, top))
                continue
            try:
                child = _open(name, current)
            except OSError:
                raise refused from None
            stack.append((child, [os.fsencode(inner) for inner in os.listdir(child)]))
            names.append(name)
    finally:
        for descriptor, _ in stack[1:]:
            os.close(descriptor)


def _shelve(name: bytes, directory: int, top: int) -> bytes:
    """Move a directory into `top`, to a name that nothing has there; the name."""
    return unclaimed.take(lambda shelf: _move_up(name, directory, shelf, top))


def _move_up(name: bytes, directory: int, shelf: bytes, top: int) -> None:
    try:
        os.rename(name, shelf, src_dir_fd=directory, dst_dir_fd=top)
    except PermissionError:
        _unlock(name, directory)
        _admit(name, directory)  # to move a directory is to write its `..`
        os.rename(name, shelf, src_dir_fd=directory, dst_dir_fd=top)


def _open(name: bytes | str, directory: int | None) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=directory)
    except PermissionError:
        _admit(name, directory)
        return os.open(name, _OPEN, dir_fd=directory)


def _admit(name: bytes | str, directory: int | None) -> None:
    """Only who is not root gets here: a directory without u+rwx. By a descriptor, for chmod would follow a link."""
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.chmod(b"/proc/self/fd/%d" % place, 0o700)
    finally:
        os.close(place)


def _unlink(name: bytes | str, directory: int | None) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except PermissionError:
        if not _unlock(name, directory):
            raise
        os.unlink(name, dir_fd=directory)


def _rmdir(name: bytes | str, directory: int | None) -> None:
    try:
        os.rmdir(name, dir_fd=directory)
    except PermissionError:
        if not _unlock(name, directory):
            raise
        os.rmdir(name, dir_fd=directory)


def _unlock(name: bytes | str, directory: int | None) -> bool:
    """Best effort against what refuses to go: `chattr +i` on it or its directory, a directory without u+w."""
    done = False
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for target in (name, b"."):
        try:
            descriptor = os.open(target, flags, dir_fd=directory)
        except OSError:
            continue
        try:
            current = struct.unpack("i", fcntl.ioctl(descriptor, _GETFLAGS, bytes(4)))[0]
            if current & _LOCKED:
                fcntl.ioctl(descriptor, _SETFLAGS, struct.pack("i", current & ~_LOCKED))
                done = True
        except OSError:
            pass
        if target == b".":
            try:
                mode = os.fstat(descriptor).st_mode
                if mode & 0o300 != 0o300:
                    os.fchmod(descriptor, (mode & 0o7777) | 0o700)
                    done = True
            except OSError:
                pass
        os.close(descriptor)
    return done


def _plain(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        for name in os.listxattr(descriptor):
            os.removexattr(descriptor, name)
    with contextlib.suppress(OSError):
        os.fchown(descriptor, 0, 0)
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, 0o755)
