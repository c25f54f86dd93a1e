"""Mounts where nothing can be mounted: content is put at the target before RUN and taken away after it, and what was
there is set aside meanwhile.

The RUN may have replaced anything by then. So all is done by descriptors from before the RUN, no link is followed, and the
threads that do it are confined like the RUN (kpy.sandbox.deputy): to its files, and the sources.

What differs from real mounts, for the manual: a read-only bind can be written to, which is dropped after, with a warning; `rename`
and `link` between the mount and the rest work (a real mount says EXDEV); a tmpfs has no size limit and is on the disk
of the container, and so is a secret while the RUN lasts; a file that the RUN moves out of a mount stays in the layer.
"""

import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from kpy.errors import SandboxError
from kpy.linux.beneath import LIST, At, Beneath, is_directory, join, open_source, status
from kpy.linux.birth import identify
from kpy.linux.copytree import Made, copy
from kpy.linux.ledger import Ledger, Record, physical
from kpy.sandbox.attend import LeftRunningError
from kpy.sandbox.base import Mount
from kpy.sandbox.carry import brought, carrying
from kpy.sandbox.deputy import confined
from kpy.sandbox.room import Room
from kpy.sandbox.rootpath import Closed, RootPaths, nothing_closed
from kpy.sandbox.slotmounts import filled, is_slot
from kpy.sandbox.spawn import Reach
from kpy.sandbox.written import Written
from kpy.util.erase import remove
from kpy.util.fs import read_regular

_MOST_EXCHANGES = 100
_CANNOT_RENAME = frozenset({errno.EXDEV, errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS})


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where mounts are made: in `root`, with what is in their place set aside in `directory`, which no RUN may enter and no
    layer has. `closed` are places of the root that are not the RUN's. With a `ledger`, root is emulated there, and owners
    that only root can give are written into it. `reach`: the files of the RUN, where Landlock can tell them."""

    root: str
    directory: str
    ledger: Ledger | None = None
    closed: Closed = nothing_closed
    reach: Reach | None = field(default=None)

    def reach_of(self, mounts: Sequence[Mount], paths: RootPaths) -> Reach | None:
        """Of what puts these mounts in place and takes them back: the RUN's, and the sources. To rename a source takes
        rights in its directory, so what is written to has one of its own. None if a target is directly in a root that is
        ours to write to: rights there would be rights on everything (Landlock's rules hold for all that is below)."""
        if self.reach is None:
            return None
        has_root = self.root in self.reach.whole or not os.access(self.root, os.W_OK, effective_ids=True)
        if not has_root and any(_is_at_top(mount, paths) for mount in mounts):
            return None
        whole, readable = [*self.reach.whole, self.directory], [*self.reach.programs]
        for mount in mounts:
            if mount.kind == "bind":
                keeps = not mount.read_only and not mount.discard
                (whole if keeps else readable).append(os.path.dirname(mount.source) if keeps else mount.source)
        return Reach(tuple(whole), tuple(readable))


def _is_at_top(mount: Mount, paths: RootPaths) -> bool:
    try:
        return paths.find(mount.target).parent == paths.top
    except OSError:
        return False  # it cannot be made either, and is told to the user then


@contextmanager
def mounted(mounts: Sequence[Mount], shelf: Shelf, warn: Callable[[bytes], None]) -> Iterator[None]:
    """Have the mounts in place while the block runs, in their order, and afterwards everything as it was. When the block
    ends, no process of the RUN is left; or it raises LeftRunningError, and nothing is taken back.

    `warn` gets a line for each read-only mount that was written to: a real one would have refused.
    """
    os.makedirs(shelf.directory, mode=0o700, exist_ok=True)
    with RootPaths(shelf.root, shelf.closed) as paths:
        reach = shelf.reach_of(mounts, paths)
        work = _Mounts(mounts, shelf, paths)
        with brought(mounts, shelf.ledger):
            confined(reach, work.put)
            try:
                yield
            except LeftRunningError:
                raise  # processes of the RUN still use the mounts: they stay where they are
            except BaseException:
                confined(reach, work.take_back)
                raise
            confined(reach, work.take_back)
    for line in work.warnings():
        warn(line)


class _Mounts:
    """All mounts of one RUN."""

    def __init__(self, mounts: Sequence[Mount], shelf: Shelf, paths: RootPaths) -> None:
        self._mounts = mounts
        self._shelf = shelf
        self._paths = paths
        self._stack = ExitStack()
        self._targets: list[str] = []
        self._notes = [Written(mount.target) for mount in mounts]

    def put(self) -> None:
        """Put all in place, or none. Raises SandboxError."""
        with ExitStack() as stack:
            shelf = os.open(self._shelf.directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            stack.callback(os.close, shelf)
            for number, mount in enumerate(self._mounts):
                try:
                    stack.enter_context(self._one(mount, shelf, self._notes[number]))
                except OSError as error:
                    emulated = self._shelf.ledger is not None
                    raise SandboxError(
                        f"cannot put a mount at {mount.target}: {error.strerror or error}", errno=error.errno or 0,
                        hint="mount an emptyDir there, or use a directory that this container has" if emulated else "",
                    ) from error  # fmt: skip
            self._stack = stack.pop_all()

    def take_back(self) -> None:
        """Take all away, in the opposite order; each is, whatever becomes of the others. Raises SandboxError."""
        try:
            self._stack.close()
        except OSError as error:
            raise SandboxError(
                f"cannot take back a mount of RUN: {error.strerror or error}", errno=error.errno or 0,
                hint="did the command change its mounts?",
            ) from error  # fmt: skip

    def warnings(self) -> Iterator[bytes]:
        """A line for each read-only mount that was written to; not for what other mounts did in it."""
        for number, note in enumerate(self._notes):
            others = [path for index, path in enumerate(self._targets) if index != number]
            if line := note.line(others):
                yield line

    @contextmanager
    def _one(self, mount: Mount, shelf: int, note: Written) -> Iterator[None]:
        spot = self._paths.find(mount.target)
        self._targets.append(spot.path)
        note.top = spot.path
        ledger = self._shelf.ledger
        if ledger is not None and not spot.missing and is_slot((spot.parent, os.fsencode(spot.name)), ledger):
            with filled(mount, (spot.parent, os.fsencode(spot.name)), shelf, ledger):
                yield
            return
        room = Room(spot, shelf, self._paths)
        try:
            room.clear()
        except OSError as error:
            room.give_up()
            if error.errno == errno.EBUSY and mount.kind == "file" and _holds(room.at, mount.data):
                yield  # the container mounts the very secret where the RUN wants it
                return
            raise
        try:
            leave = _put(mount, room, self._paths, ledger, note.add)
        except BaseException:
            room.restore()
            raise
        room.ready()
        try:
            yield
        finally:
            room.done()
            try:
                leave()
            finally:
                room.restore()


def _put(
    mount: Mount, room: Room, paths: RootPaths, ledger: Ledger | None, written: Callable[[bytes], None]
) -> Callable[[], None]:
    """Make the target. Returns what takes away more than the target itself."""
    at, old = room.at, room.old
    if mount.kind == "bind":
        leave = _bind(mount, room, paths, written, carrying(ledger))
        if ledger is not None and (mount.uid or mount.gid):
            _tell(ledger, at, os.stat(at[1], dir_fd=at[0], follow_symlinks=False).st_mode, mount.uid, mount.gid)
        return leave
    if mount.kind == "file":
        _write(at, mount, ledger)
        return _nothing
    os.mkdir(at[1], dir_fd=at[0])
    target = os.open(at[1], LIST, dir_fd=at[0])
    try:
        # runc takes the mode of what is there; the kernel's own default is 1777
        if old and ledger is None:
            os.fchown(target, old.st_uid, old.st_gid)
        os.fchmod(target, stat.S_IMODE(old.st_mode) if old else 0o1777)
    finally:
        os.close(target)
    told = ledger.records.get((old.st_dev, old.st_ino)) if old and ledger is not None else None
    if ledger is not None and told is not None:
        _tell(ledger, at, told.mode, told.uid, told.gid)
    return _nothing


def _holds(at: At, data: bytes) -> bool:
    """Is it a file with this content?"""
    try:
        descriptor = os.open(at[1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at[0])
    except OSError:
        return False
    return read_regular(descriptor, len(data) + 1) == data


def _nothing() -> None:
    pass


def _source(mount: Mount, paths: RootPaths) -> tuple[At, os.stat_result]:
    """Where a source on this machine is, and what. Its directory stays open as long as `paths`. Raises OSError for one that
    is a link, or behind one below what is trusted."""
    path = os.path.normpath(mount.source)
    directory, name = os.path.split(path)
    base = directory if mount.trusted in (path, directory) else mount.trusted
    held = paths.hold(open_source(os.fsencode(base), os.fsencode(directory), os.O_PATH | os.O_DIRECTORY))
    at = held, os.fsencode(name or ".")
    found = os.stat(at[1], dir_fd=held, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, "the source is a link", path)
    return at, found


def _bind(mount: Mount, room: Room, paths: RootPaths, written: Callable[[bytes], None], made: Made) -> Callable[[], None]:
    """Put the source at the target. Returns what takes it away again, with the writes if they are to be kept."""
    source, found = _source(mount, paths)
    if stat.S_ISSOCK(found.st_mode):
        _link_socket(source, room.at, mount)
        return _nothing
    if mount.read_only or mount.discard:
        copy(source, room.at, made=made)
        return _nothing if mount.discard else _watch(room.at, written)
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(errno.ENOTDIR, "the source is no directory", mount.source)
    try:
        _rename(source, room.at)
    except OSError as error:
        if error.errno not in _CANNOT_RENAME:
            raise
        copy(source, room.at, made=made)
        return lambda: _bring_back(room, source, found, made)
    return lambda: _move_back(room, source, found)


def _rename(old: At, new: At) -> None:
    os.rename(old[1], new[1], src_dir_fd=old[0], dst_dir_fd=new[0])


def _move_back(room: Room, source: At, found: os.stat_result) -> None:
    """Keep what the RUN left at the target. If it removed what it could not have removed had it been a mount, the source is
    empty then."""
    if room.has_directory():
        _exchange(room.at, source)
    else:
        remove(source[1], source[0])  # another build's, which made it anew
        _make_empty(source, found)


def _bring_back(room: Room, source: At, found: os.stat_result, made: Made) -> None:
    """The same, of a source on another file system. It stays as it was if it cannot be written."""
    directory, name = source
    new = directory, name + b"." + secrets.token_hex(8).encode()
    try:
        if room.has_directory():
            copy(room.at, new, made=made)
        else:
            _make_empty(new, found)
        _exchange(new, source)
    except BaseException:
        with suppress(OSError):
            remove(new[1], directory)
        raise


def _exchange(new: At, old: At) -> None:
    """Put a directory in the place of another. Builds that share a cache do this at the same time: the last one stays."""
    for _ in range(_MOST_EXCHANGES):
        remove(old[1], old[0])
        try:
            _rename(new, old)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.fsdecode(old[1]))


def _make_empty(at: At, like: os.stat_result) -> None:
    os.mkdir(at[1], 0o700, dir_fd=at[0])
    place = os.open(at[1], LIST, dir_fd=at[0])
    try:
        with suppress(PermissionError):
            os.fchown(place, like.st_uid, like.st_gid)
        os.fchmod(place, stat.S_IMODE(like.st_mode))
    finally:
        os.close(place)


def _watch(at: At, written: Callable[[bytes], None]) -> Callable[[], None]:
    """Returns what reports a change in a copy since now. Nobody can set the time of the last change of an inode."""
    directory, name = at
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    # It is the newest of them now.
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=directory, follow_symlinks=False)
    start = os.stat(name, dir_fd=directory, follow_symlinks=False).st_ctime_ns

    def look() -> None:
        for path, changed in _times(at):
            if changed > start:
                written(path)

    return look


def _times(at: At) -> Iterator[tuple[bytes, int]]:
    """Every path of a tree, relative to it, and its ctime in ns; what is removed has changed now."""
    found = status(at)
    yield b"", time.time_ns() if found is None else found.st_ctime_ns
    if not is_directory(found):
        return
    top = os.open(at[1], LIST, dir_fd=at[0])
    try:
        with Beneath(top) as tree:
            for path, _, entries in tree.directories():
                for name, entry in entries:
                    yield join(path, name), entry.st_ctime_ns
    finally:
        os.close(top)


def _link_socket(source: At, target: At, mount: Mount) -> None:
    try:
        os.link(source[1], target[1], src_dir_fd=source[0], dst_dir_fd=target[0], follow_symlinks=False)
    except OSError as error:
        raise SandboxError(
            f"cannot bring the socket {mount.source} to {mount.target}: {error.strerror}",
            errno=error.errno or 0,
            hint="the socket must be on the same file system as the root when nothing can be mounted",
        ) from error


def _tell(ledger: Ledger, at: At, mode: int, uid: int, gid: int) -> None:
    key, born = identify(*at)
    ledger.records[key] = Record(mode, uid, gid, born=born)


def _write(at: At, mount: Mount, ledger: Ledger | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(at[1], flags, 0o600, dir_fd=at[0])
    with os.fdopen(descriptor, "wb") as file:
        file.write(mount.data)
        file.flush()
        if ledger is not None:
            mode = stat.S_IFREG | mount.mode
            os.fchmod(descriptor, physical(mode))
            _tell(ledger, at, mode, mount.uid, mount.gid)
            return
        if (mount.uid, mount.gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, mount.uid, mount.gid)
        os.fchmod(descriptor, mount.mode)
