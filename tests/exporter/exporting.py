"""Images to export, and a registry in memory, for the tests of the exporters."""

import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO

from kpy.errors import RegistryError
from kpy.exporter.base import Artifact, Part
from kpy.oci import mediatype
from kpy.oci.config import History, ImageConfig, RuntimeConfig
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Image, Layer
from kpy.oci.manifest import build_index, build_manifest
from kpy.oci.platform import Platform
from tests.fakes import MemoryRepository


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_image(
    content: MemoryRepository,
    *layers: bytes,
    architecture: str = "amd64",
    layer_type: str = mediatype.OCI_LAYER_GZIP,
    family: str = mediatype.OCI_MANIFEST,
) -> Image:
    """An image with these tars as layers."""
    chain = []
    for tar in layers:
        blob = gzip.compress(tar, mtime=0) if layer_type.endswith("gzip") else tar
        chain.append(Layer(content.put_bytes(blob, layer_type), Digest("sha256", hashlib.sha256(tar).hexdigest())))
    config = ImageConfig(
        Platform("linux", architecture),
        RuntimeConfig(cmd=("/hello",)),
        tuple(layer.diff_id for layer in chain),
        tuple(History(created="2024-01-01T00:00:00Z", created_by="COPY") for _ in chain),
        created="2024-01-01T00:00:00Z",
    )
    docker = mediatype.is_docker(family)
    blob = content.put_bytes(config.encode(), mediatype.DOCKER_CONFIG if docker else mediatype.OCI_CONFIG)
    found = build_manifest(blob, [layer.descriptor for layer in chain], media_type=family)
    return Image(found, config, tuple(chain), content)


def one(content: MemoryRepository | None = None) -> Artifact:
    """An image of two layers."""
    return Artifact(
        (make_image(content or MemoryRepository(), tar_of({"hello": b"#!/bin/sh\n"}), tar_of({"etc/x": b"x" * 5000})),)
    )


def several(content: MemoryRepository | None = None) -> Artifact:
    """An index of two platforms that share a layer, with an attestation in the index and one that refers to it."""
    content = content or MemoryRepository()
    shared = tar_of({"shared": b"s"})
    images = tuple(make_image(content, shared, tar_of({"a": name.encode()}), architecture=name) for name in ("amd64", "arm64"))
    entries = [
        Descriptor(d.media_type, d.digest, d.size, platform=image.config.platform)
        for image in images
        for d in [image.manifest.descriptor]
    ]
    statement = content.put_bytes(b'{"predicateType":"x"}', "application/vnd.in-toto+json")
    config = content.put_bytes(b'{"architecture":"unknown","os":"unknown"}', mediatype.OCI_CONFIG)
    attestation = build_manifest(config, [statement])
    listed = attestation.descriptor
    entries.append(
        Descriptor(listed.media_type, listed.digest, listed.size, platform=Platform("unknown", "unknown"),
                   annotations={"vnd.docker.reference.digest": str(entries[0].digest),
                                "vnd.docker.reference.type": "attestation-manifest"})
    )  # fmt: skip
    index = build_index(entries)
    empty = content.put_bytes(b"{}", mediatype.OCI_EMPTY)
    referrer = build_manifest(empty, [statement], subject=index.descriptor, artifact_type="application/vnd.x")
    return Artifact(images, index, (Part(attestation, content), Part(referrer, content)))


class MemoryRegistryRepository(MemoryRepository):
    """A Remote: what is in `elsewhere` can be mounted from the repository `base`. Fails for what is in `refused`."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: set[Digest] = set()
        self.refused: set[str] = set()
        self.outcomes: dict[Digest, str] = {}
        self.before_upload: Callable[[Descriptor], None] = lambda _: None
        self.uploading = threading.Lock()

    def upload(
        self,
        descriptor: Descriptor,
        open: Callable[[], BinaryIO],  # noqa: A002
        progress: Callable[[int], None],
        mount_from: Sequence[str],
    ) -> str:
        self.before_upload(descriptor)
        if str(descriptor.digest) in self.refused:
            raise RegistryError(f"refused {descriptor.digest}")
        if descriptor.digest in self.blobs:
            outcome = "exists"
        elif "base" in mount_from and descriptor.digest in self.elsewhere:
            self.blobs[descriptor.digest] = b""
            outcome = "mounted"
        else:
            with open() as stream:
                progress(descriptor.size // 2)
                self.put(stream, descriptor)
            outcome = "uploaded"
        self.outcomes[descriptor.digest] = outcome
        return outcome

    def put_manifest(self, raw: bytes, media_type: str, /, tag: str = "") -> Descriptor:
        if (tag or str(Digest.of(raw))) in self.refused:
            raise RegistryError(f"refused {tag or Digest.of(raw)}")
        return super().put_manifest(raw, media_type, tag)
