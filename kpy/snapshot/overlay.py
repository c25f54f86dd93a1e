"""Snapshots as overlay mounts: the chain's directories below, a fresh one on top, changes read from that one. Needs a
process that may mount, see kpy/sandbox/enter.py. What is on disk is stack.py's business.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kpy.errors import SandboxError, StoreError
from kpy.layer.entry import LayerItem
from kpy.layer.extract import DEFAULT_OPTIONS
from kpy.linux import libc, overlay
from kpy.linux.mount import MNT_DETACH, bind, freeze, make_read_only
from kpy.oci.image import Chain, Layer
from kpy.snapshot import upper
from kpy.snapshot.base import LayerContent, Snapshot
from kpy.snapshot.stack import Stack
from kpy.util.fs import io_errors, reason

_log = logging.getLogger(__name__)
_PATIENCE = (0.01, 0.05, 0.2, 0.5, 1.0)  # seconds: the kernel closes files that were on their way through a socket later


@dataclass(slots=True)
class _Active:
    """A prepared snapshot: its workplace, what is below it, whether its root is still mounted, and where the lower
    directories are mounted for the one who reads the changes."""

    place: str
    lowers: list[str]
    mounted: bool = True
    frozen: bool = False
    reading: set[str] = field(default_factory=set)

    def read(self, root: str) -> None:
        """Nobody reads what is mounted there any more."""
        if root in self.reading:
            self.reading.remove(root)
            _unmount(root)


class OverlaySnapshotter:
    """A Snapshotter. The first `base` layers of a chain are unpacked together into one directory, later ones each
    into their own; all are kept on disk for other builds, and removed by `stack.remove`.

    Thread-safe. `capacity` is how many snapshots may be in use at once.
    """

    def __init__(self, stack: Stack, content: LayerContent, *, capacity: int = 8) -> None:
        self._stack = stack
        self._content = content
        self._capacity = capacity
        self._active: dict[str, _Active] = {}
        self._lock = threading.Lock()

    @property
    def capacity(self) -> int:
        """How many at once."""
        return self._capacity

    @contextmanager
    def prepare(self, chain: Chain, base: int, /) -> Iterator[Snapshot]:
        """See Snapshotter."""
        with self._stack.using(), self._stack.workplace() as place:
            lowers = self._ensure(chain, base) or [_empty(place)]
            with io_errors("make a root file system in", place):
                root = _writable(lowers, place)
            active = _Active(place, lowers)
            with self._lock:
                self._active[place] = active
            try:
                yield Snapshot(chain, root, place)
            finally:
                with self._lock:
                    del self._active[place]
                for path in [*active.reading]:  # an error stopped the reader: the generator may end later
                    active.read(path)
                if active.mounted:
                    _unmount(root)

    @contextmanager
    def view(self, chain: Chain, /) -> Iterator[str | None]:
        """See Snapshotter. The mount is read-only."""
        with self._stack.using():
            lowers = self._stack.lowers(chain)
            if lowers is None:
                yield None
                return
            with self._stack.workplace() as place:
                root = _read_only(lowers or [_empty(place)], place)
                try:
                    yield root
                finally:
                    _unmount(root)

    def changes(self, active: Snapshot, /) -> Iterator[LayerItem]:
        """See Snapshotter. No process may still run in it. One of another RUN can have been handed a descriptor of its
        directories or files (unix(7), SCM_RIGHTS): the file system is read-only from here on, for everybody."""
        state = self._frozen(active)
        root = _read_only(state.lowers, state.place, name="lower")
        state.reading.add(root)
        try:
            with io_errors("read the changes in", state.place):
                yield from upper.changes(os.path.join(state.place, "fs"), root)
        finally:
            state.read(root)

    def commit(self, active: Snapshot, layer: Layer, /) -> None:
        """See Snapshotter. The root is gone after this: what is on disk is part of other chains now."""
        state = self._frozen(active)
        chain = (*active.chain, layer)
        _unmount(active.root)
        state.mounted = False
        with self._stack.making(chain):
            if self._stack.lowers(chain) is None:
                self._stack.add(chain, state.place, on_parent=True)

    def _frozen(self, active: Snapshot) -> _Active:
        state = self._state(active)
        if not state.frozen:
            _freeze(active.root)
            state.frozen = True
        return state

    def _state(self, active: Snapshot) -> _Active:
        with self._lock:
            found = self._active.get(active.key)
        if found is None or not found.mounted:
            raise SandboxError("a snapshot was used after its end")
        return found

    def _ensure(self, chain: Chain, base: int) -> list[str]:
        """Have all of the chain on disk: unpack what is missing, the base in one, each other layer on its parent."""
        if not chain:
            return []
        count = self._stack.longest(chain)
        if count == 0:
            count = max(base, 1)
            self._unpack(chain[:count], 0)
        for number in range(count, len(chain)):
            self._unpack(chain[: number + 1], number)
        lowers = self._stack.lowers(chain)
        if lowers is None:
            raise StoreError("a snapshot vanished while it was made", hint="is another program removing kpy's files?")
        self._stack.touch(chain)
        return lowers

    def _unpack(self, chain: Chain, present: int) -> None:
        """Make the chain of which the first `present` layers are on disk: none, or all but the last."""
        with self._stack.making(chain):
            if self._stack.lowers(chain) is not None:
                return  # another build was faster
            with self._stack.workplace() as place:
                if present:
                    root = self._on_parent(chain[:present], place)
                else:
                    root = os.path.join(place, "fs")
                    _make_root(root)
                try:
                    _log.debug("unpacking %s", chain[present:])
                    self._content.extract(chain[present:], root, DEFAULT_OPTIONS)
                finally:
                    if present:
                        _unmount(root)
                self._stack.add(chain, place, on_parent=bool(present))

    def _on_parent(self, parent: Chain, place: str) -> str:
        # Through a mount, so that the layer's hard links, symlinked directories and whiteouts find what they mean.
        lowers = self._stack.lowers(parent)
        if lowers is None:
            raise StoreError("a snapshot vanished while it was used", hint="is another program removing kpy's files?")
        with io_errors("make a root file system in", place):
            return _writable(lowers, place)


def _make_root(path: str) -> None:
    """The `/` of an image whose layers do not say what it is: every user may enter it, whatever our umask is (R05)."""
    os.mkdir(path)
    os.chmod(path, 0o755)  # noqa: S103 - a directory of every image


def _empty(place: str) -> str:
    path = os.path.join(place, "empty")
    _make_root(path)
    os.utime(path, (0, 0))
    return path


def _writable(lowers: list[str], place: str) -> str:
    """Mount an overlay with place/fs as its upper directory."""
    top, work, root = (os.path.join(place, name) for name in ("fs", "work", "root"))
    for path in (top, work, root):
        os.mkdir(path, 0o755)
    _copy_metadata(lowers[0], top)
    try:
        # volatile: a snapshot is a cache; layers are what lasts. It makes fsync, of which dpkg is fond, cost nothing.
        overlay.mount(lowers, root, upper=top, work=work, volatile=True)
    except OSError as error:
        raise _refused(error, place) from error
    return root


def _read_only(lowers: list[str], place: str, *, name: str = "root") -> str:
    root = os.path.join(place, name)
    os.makedirs(root, 0o755, exist_ok=True)
    try:
        if len(lowers) > 1:
            overlay.mount(lowers, root)
        else:
            bind(os.fsencode(lowers[0]), os.fsencode(root))
            make_read_only(os.fsencode(root))
    except OSError as error:
        raise _refused(error, place) from error
    return root


def _refused(error: OSError, place: str) -> SandboxError:
    return SandboxError(
        f"cannot mount an overlay in {place}: {os.strerror(error.errno or 0).lower()}",
        errno=error.errno or 0,
        hint="keep kpy's files on a file system that overlayfs takes: ext4, xfs, btrfs, tmpfs; not overlayfs or NFS",
    )


def _copy_metadata(source: str, target: str) -> None:
    """The root of an overlay has the metadata of its upper directory: give it those of the chain's root."""
    found = os.stat(source)
    os.chown(target, found.st_uid, found.st_gid)
    for name in os.listxattr(source):
        if not name.startswith(overlay.PRIVATE_XATTRS):
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError:
                continue  # a label that only the host's root may set
    os.chmod(target, found.st_mode & 0o7777)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _freeze(root: str) -> None:
    for wait in _PATIENCE:
        try:
            freeze(os.fsencode(root))
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise SandboxError(f"cannot make the root file system read-only: {reason(error)}", errno=error.errno or 0) from error
        time.sleep(wait)
    raise SandboxError(
        "files of this RUN are still open for writing, though all its processes have ended",
        errno=errno.EBUSY,
        hint="did it hand them to the RUN of another stage, by a socket in a cache mount? Let each RUN close its own files",
    )


def _unmount(path: str) -> None:
    try:
        libc.umount(os.fsencode(path))
    except OSError:
        libc.umount(os.fsencode(path), MNT_DETACH)  # somebody still has a file open
