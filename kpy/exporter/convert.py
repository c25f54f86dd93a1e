"""From OCI media types to docker's and back (N25). Only names change: every config and layer blob stays as it is."""

from collections.abc import Callable
from dataclasses import replace

from kpy.errors import ContentError
from kpy.exporter.base import Artifact, Part
from kpy.oci import mediatype
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Image
from kpy.oci.manifest import Manifest, build_index, build_manifest


def to_docker(artifact: Artifact) -> Artifact:
    """The artifact with docker's media types. What has them already comes back unchanged, bytes and all.

    Annotations of manifests go, docker's have none. Raises ContentError for zstd layers, for which docker has no name.
    """
    return _convert(artifact, mediatype.DOCKER_MANIFEST, mediatype.DOCKER_INDEX, _docker_layer)


def to_oci(artifact: Artifact) -> Artifact:
    """The artifact with OCI media types. What has them already comes back unchanged, bytes and all."""
    return _convert(artifact, mediatype.OCI_MANIFEST, mediatype.OCI_INDEX, _oci_layer)


def _docker_layer(layer: Descriptor) -> Descriptor:
    if mediatype.layer_compression(layer.media_type) == "zstd":
        raise ContentError(
            f"layer {layer.digest} is compressed with zstd, which docker's image format does not have",
            hint="use oci-mediatypes=true, or compression=gzip with force-compression=true",
        )
    foreign = mediatype.is_foreign(layer.media_type)
    name = mediatype.DOCKER_FOREIGN_GZIP if foreign else mediatype.as_docker_layer(layer.media_type)
    return Descriptor(name, layer.digest, layer.size, urls=layer.urls)


def _oci_layer(layer: Descriptor) -> Descriptor:
    if layer.media_type == mediatype.DOCKER_FOREIGN_GZIP:
        name = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    else:
        name = mediatype.as_oci_layer(layer.media_type)
    return replace(layer, media_type=name)


def _convert(
    artifact: Artifact, manifest_type: str, index_type: str, rename: Callable[[Descriptor], Descriptor]
) -> Artifact:
    moved: dict[Digest, Descriptor] = {}
    images = []
    for image in artifact.images:
        converted = _image(image, manifest_type, rename)
        moved[image.manifest.descriptor.digest] = converted.manifest.descriptor
        images.append(converted)
    changed = {old for old, new in moved.items() if new.digest != old}
    index = artifact.index
    if changed:
        for part in artifact.attachments:
            _refuse_subject(part, changed)
    if index and (changed or index.media_type != index_type):
        entries = [
            replace(item, media_type=moved[item.digest].media_type, digest=moved[item.digest].digest,
                    size=moved[item.digest].size) if item.digest in moved else _follow(item, moved)
            for item in index.manifests
        ]  # fmt: skip
        annotations = None if mediatype.is_docker(index_type) else index.annotations
        index = build_index(entries, media_type=index_type, annotations=annotations)
    return Artifact(tuple(images), index, artifact.attachments, artifact.annotations)


def _follow(item: Descriptor, moved: dict[Digest, Descriptor]) -> Descriptor:
    """An attestation's entry names the image it is about in an annotation."""
    key = "vnd.docker.reference.digest"
    about = item.annotations.get(key, "")
    target = next((new for old, new in moved.items() if str(old) == about), None)
    return replace(item, annotations={**item.annotations, key: str(target.digest)}) if target else item


def _refuse_subject(part: Part, changed: set[Digest]) -> None:
    subject = part.manifest.subject
    if subject and subject.digest in changed:
        raise ContentError(
            f"cannot change the media types of {subject.digest}: {part.manifest.descriptor.digest} refers to it",
            hint="choose the media types before attestations are made",
        )


def _image(image: Image, manifest_type: str, rename: Callable[[Descriptor], Descriptor]) -> Image:
    if image.manifest.media_type == manifest_type:
        return image
    docker = mediatype.is_docker(manifest_type)
    old = image.manifest
    config = replace(old.config, media_type=mediatype.DOCKER_CONFIG if docker else mediatype.OCI_CONFIG)
    new: Manifest = build_manifest(
        config,
        [rename(layer) for layer in old.layers],
        media_type=manifest_type,
        annotations=None if docker else old.annotations,
    )
    chain = tuple(replace(layer, descriptor=rename(layer.descriptor)) for layer in image.chain)
    return Image(new, image.config, chain, image.content)
