"""Layers while a build runs: fetched when somebody needs them, indexed once, several at a time, never twice.

A layer that is only in a registry stays there until its tree or its files are asked for (N36).
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from kpy.errors import (
    ContentError,
    DigestMismatchError,
    ImageNotFoundError,
    InterruptedBuildError,
    TooLargeError,
)
from kpy.events import Reporter, StepProgress, Warned, step
from kpy.layer.decompress import decompressor
from kpy.layer.extract import ExtractOptions, extract
from kpy.layer.index import IndexWriter, LayerTree, index_layer
from kpy.layer.limits import LayerLimits
from kpy.layer.tarread import TarLimits
from kpy.layer.tree import Tree
from kpy.oci.content import BlobSource
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Chain, Image, Layer, chain_id
from kpy.store.store import Store
from kpy.util.cancel import Cancel
from kpy.util.streams import HashingReader, TeeReader, drain, pieces
from kpy.util.threads import Pool

DEFAULT_LIMITS = LayerLimits()
FETCHES = 4  # at once, as docker and containerd do


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a layer can be had, and the name of the image that it is of, for progress."""

    source: BlobSource
    name: str


class Layers:
    """All layers of one build. Thread-safe. Implements snapshot.base.LayerContent."""

    def __init__(self, store: Store, report: Reporter, cancel: Cancel, limits: LayerLimits = DEFAULT_LIMITS) -> None:
        self._store = store
        self._report = report
        self._cancel = cancel
        self._limits = limits
        self._lock = threading.Lock()
        self._locks: dict[Digest, threading.Lock] = {}
        self._origins: dict[Digest, Origin] = {}
        self._layer_trees: dict[Digest, LayerTree] = {}
        self._trees: dict[Digest | None, Tree] = {None: Tree.empty()}
        self._pulls = 0
        self._repaired: set[Digest] = set()

    def add_image(self, image: Image, name: str) -> None:
        """Make the layers of an image known; nothing is fetched. Raises ContentError if they are too many."""
        self._limits.check_count(len(image.chain), name)
        with self._lock:
            for layer in image.chain:
                self._origins.setdefault(layer.diff_id, Origin(image.content, name))

    # --- blobs ---------------------------------------------------------------

    def _only_one(self, diff_id: Digest) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(diff_id, threading.Lock())

    def has_blob(self, layer: Layer) -> bool:
        """Is the blob in the store?"""
        return self._store.images.blobs.has(layer.descriptor)

    def repair(self) -> bool:
        """Remove what was read of the store and is broken, and say so once; whether it makes sense to try again. It does not
        when the same is broken again: then it is the disk."""
        broken = self._store.images.blobs.remove_broken()
        with self._lock:
            again = any(blob.digest in self._repaired for blob in broken)
            self._repaired.update(blob.digest for blob in broken)
        for blob in broken:
            self._report(
                Warned(
                    f"blob {blob.digest} in the store was broken; it is fetched or built again",
                    "the file had the right size and another content: was there a power loss, or is it the disk?",
                )
            )
        return bool(broken) and not again

    def fetch(self, layers: Iterable[Layer], *, trees: bool) -> None:
        """Bring blobs (or only trees, where that is all that is missing) to the store, several at once."""
        wanted = [layer for layer in layers if not (self._has_tree(layer) if trees else self.has_blob(layer))]
        if not wanted:
            return
        with self._pull(wanted) as ident:
            if len(wanted) == 1:
                self._fetch(wanted[0], ident)
                return
            with Pool(FETCHES, thread_name_prefix="fetch") as pool:
                for done in [pool.submit(self._fetch, layer, ident) for layer in wanted]:
                    done.result()

    @contextmanager
    def _pull(self, wanted: Sequence[Layer]) -> Iterator[str]:
        """A step for the progress of these; its name."""
        origin = self._origins.get(wanted[0].diff_id)
        with self._lock:
            self._pulls += 1
            ident = f"pull {self._pulls}"
        with step(self._report, ident, f"pull {origin.name if origin else 'layers'}"):
            yield ident

    def _fetch(self, layer: Layer, ident: str) -> None:
        """Have the blob and the tree in the store."""
        with self._only_one(layer.diff_id):
            if self.has_blob(layer) and self._has_tree(layer):
                return
            with self._store.tree_writer() as index:
                with self._reading(layer, ident) as plain:
                    index_layer(plain, index.stream, limits=TarLimits(bytes=self._allowed(layer)))
                index.commit(layer.diff_id)
            self._load_tree(layer.diff_id)

    def _download(self, layer: Layer, ident: str, enough: threading.Event) -> None:
        """Have the blob in the store, unless it is `enough`; what is in it is checked when it is read."""
        with self._only_one(layer.diff_id):
            if not self.has_blob(layer):
                with self._arriving(layer, ident) as blob:
                    for _ in pieces(blob):
                        if enough.is_set():
                            raise InterruptedBuildError("nobody needs this layer any more")

    @contextmanager
    def _arriving(self, layer: Layer, ident: str) -> Iterator[BinaryIO]:
        """The blob from where it can be had; stored when the block has read it to its end."""
        origin = self._origins.get(layer.diff_id)
        if origin is None:
            raise ImageNotFoundError(f"layer {layer.descriptor.digest} is not in the store")
        with self._store.images.writer(layer.descriptor) as writer:
            count = _Counter(self._report, ident, layer.descriptor, self._cancel)
            with origin.source.open(layer.descriptor) as remote:
                yield cast(BinaryIO, TeeReader(remote, writer.write, count))
            writer.commit(layer.descriptor.media_type)

    @contextmanager
    def _reading(self, layer: Layer, ident: str) -> Iterator[BinaryIO]:
        """The uncompressed tar, from the store or while it arrives. The block must read it to its end; then it is
        checked against digest and diff_id (L09)."""
        known = self.has_blob(layer)
        with self._store.images.open(layer.descriptor) if known else self._arriving(layer, ident) as blob:
            try:
                with decompressor(blob, limit=self._allowed(layer)) as plain:
                    hasher = HashingReader(plain, hashlib.new(layer.diff_id.algorithm))
                    yield cast(BinaryIO, hasher)
                    drain(hasher)
                drain(blob)
            except DigestMismatchError:
                raise  # it names the blob
            except TooLargeError as error:
                raise self._limits.error(layer.descriptor.digest, layer.descriptor.size) from error
            except ContentError as error:
                raise ContentError(f"layer {layer.descriptor.digest} cannot be read: {error.message}", hint=error.hint) from error
            if hasher.hexdigest() != layer.diff_id.hex:
                raise ContentError(
                    f"layer {layer.descriptor.digest} does not match its diff_id: it should be {layer.diff_id}, "
                    f"the content has {layer.diff_id.algorithm}:{hasher.hexdigest()}"
                )
        self._store.put_layer(layer)

    def _allowed(self, layer: Layer) -> int | None:
        """The bytes that the layer may unpack to. What a step of ours made may be as large as it is."""
        return self._limits.allowed(layer.descriptor.size) if layer.diff_id in self._origins else None

    def extract(self, layers: Chain, root: str, options: ExtractOptions, /) -> Sequence[LayerTree]:
        """See LayerContent. A layer that is not here is unpacked and indexed while it arrives; those above it are
        downloaded meanwhile."""
        missing = [layer for layer in layers if not self.has_blob(layer)]
        with ExitStack() as stack:
            ident = stack.enter_context(self._pull(missing)) if missing else ""
            others = [layer for layer in missing if layer is not layers[0]]
            if others:
                enough = threading.Event()
                pool = stack.enter_context(Pool(FETCHES, thread_name_prefix="fetch"))
                stack.callback(pool.shutdown, wait=False, cancel_futures=True)
                stack.callback(enough.set)
                for layer in others:  # what fails is tried again below, where it can raise
                    pool.submit(self._download, layer, ident, enough)
            return [self._extract(layer, root, options, ident) for layer in layers]

    def _extract(self, layer: Layer, root: str, options: ExtractOptions, ident: str) -> LayerTree:
        options = replace(options, max_bytes=self._allowed(layer))
        with self._only_one(layer.diff_id):
            known = self._layer_trees.get(layer.diff_id) or self._load_tree(layer.diff_id)
            if known is not None:
                with self._reading(layer, ident) as plain:
                    extract(plain, root, options=replace(options, hash_files=False), seen=lambda _: None)
                return known
            with self._store.tree_writer() as index:
                writer = IndexWriter(index.stream)
                with self._reading(layer, ident) as plain:
                    writer.finish(extract(plain, root, options=options, seen=writer.add).tree.files)
                index.commit(layer.diff_id)
            made = self._load_tree(layer.diff_id)
            assert made is not None
            return made

    def tar(self, layer: Layer, /) -> BinaryIO:
        """The uncompressed tar; fetches the blob if it is not there."""
        self.fetch([layer], trees=False)
        return decompressor(self._store.images.open(layer.descriptor))

    def tar_of(self, chain: Chain) -> Callable[[Digest], BinaryIO]:
        """Opens layers of the chain by diff_id."""
        known = {layer.diff_id: layer for layer in chain}

        def open_layer(diff_id: Digest) -> BinaryIO:
            return self.tar(known[diff_id])

        return open_layer

    # --- trees ---------------------------------------------------------------

    def _has_tree(self, layer: Layer) -> bool:
        return layer.diff_id in self._layer_trees or self._load_tree(layer.diff_id) is not None

    def _load_tree(self, diff_id: Digest) -> LayerTree | None:
        try:
            tree = LayerTree.stored(lambda: self._open_tree(diff_id))
        except ContentError:
            return None  # not there, of another version, or broken: it is made
        self._layer_trees[diff_id] = tree
        return tree

    def _open_tree(self, diff_id: Digest) -> BinaryIO:
        stream = self._store.open_tree(diff_id)
        if stream is None:
            raise ContentError(f"the store has no index of the layer {diff_id}")
        return stream

    def layer_tree(self, layer: Layer) -> LayerTree:
        """The index of one layer; streams the layer if nobody has it."""
        self.fetch([layer], trees=True)
        return self._layer_trees[layer.diff_id]

    def tree(self, chain: Chain) -> Tree:
        """The merged tree of the chain; streams the layers whose trees are not known."""
        key = chain_id(chain)
        with self._lock:
            found = self._trees.get(key)
        if found is not None:
            return found
        self.fetch(chain, trees=True)
        known = len(chain)
        while (found := self._trees.get(chain_id(chain[:known]))) is None:
            known -= 1  # ends at 0: the tree of the empty chain is always there
        tree = found
        for layer in chain[known:]:
            tree = tree.apply(self._layer_trees[layer.diff_id], layer.diff_id)
        with self._lock:
            self._trees[key] = tree
        return tree

    # --- an image's content --------------------------------------------------

    def open(self, descriptor: Descriptor, /) -> BinaryIO:
        """BlobSource: the store first, then where the layer came from."""
        if self._store.images.blobs.has(descriptor):
            return self._store.images.open(descriptor)
        for origin in {id(item.source): item for item in self._origins.values()}.values():
            try:
                return origin.source.open(descriptor)
            except ImageNotFoundError:
                continue
        raise ImageNotFoundError(f"blob {descriptor.digest} is not in the store")


class _Counter:
    """Reports how many bytes of a blob came, at most every 256 KiB, and stops when the build is cancelled."""

    def __init__(self, report: Reporter, step: str, descriptor: Descriptor, cancel: Cancel) -> None:
        self._report = report
        self._step = step
        self._descriptor = descriptor
        self._cancel = cancel
        self._done = 0
        self._told = 0

    def __call__(self, count: int) -> None:
        self._cancel.check()
        self._done += count
        if self._done - self._told >= 1 << 18 or self._done == self._descriptor.size:
            self._told = self._done
            self._report(StepProgress(self._step, self._descriptor.digest.short, self._done, self._descriptor.size))


