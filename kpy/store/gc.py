"""Garbage collection: what is reachable from the names in the store stays, the rest goes.

Works alone in the store (`Store.alone`), so that no build can be about to use what it removes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kpy.errors import ContentError, ImageNotFoundError
from kpy.oci import config, manifest, mediatype
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Layer
from kpy.store.layout import LayoutRepository
from kpy.store.store import Store
from kpy.util.cancel import Cancel
from kpy.util.checkpoint import checked, checkpoint


@dataclass(frozen=True, slots=True)
class Collected:
    """What garbage collection removed, or would remove."""

    blobs: int = 0
    trees: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Reachable:
    """What is in use: blobs by digest, trees and layer records by diff_id."""

    blobs: frozenset[Digest]
    diff_ids: frozenset[Digest]


def reachable(images: LayoutRepository, layers: Iterable[Layer] = ()) -> Reachable:
    """All that index.json leads to, and these layers (those of the cache records that are to stay).

    An unnamed manifest with a subject (a signature, an attestation) stays exactly as long as its subject does.
    """
    found = _Walk(images)
    for layer in layers:
        found.blobs.add(layer.descriptor.digest)
        found.diff_ids.add(layer.diff_id)
    waiting = []
    for name, entry in images.named():
        subject = None if name else found.subject(entry)
        if subject is None:
            found.visit(entry)
        else:
            waiting.append((subject, entry))
    while ready := [item for item in waiting if item[0] in found.blobs]:
        waiting = [item for item in waiting if item[0] not in found.blobs]
        for _, entry in ready:
            found.visit(entry)
    return Reachable(frozenset(found.blobs), frozenset(found.diff_ids))


class _Walk:
    def __init__(self, images: LayoutRepository) -> None:
        self._images = images
        self.blobs: set[Digest] = set()
        self.diff_ids: set[Digest] = set()

    def _read(self, descriptor: Descriptor, limit: int) -> bytes | None:
        if descriptor.size > limit:
            return None
        try:
            with self._images.open(descriptor) as stream:
                return stream.read()
        except (ContentError, ImageNotFoundError):
            return None  # broken or not here: nothing to follow

    def _manifest(self, descriptor: Descriptor) -> manifest.ManifestOrIndex | None:
        raw = self._read(descriptor, mediatype.MAX_MANIFEST_SIZE)
        try:
            return None if raw is None else manifest.parse(raw, descriptor.media_type)
        except ContentError:
            return None

    def subject(self, descriptor: Descriptor) -> Digest | None:
        parsed = self._manifest(descriptor)
        return parsed.subject.digest if parsed and parsed.subject else None

    def visit(self, descriptor: Descriptor) -> None:
        waiting = [descriptor]
        while waiting:
            checkpoint()
            item = waiting.pop()
            if item.digest in self.blobs:
                continue
            self.blobs.add(item.digest)
            parsed = self._manifest(item) if item.media_type in (*mediatype.ACCEPT, "") else None
            match parsed:
                case manifest.Index():
                    waiting.extend(parsed.manifests)
                case manifest.Manifest():
                    self.blobs.add(parsed.config.digest)
                    self.blobs.update(layer.digest for layer in parsed.layers)
                    self._visit_config(parsed.config)
                case None:
                    pass

    def _visit_config(self, descriptor: Descriptor) -> None:
        raw = self._read(descriptor, mediatype.MAX_CONFIG_SIZE)
        try:
            self.diff_ids.update(config.parse(raw).diff_ids if raw else ())
        except ContentError:
            pass  # an artifact's config


def collect(
    store: Store,
    kept_layers: Callable[[], Iterable[Layer]],
    *,
    dry_run: bool = False,
    timeout: float | None = None,
    cancel: Cancel | None = None,
) -> Collected:
    """Remove every blob, tree and layer record that neither an image nor a kept layer needs.

    `kept_layers` is asked once no build runs any more. Raises StoreError if builds do not end within `timeout` seconds.
    """
    blobs = trees = size = 0
    with store.alone(timeout=timeout, cancel=cancel):
        store.remove_stale()
        used = reachable(store.images, kept_layers())
        for digest, length in checked(list(store.images.blobs.digests())):
            if digest not in used.blobs:
                blobs += 1
                size += length if dry_run else store.images.blobs.delete(digest)
        for diff_id in checked(list(store.diff_ids())):
            if diff_id not in used.diff_ids:
                trees += 1
                size += 0 if dry_run else store.forget(diff_id)
    return Collected(blobs, trees, size)
