"""Media types of one family or the other, never mixed (N25)."""

import json

import pytest

from kpy.errors import ContentError
from kpy.exporter.base import Artifact, Part
from kpy.exporter.convert import to_docker, to_oci
from kpy.oci import mediatype
from kpy.oci.manifest import build_manifest
from tests.exporter.exporting import make_image, one, several, tar_of
from tests.fakes import MemoryRepository


def types(artifact: Artifact) -> set[str]:
    return {
        found
        for image in artifact.images
        for found in (image.manifest.media_type, image.manifest.config.media_type, *(d.media_type for d in image.manifest.layers))
    }


def test_there_and_back() -> None:
    artifact = one()
    docker = to_docker(artifact)
    assert types(docker) == {mediatype.DOCKER_MANIFEST, mediatype.DOCKER_CONFIG, mediatype.DOCKER_LAYER_GZIP}
    assert docker.images[0].chain[0].descriptor.media_type == mediatype.DOCKER_LAYER_GZIP
    assert docker.images[0].manifest.config.digest == artifact.images[0].manifest.config.digest
    assert json.loads(docker.root.raw)["mediaType"] == mediatype.DOCKER_MANIFEST
    assert to_oci(docker) == artifact
    assert to_docker(docker) == docker
    assert to_oci(artifact).root.raw is artifact.root.raw


def test_index_follows_its_manifests() -> None:
    content = MemoryRepository()
    artifact = several(content)
    artifact = Artifact(artifact.images, artifact.index, artifact.attachments[:1])
    docker = to_docker(artifact)
    assert docker.index.media_type == mediatype.DOCKER_INDEX
    assert [item.digest for item in docker.index.manifests[:2]] == [i.manifest.descriptor.digest for i in docker.images]
    assert [item.platform for item in docker.index.manifests] == [item.platform for item in artifact.index.manifests]
    about = docker.index.manifests[2].annotations["vnd.docker.reference.digest"]
    assert about == str(docker.images[0].manifest.descriptor.digest)
    assert to_oci(docker) == artifact


def test_zstd_has_no_docker_name() -> None:
    image = make_image(MemoryRepository(), tar_of({"a": b"a"}), layer_type=mediatype.OCI_LAYER_ZSTD)
    with pytest.raises(ContentError, match="zstd") as caught:
        to_docker(Artifact((image,)))
    assert caught.value.hint


def test_what_is_referred_to_is_not_renamed() -> None:
    content = MemoryRepository()
    image = make_image(content, tar_of({"a": b"a"}))
    empty = content.put_bytes(b"{}", mediatype.OCI_EMPTY)
    part = Part(build_manifest(empty, [], subject=image.manifest.descriptor), content)
    with pytest.raises(ContentError, match="refers to it"):
        to_docker(Artifact((image,), attachments=(part,)))
