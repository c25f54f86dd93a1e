"""Files below a directory that hostile code wrote, by descriptors: no symbolic link is followed, on any component.

A path in a root that a RUN could change is a claim, not a place: any of its components may have become a link to the
builder's own files. Here every path is resolved below a descriptor that was opened before, by openat2(2) with
RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, or component by component where a seccomp profile does not know that call.
"""

import errno
import os
import stat

from kpy.linux import libc
from kpy.util.checkpoint import checked
from kpy.util.nesting import Paths

TYPE_CHECKING = False  # as mypy knows it; importing typing takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

At = tuple[int, bytes]
"""The descriptor of a directory and a name in it; `.` is the directory itself."""

STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS
_LONGEST = 4000  # bytes of a path for one call: PATH_MAX is 4096
_NO_OPENAT2 = frozenset({errno.ENOSYS, errno.EPERM})  # EPERM: how old seccomp profiles refuse calls they do not know


def open_beneath(root: int, path: bytes, flags: int) -> int:
    """Open a relative path below the directory `root`; the descriptor is close-on-exec.

    Raises OSError: ELOOP or ENOTDIR where a component is a symbolic link, EXDEV for a `..` that leaves the root.
    """
    if len(path) <= _LONGEST:
        return _open(root, path or b".", flags)
    held = root
    try:
        for piece in _pieces(path):
            following = _open(held, piece, STEP)
            if held != root:
                os.close(held)
            held = following
        return _open(held, path.rpartition(b"/")[2], flags)
    finally:
        if held != root:
            os.close(held)


def _pieces(path: bytes) -> "Iterator[bytes]":
    """The path of the directory that holds the last component, in parts that are each short enough."""
    piece: list[bytes] = []
    size = 0
    for part in path.split(b"/")[:-1]:
        if size + len(part) > _LONGEST:
            yield b"/".join(piece)
            piece, size = [], 0
        piece.append(part)
        size += len(part) + 1
    yield b"/".join(piece) or b"."


def _open(root: int, path: bytes, flags: int) -> int:
    try:
        return libc.openat2(root, path, flags, _RESOLVE)
    except OSError as error:
        if error.errno not in _NO_OPENAT2:
            raise
    return step_by_step(root, path, flags)


def step_by_step(root: int, path: bytes, flags: int) -> int:
    """What `open_beneath` does, without openat2(2)."""
    *above, name = [part for part in path.split(b"/") if part] or [b"."]
    if b".." in (*above, name):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), os.fsdecode(path))
    held = root
    try:
        for part in above:
            following = os.open(part, STEP, dir_fd=held)
            if held != root:
                os.close(held)
            held = following
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held)
    finally:
        if held != root:
            os.close(held)


def open_source(base: bytes, path: bytes, flags: int) -> int:
    """Open an absolute path whose beginning `base` is trusted: the rest is somebody else's, and no link in it is followed.
    The base alone may be meant. Raises OSError."""
    if path != base and not path.startswith(base.rstrip(b"/") + b"/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), os.fsdecode(path))
    top = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if path != base else -1
    if top < 0:
        return os.open(base, flags | os.O_CLOEXEC)
    try:
        return open_beneath(top, path[len(base) :].strip(b"/"), flags)
    finally:
        os.close(top)


def link_path(at: At) -> bytes:
    """The same as a path, for calls that take no descriptor of a directory: the kernel goes to the directory itself, and
    not by its name. Use it with calls that do not follow a link at the end."""
    return b"/proc/self/fd/%d/%s" % at


def status(at: At) -> os.stat_result | None:
    """lstat(2); None if there is nothing. Raises OSError."""
    try:
        return os.stat(at[1], dir_fd=at[0], follow_symlinks=False)
    except FileNotFoundError:
        return None


def is_directory(found: os.stat_result | None) -> bool:
    """Is there a real directory?"""
    return found is not None and stat.S_ISDIR(found.st_mode)


def names(directory: int) -> list[bytes]:
    """What is in an open directory, sorted. Raises OSError."""
    return sorted(map(os.fsencode, os.listdir(directory)))


class Beneath:
    """A tree below a directory, held open. Use in a `with`, from one thread.

    `top` is the path of the directory, which nobody hostile can have changed, or a descriptor of it, which stays the
    caller's. `slots` are directories of the tree that are elsewhere, by their names in `top`; their paths are trusted too.
    """

    def __init__(self, top: str | bytes | int, slots: "Mapping[bytes, bytes] | None" = None) -> None:
        self._close: list[int] = []
        self._slots: dict[bytes, int] = {}
        self._last: tuple[bytes, int] | None = None
        try:
            if isinstance(top, int):
                self.top = top
            else:
                self.top = self._hold(os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            for name, path in (slots or {}).items():
                self._slots[name] = self._hold(os.open(path, STEP))
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _hold(self, descriptor: int) -> int:
        self._close.append(descriptor)
        return descriptor

    def __enter__(self) -> "Beneath":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self._forget()
        for descriptor in self._close:
            os.close(descriptor)
        self._close = []

    def _forget(self) -> None:
        if self._last is not None:
            os.close(self._last[1])
            self._last = None

    def _base(self, path: bytes) -> At:
        if self._slots:
            name, _, rest = path.partition(b"/")
            slot = self._slots.get(name)
            if slot is not None:
                return slot, rest
        return self.top, path

    def open(self, path: bytes, flags: int) -> int:
        """A descriptor of what is at a relative path, for the caller to close. Raises OSError."""
        return open_beneath(*self._base(path), flags)

    def at(self, path: bytes) -> At:
        """The directory of a relative path, and the name in it. Valid until the next path is asked for. Raises OSError."""
        base, rest = self._base(path)
        if not rest:
            return base, b"."
        above, _, name = rest.rpartition(b"/")
        if not above:
            return base, name
        directory = path[: len(path) - len(name) - 1]
        if self._last is None or self._last[0] != directory:
            self._forget()
            self._last = directory, open_beneath(base, above, STEP)
        return self._last[1], name

    def directories(self) -> "Iterator[tuple[bytes, int, list[tuple[bytes, os.stat_result]]]]":
        """Each real directory of the tree, before those in it: its relative path, a descriptor that is closed when the next
        one is asked for, and the names in it with their status, sorted. Raises OSError, TooDeepError."""
        paths = Paths()
        pending = [b""]
        while pending:
            path = pending.pop()
            directory = self.open(path, LIST)
            try:
                found = [(name, os.stat(name, dir_fd=directory, follow_symlinks=False)) for name in checked(names(directory))]
                yield path, directory, found
            finally:
                os.close(directory)
            pending += [paths.add(join(path, name)) for name, entry in reversed(found) if stat.S_ISDIR(entry.st_mode)]


def join(directory: bytes, name: bytes) -> bytes:
    """The path of a name in a directory of the tree."""
    return directory + b"/" + name if directory else name
