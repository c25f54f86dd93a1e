"""A snapshotter for one plain directory: unpack, scan before, scan after, and empty it when the next chain does not
build on what it holds. Serves the live root (`/` of the builder's own container) and the chroot strategy.
Knows nothing of processes; remembers nothing across runs of kpy: the first `prepare` always empties."""

import errno
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kpy.errors import SandboxError, StoreError
from kpy.layer.entry import Kind, LayerItem
from kpy.layer.tree import Tree
from kpy.oci.image import Chain, Layer
from kpy.snapshot.base import LayerContent, Snapshot
from kpy.snapshot.diff import text
from kpy.snapshot.ground import Ground
from kpy.snapshot.scan import Index, settle
from kpy.util.erase import ancestors
from kpy.util.fs import reason
from kpy.util.nesting import TooDeepError

_log = logging.getLogger(__name__)

KERNEL_PATHS = ("dev", "proc", "sys")
"""What no image brings and no layer takes: every sandbox makes its own."""

LIVE_PATHS = (*KERNEL_PATHS, "etc/hosts", "etc/hostname", "etc/resolv.conf")
"""What the container's runtime gave a live root, mounted or not: kept, never taken from an image or into a layer."""


@dataclass(slots=True)
class _State:
    """What the directory holds. `chain` is None when nobody knows."""

    chain: Chain | None = None
    index: Index | None = None
    tree: Tree = field(default_factory=Tree.empty)
    keep: frozenset[bytes] = frozenset()
    after: Index | None = None


class DirectorySnapshotter:
    """Implements `snapshot.base.Snapshotter` on one ground.

    `protected` are paths relative to the root that are never removed, extracted or snapshotted, nor is what is below
    them; mount points found at each emptying are added.
    """

    def __init__(self, ground: Ground, content: LayerContent, *, protected: Iterable[str] = KERNEL_PATHS) -> None:
        self._ground = ground
        self._root = ground.root
        self._content = content
        self._protected = frozenset(os.fsencode(path.strip("/")) for path in protected if path.strip("/"))
        self._state = _State()
        self._lock = threading.Lock()
        self._holder: int | None = None

    @property
    def capacity(self) -> int:
        """One: there is one directory."""
        return 1

    @property
    def root(self) -> str:
        """The directory."""
        return self._root

    @contextmanager
    def prepare(self, chain: Chain, base: int, /) -> Iterator[Snapshot]:
        """See Snapshotter. A second caller waits until the first one's block has ended."""
        del base  # nothing outlives the build here
        with self._exclusive():
            self._bring(chain)
            index = self._state.index
            assert index is not None
            self._state.chain = None  # from here on anything may happen to it; commit() says what it became
            settle(index)
            yield Snapshot(chain, self._root)

    @contextmanager
    def view(self, chain: Chain, /) -> Iterator[str | None]:
        """The directory, if it holds exactly the chain and is not in use. Never a live root: it holds more than the
        image (the builder itself, /proc, mounts)."""
        if (
            self._root == "/"
            or self._holder == threading.get_ident()
            or not self._lock.acquire(blocking=False)
        ):
            yield None
            return
        self._holder = threading.get_ident()
        try:
            yield self._root if self._state.chain == chain else None
        finally:
            self._holder = None
            self._lock.release()

    def changes(self, active: Snapshot, /) -> Iterator[LayerItem]:
        """See Snapshotter. Scans at once; files are opened when the items are read. No process may still run."""
        before = self._state.index
        assert before is not None
        with _disk("cannot scan the root file system"):
            self._state.after = after = self._ground.scan(self._state.keep)
        return self._read(self._ground.differences(before, after, self._state.tree))

    def commit(self, active: Snapshot, layer: Layer, /) -> None:
        """See Snapshotter. Keeps the scan of the last `changes` as the new index."""
        state = self._state
        if state.after is None:
            raise SandboxError("a snapshot was committed whose changes nobody asked for")
        state.tree = state.tree.apply(self._content.layer_tree(layer), layer.diff_id)
        state.chain, state.index, state.after = (*active.chain, layer), state.after, None

    @staticmethod
    def _read(items: Iterator[LayerItem]) -> Iterator[LayerItem]:
        with _disk("cannot read the root file system"):
            yield from items

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if self._holder == threading.get_ident():
            raise SandboxError("the one root file system is in use by the step that asks for it again")
        with self._lock:
            self._holder = threading.get_ident()
            try:
                yield
            finally:
                self._holder = None

    def _bring(self, chain: Chain) -> None:
        """Make the directory hold the chain, and index it."""
        state = self._state
        held, index = state.chain, state.index
        if held is not None and index is not None and chain[: len(held)] == held:
            missing = chain[len(held) :]
        else:
            held, missing = None, chain
        state.chain = None
        with _disk("cannot make the root file system"):
            if held is None:
                self._empty()
            self._extract(missing)
            self._check_hidden()
            if held is None or missing:
                self._ground.settle(state.tree, state.keep)
                state.index = self._ground.scan(state.keep)
        state.chain, state.after = chain, None

    def _check_hidden(self) -> None:
        """Refuse an image with files where this root keeps something else: they would not be there, and what a RUN
        does to them would be lost. What the kernel provides hides an image's files everywhere."""
        for path in sorted(map(text, self._state.keep)):
            if path.split("/", 1)[0] not in KERNEL_PATHS and self._state.tree.children(path):
                raise SandboxError(
                    f"the image has files in /{path}, which is a mount of this container, or the builder's",
                    hint="mount it where no image has files: the build context in /kpy/workspace, say",
                )
            for above in sorted(map(text, ancestors({os.fsencode(path)}))):
                entry = self._state.tree.lookup(above)
                if entry is not None and entry.kind is not Kind.DIR and above not in KERNEL_PATHS:
                    raise SandboxError(
                        f"the image's /{above} is no directory, but the container's is: /{path} is mounted there", hint=_elsewhere(path)
                    )

    def _empty(self) -> None:
        self._state.tree = Tree.empty()
        self._state.keep = keep = self._protected | self._ground.mounts()
        stuck = self._ground.empty(keep)
        if stuck:
            raise SandboxError(
                f"cannot remove /{os.fsdecode(stuck[0])}, left by an earlier stage, from the root file system",
                hint="start the build in a fresh container",
            )

    def _extract(self, layers: Chain) -> None:
        _log.debug("unpacking %s", layers)
        options = self._ground.options(self._state.keep)
        try:
            for layer, tree in zip(layers, self._content.extract(layers, self._ground.home, options), strict=True):
                self._state.tree = self._state.tree.apply(tree, layer.diff_id)
        except StoreError as error:
            for place, above in self._not_ours():
                if f"'{above}'" in error.message or f"'{above}/" in error.message:  # it, or what is below it
                    raise SandboxError(
                        f"{error.message}; /{above} is not uid {os.geteuid()}'s: it was made for what is mounted at /{place}",
                        hint=_elsewhere(place),
                    ) from error
            raise

    def _not_ours(self) -> Iterator[tuple[str, str]]:
        """What is kept, and a directory above it that the runtime made for it, which we cannot make the image's."""
        for path in sorted(self._state.keep):
            for above in sorted(ancestors({path})):
                full = os.path.join(os.fsencode(self._ground.home), above)
                if os.path.isdir(full) and not os.access(full, os.W_OK, effective_ids=True):
                    yield text(path), text(above)


def _elsewhere(place: str) -> str:
    """What to do about a mount that is in the way of an image."""
    if place.endswith("/docker-init"):
        return "start the container without --init: kpy ends all processes of a RUN by itself"
    return "mount that at a directory of its own in /, or below /kpy"


@contextmanager
def _disk(what: str) -> Iterator[None]:
    """Map the file system's errors."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreError(f"{what}: the disk is full", hint="give the builder more disk space") from error
        said = reason(error) if isinstance(error, TooDeepError) else str(error)
        raise SandboxError(f"{what}: {said}", errno=error.errno or 0) from error
