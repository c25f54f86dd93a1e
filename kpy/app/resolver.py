"""Image names to images: the local store first, then the registry, each name once in a build (F14)."""

import threading
from dataclasses import replace

from kpy.app.options import RegistrySettings
from kpy.errors import BlobNotFoundError, DigestMismatchError, ImageNotFoundError, RegistryError
from kpy.events import Reporter, Warned, step
from kpy.oci import config as configs
from kpy.oci.content import BlobSource
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Image, Layer
from kpy.oci.platform import Platform
from kpy.oci.reference import Reference
from kpy.plan.model import BaseImage
from kpy.registry.client import RegistryClient
from kpy.registry.resolve import ResolvedImage, resolve_image
from kpy.store.store import Store

ImageConfig = configs.ImageConfig


class Resolver:
    """plan.model.ResolveImage. `pull`: ask the registry even for names that the store has.

    Remembers which repositories hold which blobs, so that a push can mount them (N11).
    """

    def __init__(
        self, store: Store, client: RegistryClient, report: Reporter, *, pull: bool, settings: RegistrySettings | None = None
    ) -> None:
        self._store = store
        self._client = client
        self._report = report
        self._pull = pull
        self._settings = settings or RegistrySettings()
        self._lock = threading.Lock()
        self._known: dict[tuple[Reference, Platform], BaseImage] = {}
        self._origins: dict[tuple[str, Digest], str] = {}

    def __call__(self, name: str, platform: Platform) -> BaseImage:
        """Find the image. Raises UsageError, RegistryError, ContentError."""
        reference = Reference.parse(name)
        with self._lock:
            if (reference, platform) not in self._known:
                self._known[reference, platform] = self._find(reference, platform)
            return self._known[reference, platform]

    def _find(self, reference: Reference, platform: Platform) -> BaseImage:
        asked, lost = reference, ""
        images = self._store.images
        name = str(reference.digest) if reference.digest else str(reference)
        if not self._pull and (top := images.resolve(name)) is not None:
            try:
                found = resolve_image(images, Reference(reference.registry, reference.repository, name), platform)
                lost = next((str(layer.digest) for layer in found.manifest.layers if not images.blobs.has(layer)), "")
                if not lost:
                    return self._base(reference, found, images)
            except BlobNotFoundError as error:
                lost = error.blob
            except DigestMismatchError:
                lost = next((str(blob.digest) for blob in images.blobs.remove_broken()), "")
                if not lost:
                    raise
            # Only the very same image: in a registry, another one may have this name.
            asked = reference.at(top.digest)
            self._report(Warned(f"blob {lost} of {reference.familiar} in the store is missing or broken; the image is asked for at its registry"))
        with step(self._report, f"resolve {reference} {platform}", f"load metadata for {reference}"):
            try:
                found, repository = self._fetch(asked, platform)
            except RegistryError as error:
                if lost:
                    error.hint = f"blob {lost} of the image in the local store is missing or broken: build it again, or import it"
                elif isinstance(error, ImageNotFoundError):
                    error.hint = error.hint or "is the name right? `kpy images` lists the images of the local store"
                raise
        for layer in found.manifest.layers:
            self._origins.setdefault((reference.registry, layer.digest), reference.repository)
        return self._base(reference, found, repository)

    def _fetch(self, reference: Reference, platform: Platform) -> tuple[ResolvedImage, BlobSource]:
        """From the mirrors in order, then from the registry itself (N18)."""
        mirrors = [mirror for registry, mirror in self._settings.mirrors if registry == reference.registry]
        places = [_mirrored(reference, mirror) for mirror in mirrors]
        if not (mirrors and self._settings.mirrors_only):
            places.append(reference)
        for number, place in enumerate(places):
            repository = self._client.repository(place)
            try:
                return resolve_image(repository, place, platform), repository
            except RegistryError as error:
                if number == len(places) - 1:
                    raise
                self._report(Warned(f"{reference.familiar} is not to be had from the mirror {mirrors[number]}: {error.message}"))
        raise AssertionError("the last place answers or raises")

    @staticmethod
    def _base(reference: Reference, found: ResolvedImage, content: BlobSource) -> BaseImage:
        chain = tuple(
            Layer(descriptor, diff_id)
            for descriptor, diff_id in zip(found.manifest.layers, found.config.diff_ids, strict=True)
        )
        image = Image(found.manifest, found.config, chain, content)
        digest = found.reference.digest or found.manifest.descriptor.digest
        return BaseImage(reference.familiar, image, digest, other_platform=not found.fits)

    def mount_from(self, blob: Descriptor, target: Reference) -> tuple[str, ...]:
        """The repositories of the same registry that have the blob."""
        found = self._origins.get((target.registry, blob.digest))
        return (found,) if found else ()


def _mirrored(reference: Reference, mirror: str) -> Reference:
    """The same image at HOST[:PORT][/PATH]."""
    host, _, path = mirror.partition("/")
    return replace(reference, registry=host, repository=f"{path}/{reference.repository}" if path else reference.repository)
