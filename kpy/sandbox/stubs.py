"""Stubs: what is made in a root only to be mounted on, and the times of its parents, put back afterwards (R07).

Made by the process that enters the sandbox (so: no heavy imports here), removed by kpy, after the sandbox and its
mounts are gone.
"""

import errno
import os
import stat

from kpy.linux import libc

_PATH = os.O_PATH | os.O_CLOEXEC
_LINKS = 40  # as the kernel (MAXSYMLINKS)


class Stub:
    """A stub, by its path in the root, and its parent's mtime before and after it was made."""

    __slots__ = ("after", "before", "path")

    def __init__(self, path: bytes, before: int, after: int) -> None:
        self.path = path
        self.before = before
        self.after = after


def open_target(root: int, target: bytes, *, directory: bool, made: list[Stub]) -> int:
    """An O_PATH descriptor of what is at `target` as seen in `root` (a descriptor), which no symlink leaves.

    What is missing is made, directories and at the end a directory or an empty file, and appended to `made` if it
    is on the root's own file system and not on another one mounted there.
    """
    todo = _parts(target)
    done: list[bytes] = []
    links = 0
    current = os.open(b".", _PATH | os.O_DIRECTORY, dir_fd=root)
    while todo:
        name = todo.pop()
        try:
            following = libc.open_in_root(root, _join([*done, name]), _PATH)
        except OSError as error:
            if error.errno != errno.ENOENT:
                os.close(current)
                raise
            link = _link(name, current)
            if link is not None:  # a symlink to what is missing: make what it points to
                links += 1
                if links > _LINKS:
                    os.close(current)
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(target)) from error
                done = [] if link.startswith(b"/") else done
                todo += _parts(link)
                os.close(current)
                current = libc.open_in_root(root, _join(done), _PATH | os.O_DIRECTORY)
                continue
            following = _make(root, current, [*done, name], directory=directory or bool(todo), made=made)
        os.close(current)
        current = following
        done.append(name)
    return current


def _make(root: int, parent: int, path: list[bytes], *, directory: bool, made: list[Stub]) -> int:
    before = os.fstat(parent)
    try:
        if directory:
            os.mkdir(path[-1], 0o755, dir_fd=parent)
        else:
            os.close(os.open(path[-1], os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
    except OSError as error:
        # Where it would have been, which links in the path do not say.
        error.filename = real_path(parent) + b"/" + path[-1]
        raise
    if before.st_dev == os.fstat(root).st_dev:
        made.append(Stub(_join(path), before.st_mtime_ns, os.fstat(parent).st_mtime_ns))
    return libc.open_in_root(root, _join(path), _PATH)


def real_path(descriptor: int) -> bytes:
    """Where it is, as this process sees it."""
    return os.readlink(b"/proc/self/fd/%d" % descriptor)


def _link(name: bytes, directory: int) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None


def _parts(path: bytes) -> list[bytes]:
    return [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]


def _join(parts: list[bytes]) -> bytes:
    return b"/" + b"/".join(parts)


def remove(root: int, stubs: list[Stub]) -> None:
    """Remove them, the last made first, unless something is in them by now. A parent gets back the mtime that it had
    before, or if more than stubs were made in it, the one it has now. Never raises for what a RUN did to them."""
    for stub in reversed(stubs):
        directory, _, name = stub.path.rpartition(b"/")
        try:
            parent = libc.open_in_root(root, directory or b"/", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            _remove(parent, name, stub)
        except OSError:
            pass  # not empty, or gone
        finally:
            os.close(parent)


def _remove(parent: int, name: bytes, stub: Stub) -> None:
    times = os.fstat(parent)
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        os.rmdir(name, dir_fd=parent)
    elif stat.S_ISREG(found.st_mode) and found.st_size == 0:
        os.unlink(name, dir_fd=parent)
    else:
        return
    mtime = stub.before if times.st_mtime_ns == stub.after else times.st_mtime_ns
    os.utime(parent, ns=(times.st_atime_ns, mtime))
