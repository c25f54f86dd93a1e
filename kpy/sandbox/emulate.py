"""Mounts where nothing can be mounted: content is put at the target before RUN and taken away after it, and what was
there is moved aside meanwhile.

What differs from real mounts, for the manual: a read-only bind can be written to, which is dropped after, with a warning; `rename`
and `link` between the mount and the rest work (a real mount says EXDEV); a tmpfs has no size limit and is on the disk
of the container, and so is a secret while the RUN lasts; a file that the RUN moves out of a mount stays in the layer.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from kpy.errors import SandboxError
from kpy.linux import libc
from kpy.linux.birth import identify
from kpy.linux.ledger import Ledger, Record, physical
from kpy.sandbox.base import Mount
from kpy.sandbox.carry import brought, carrying
from kpy.sandbox.slotmounts import filled, is_slot
from kpy.util.copytree import copy
from kpy.util.erase import empty, remove
from kpy.util.fs import read_regular

_LINKS = 40  # as the kernel (MAXSYMLINKS)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where things are moved aside: a directory that no RUN may enter, in no layer. `root` is the RUN's root. With a
    `ledger`, root is emulated there, and owners that only root can give are written into it."""

    root: str
    directory: str
    ledger: Ledger | None = None


def resolve(root: str, target: str) -> str:
    """The path of `target` on this side: symlinks followed inside `root`, never out of it. What is missing is taken
    as it stands. No process may be changing the root meanwhile."""
    todo = [part for part in reversed(target.split("/")) if part]
    done: list[str] = []
    links = 0
    base = root.rstrip("/")
    while todo:
        part = todo.pop()
        if part == ".":
            continue
        if part == "..":
            del done[-1:]
            continue
        try:
            link = os.readlink("/".join((base, *done, part)))
        except OSError:
            done.append(part)
            continue
        links += 1
        if links > _LINKS:
            raise SandboxError(f"the mount target {target} has too many symlinks", errno=errno.ELOOP)
        if link.startswith("/"):
            done.clear()
        todo += [part for part in reversed(link.split("/")) if part]
    return "/".join((base, *done)) or "/"


@contextmanager
def mounted(mounts: Sequence[Mount], shelf: Shelf, warn: Callable[[bytes], None]) -> Iterator[None]:
    """Have the mounts in place while the block runs, in their order, and afterwards everything as it was.

    `warn` gets a line for each read-only mount that was written to: a real one would have refused.
    """
    os.makedirs(shelf.directory, mode=0o700, exist_ok=True)
    notes = [_Written(mount, shelf.root, mounts) for mount in mounts]
    with ExitStack() as stack:
        stack.enter_context(brought(mounts, shelf.ledger))
        for number, mount in enumerate(mounts):
            try:
                stack.enter_context(_one(mount, shelf, number, notes[number].add))
            except OSError as error:
                hint = "mount an emptyDir there, or use a directory that this container has" if shelf.ledger is not None else ""
                raise SandboxError(
                    f"cannot put a mount at {mount.target}: {error.strerror or error}", errno=error.errno or 0, hint=hint
                ) from error
        yield
    for note in notes:
        if note.line:
            warn(note.line)


class _Written:
    """What was written in a read-only mount, for a line to the user: the deepest of the first such paths."""

    def __init__(self, mount: Mount, root: str, mounts: Sequence[Mount]) -> None:
        self._shown = os.fsencode(mount.target)
        self._root = root
        self._others = [other.target for other in mounts if other is not mount]
        self._path = ""

    def add(self, path: str) -> None:
        """A path changed; not if we did it, putting another mount there."""
        for other in self._others:
            target = resolve(self._root, other)
            if _is_in(target, path) or _is_in(path, target):
                return
        if not self._path or _is_in(path, self._path):
            self._path = path

    @property
    def line(self) -> bytes:
        """Empty if there is nothing to say."""
        if not self._path:
            return b""
        inside = os.fsencode(self._path[len(self._root.rstrip("/")) :])
        return (
            b"kpy: warning: %s was written, in the read-only mount %s. It is dropped; "
            b"where kpy can mount, the write fails\n" % (inside, self._shown)
        )


def _is_in(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


@contextmanager
def _one(mount: Mount, shelf: Shelf, number: int, written: Callable[[str], None]) -> Iterator[None]:
    target = resolve(shelf.root, mount.target)
    if target == (shelf.root.rstrip("/") or "/"):
        raise SandboxError("nothing can be mounted at /")
    if shelf.ledger is not None and is_slot(target, shelf.ledger):
        with filled(mount, target, os.path.join(shelf.directory, f"aside-{os.getpid()}-{number}"), shelf.ledger):
            yield
        return
    place = _Place(target, os.path.join(shelf.directory, f"aside-{os.getpid()}-{number}"))
    try:
        place.clear()
    except OSError as error:
        place.give_up()
        if error.errno == errno.EBUSY and mount.kind == "file" and _holds(target, mount.data):
            yield  # the container mounts the very secret where the RUN wants it
            return
        raise
    try:
        leave = _put(mount, target, place.old, shelf.ledger, written)
    except BaseException:
        place.restore()
        raise
    place.ready()
    try:
        yield
    finally:
        place.done()
        try:
            leave()
        finally:
            place.restore()


def _put(
    mount: Mount, target: str, old: os.stat_result | None, ledger: Ledger | None, written: Callable[[str], None]
) -> Callable[[], None]:
    """Make the target. Returns what takes away more than the target itself."""
    if mount.kind == "bind":
        leave = _bind(mount, target, written, carrying(ledger))
        if ledger is not None and (mount.uid or mount.gid):
            _tell(ledger, target, os.stat(target).st_mode, mount.uid, mount.gid)
        return leave
    if mount.kind == "file":
        _write(target, mount, ledger)
    else:
        os.mkdir(target)
        # runc takes the mode of what is there; the kernel's own default is 1777
        os.chmod(target, stat.S_IMODE(old.st_mode) if old else 0o1777)
        if old and ledger is not None:
            told = ledger.records.get((old.st_dev, old.st_ino))
            if told is not None:
                _tell(ledger, target, told.mode, told.uid, told.gid)
        elif old:
            os.chown(target, old.st_uid, old.st_gid)
    return _nothing


def _holds(path: str, data: bytes) -> bool:
    """Is it a file with this content?"""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    return read_regular(descriptor, len(data) + 1) == data


def _nothing() -> None:
    pass


def _bind(
    mount: Mount, target: str, written: Callable[[str], None], made: Callable[[str, str], None]
) -> Callable[[], None]:
    """Put the source at the target. Returns what takes it away again, with the writes if they are to be kept."""
    source = mount.source
    found = os.stat(source)
    if stat.S_ISSOCK(found.st_mode):
        _link_socket(source, target)
        return _nothing
    if mount.read_only or mount.discard:
        copy(source, target, made=made)
        return _nothing if mount.discard else _watch(target, written)
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        copy(source, target, made=made)
        return lambda: _bring_back(target, source, made)

    def move_back() -> None:
        if os.path.lexists(target):
            remove(source)
            os.rename(target, source)
        else:  # the RUN removed what it could not have removed had it been a mount: it is empty then
            os.mkdir(source, stat.S_IMODE(found.st_mode))

    return move_back


def _watch(target: str, written: Callable[[str], None]) -> Callable[[], None]:
    """Returns what reports a change in a copy since now. Nobody can set the time of the last change of an inode."""
    found = os.lstat(target)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)  # it is the newest of them now
    start = os.lstat(target).st_ctime_ns

    def look() -> None:
        for path, changed in _times(target):
            if changed > start:
                written(path)

    return look


def _times(top: str) -> Iterator[tuple[str, int]]:
    """Every path of a tree and its ctime in ns; what is removed has changed now."""
    todo = [top]
    while todo:
        path = todo.pop()
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            yield path, time.time_ns()
            continue
        yield path, found.st_ctime_ns
        if stat.S_ISDIR(found.st_mode):
            todo += sorted((entry.path for entry in os.scandir(path)), reverse=True)


def _bring_back(target: str, source: str, made: Callable[[str, str], None]) -> None:
    """Make a writable source that is on another file system hold what the RUN left at the target."""
    if os.path.isdir(source):
        empty(source)
        if os.path.isdir(target):
            for name in sorted(os.listdir(target)):
                copy(os.path.join(target, name), os.path.join(source, name), made=made)
            made(target, source)
    elif os.path.isfile(target):
        with open(target, "rb") as new, open(source, "wb") as old:
            while block := new.read(1 << 20):
                old.write(block)


def _link_socket(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        raise SandboxError(
            f"cannot bring the socket {source} to {target}: {error.strerror}",
            errno=error.errno or 0,
            hint="the socket must be on the same file system as the root when nothing can be mounted",
        ) from error


def _tell(ledger: Ledger, path: str, mode: int, uid: int, gid: int) -> None:
    key, born = identify(libc.AT_FDCWD, os.fsencode(path))
    ledger.records[key] = Record(mode, uid, gid, born=born)


def _write(target: str, mount: Mount, ledger: Ledger | None) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(mount.data)
        file.flush()
        if ledger is not None:
            mode = stat.S_IFREG | mount.mode
            os.fchmod(descriptor, physical(mode))
            _tell(ledger, target, mode, mount.uid, mount.gid)
            return
        if (mount.uid, mount.gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, mount.uid, mount.gid)
        os.fchmod(descriptor, mount.mode)


class _Place:
    """Room for a mount at a target, and how it was: what was there, which parents were not, the times of the
    directory that all this happens in (R07)."""

    def __init__(self, target: str, aside: str) -> None:
        self._target, self._aside = target, aside
        self._parent, self._made = _make_parents(os.path.dirname(target))
        self._before = self._ready = self._done = os.stat(self._parent)
        self.old: os.stat_result | None = None

    def clear(self) -> None:
        """Make the parents, move aside what is there."""
        for path in self._made:
            os.mkdir(path)
            os.chmod(path, 0o755)  # noqa: S103 - a directory of every image
        if os.path.lexists(self._target):
            old = os.lstat(self._target)
            self._aside = _set_aside(self._target, self._aside)
            self.old = old

    def give_up(self) -> None:
        """`clear` failed. What is at the target was not moved: it is not ours to remove."""
        for path in reversed(self._made):
            with suppress(OSError):
                os.rmdir(path)

    def ready(self) -> None:
        """The mount is in place, the RUN starts."""
        self._ready = self._done = os.stat(self._parent)

    def done(self) -> None:
        """The RUN has ended."""
        if os.path.isdir(self._parent):
            self._done = os.stat(self._parent)

    def restore(self) -> None:
        """Take the target away and put back what was there. Of the parents, those that the RUN put something into
        are the RUN's now. Only a RUN's own change shows in the time of the directory."""
        remove(self._target)
        if self.old is not None:
            os.makedirs(os.path.dirname(self._target), exist_ok=True)
            os.rename(self._aside, self._target)
        for path in reversed(self._made):
            try:
                os.rmdir(path)
            except OSError:
                break
        if os.path.isdir(self._parent):
            same = self._done.st_mtime_ns == self._ready.st_mtime_ns
            mtime = (self._before if same else self._done).st_mtime_ns
            with suppress(PermissionError):  # a directory of the container's, that we may write to
                os.utime(self._parent, ns=(self._done.st_atime_ns, mtime))


def _make_parents(directory: str) -> tuple[str, list[str]]:
    """The deepest directory that is there, and the missing ones below it in the order of making them."""
    missing: list[str] = []
    while not os.path.isdir(directory):
        if os.path.lexists(directory):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory)
        missing.append(directory)
        directory = os.path.dirname(directory)
    return directory, missing[::-1]


def _set_aside(target: str, aside: str) -> str:
    try:
        os.rename(target, aside)
        return aside
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    # The shelf is on another file system (a volume): a hidden name beside it, then. The scan comes after.
    beside = os.path.join(os.path.dirname(target), f".{os.path.basename(aside)}")
    os.rename(target, beside)
    return beside
