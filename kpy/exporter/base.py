"""What an exporter is given, and what it says when it is done."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from kpy.errors import ContentError
from kpy.oci import mediatype
from kpy.oci.content import BlobSource
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Image
from kpy.oci.manifest import Index, Manifest


@dataclass(frozen=True, slots=True)
class Part:
    """One manifest, and where its config and layers are."""

    manifest: Manifest
    content: BlobSource

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The layers that may be passed on (L13: not the foreign ones), then the config; each once."""
        found = {
            item.digest: item for item in self.manifest.layers if not mediatype.is_foreign(item.media_type)
        }
        found.pop(self.manifest.config.digest, None)
        return (*found.values(), self.manifest.config)


@dataclass(frozen=True, slots=True)
class Artifact:
    """The result of a build: one image, or several in an index.

    `attachments` are manifests that are no images: attestations, listed in the index or referring to what is here.
    `annotations` are of the descriptor of all of it, which layouts and archives have, and registries do not.
    Raises ContentError when the index lists a manifest that is not given, or there is no index for several images.
    """

    images: tuple[Image, ...]
    index: Index | None = None
    attachments: tuple[Part, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.index is None and len(self.images) != 1:
            raise ContentError(f"{len(self.images)} images need an index")
        if self.index:
            given = {part.manifest.descriptor.digest for part in self.parts}
            for item in self.index.manifests:
                if item.digest not in given:
                    raise ContentError(f"the index lists {item.digest}, which is not part of the build result")

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every manifest but the index: the images, then the attachments; subjects come before what refers to them."""
        return (*(Part(image.manifest, image.content) for image in self.images), *self.attachments)

    @property
    def root(self) -> Manifest | Index:
        """What a name is given to."""
        return self.index or self.images[0].manifest

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of `root`."""
        found = self.root.descriptor
        return replace(found, annotations={**found.annotations, **self.annotations}) if self.annotations else found


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was exported: its descriptor, the names it got, the paths that were written."""

    descriptor: Descriptor
    names: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()


class Exporter(Protocol):
    """Hands an artifact on. Either all of it arrives under its names, or nothing under any."""

    def export(self, artifact: Artifact, /) -> ExportResult:
        """Export. Raises KpyError."""
        ...


def all_blobs(artifact: Artifact) -> dict[Digest, tuple[Descriptor, BlobSource]]:
    """Every blob of the artifact that may be passed on, and its source; without the manifests."""
    found: dict[Digest, tuple[Descriptor, BlobSource]] = {}
    for part in artifact.parts:
        for blob in part.blobs:
            found.setdefault(blob.digest, (blob, part.content))
    return found


def all_manifests(artifact: Artifact) -> tuple[Manifest | Index, ...]:
    """Every manifest, then the index, in an order in which a registry takes them."""
    manifests: list[Manifest | Index] = [part.manifest for part in artifact.parts]
    if artifact.index:
        manifests.append(artifact.index)
        # What refers to the index comes after it.
        index = artifact.index.descriptor.digest
        manifests.sort(key=lambda item: item.subject is not None and item.subject.digest == index)
    return tuple(manifests)
