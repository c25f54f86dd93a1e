"""Images by platform (N22-N26), and what is said when there is none."""

import json

import pytest

from kpy.errors import ContentError, DigestMismatchError, ImageNotFoundError
from kpy.oci import mediatype
from kpy.oci.platform import Platform
from kpy.oci.reference import Reference
from kpy.registry.resolve import REFERENCE_TYPE, resolve_image
from tests.registry.served import add_image, add_index
from tests.registry_server import Corrupt, Status

AMD64 = Platform.parse("linux/amd64")


@pytest.fixture
def resolve(server, connect):
    server.repo("app")

    def run(name="app:1", platform="linux/amd64"):
        reference = Reference.parse(f"{server.host}/{name}")
        return resolve_image(connect().repository(reference), reference, Platform.parse(platform))

    return run


@pytest.mark.parametrize("docker", [False, True])
def test_a_single_image(server, resolve, docker):  # N25
    entry = add_image(server, "app", "1", layers=2, docker=docker)
    found = resolve()
    assert str(found.reference) == f"{server.host}/app:1@{entry['digest']}"
    assert found.index is None
    assert found.fits
    assert found.platform == AMD64
    assert len(found.manifest.layers) == len(found.config.diff_ids) == 2
    assert json.loads(found.config_raw)["architecture"] == "amd64"
    assert found.config.runtime.env == ("A=b",)


def test_another_platform_is_said(server, resolve):  # N24
    add_image(server, "app", "1", arch="s390x")
    found = resolve()
    assert not found.fits
    assert str(found.platform) == "linux/s390x"
    add_image(server, "app", "arm", arch="arm", variant="v6")
    assert resolve("app:arm", "linux/arm/v7").fits


@pytest.mark.parametrize("kind", [mediatype.OCI_INDEX, mediatype.DOCKER_INDEX])
def test_an_index(server, resolve, kind):  # N23
    docker = kind == mediatype.DOCKER_INDEX
    entries = [add_image(server, "app", arch=arch, variant=v, docker=docker) for arch, v in (("arm", "v6"), ("arm64", ""), ("amd64", ""))]
    attestation = {**add_image(server, "app", arch="amd64", layers=3), "platform": {"os": "unknown", "architecture": "unknown"}}
    marked = {**attestation, "platform": {"os": "linux", "architecture": "amd64"}, "annotations": {REFERENCE_TYPE: "attestation-manifest"}}
    digest = add_index(server, "app", "1", [attestation, marked, *entries], kind)
    for wanted, position in (("linux/amd64", 2), ("linux/amd64/v3", 2), ("linux/arm64", 1), ("linux/arm/v7", 0), ("linux/arm/v6", 0)):
        found = resolve(platform=wanted)
        assert str(found.manifest.descriptor.digest) == entries[position]["digest"]
        assert str(found.reference.digest) == str(found.index.digest) == digest
        assert found.fits
    assert resolve(f"app@{digest}").index.size == found.index.size


def test_no_such_platform(server, resolve):
    entries = [add_image(server, "app", arch=arch) for arch in ("ppc64le", "arm64")]
    add_index(server, "app", "1", entries)
    with pytest.raises(ImageNotFoundError, match=r"127.0.0.1:\d+/app:1: no image for linux/amd64") as caught:
        resolve()
    assert caught.value.hint == "it has linux/arm64, linux/ppc64le"
    add_index(server, "app", "2", [])
    with pytest.raises(ImageNotFoundError):
        resolve("app:2")


def test_indexes_within_indexes_end(server, resolve):
    entry = add_image(server, "app")
    inner = add_index(server, "app", "", [entry])
    size = len(server.repo("app").manifests[inner][1])
    add_index(server, "app", "1", [{"mediaType": mediatype.OCI_INDEX, "digest": inner, "size": size}])
    assert str(resolve().manifest.descriptor.digest) == entry["digest"]
    for level in range(5):
        inner = add_index(server, "app", f"deep{level}", [{"mediaType": mediatype.OCI_INDEX, "digest": inner, "size": size}])
        size = len(server.repo("app").manifests[inner][1])
    with pytest.raises(ContentError, match="indexes within indexes"):
        resolve("app:deep4")


def test_what_is_not_there_is_named(server, resolve):
    with pytest.raises(ImageNotFoundError, match=r"^127.0.0.1:\d+/app:nosuch: not found$"):
        resolve("app:nosuch")
    with pytest.raises(ImageNotFoundError, match=r"nosuch:latest: not found") as caught:
        resolve("nosuch")
    assert caught.value.code == "NAME_UNKNOWN"
    assert "has no repository nosuch" in caught.value.hint


@pytest.mark.parametrize("kind", mediatype.DOCKER_SCHEMA1)
def test_schema1(server, resolve, kind):  # N22
    server.add_manifest("app", {"schemaVersion": 1, "name": "app", "fsLayers": []}, kind, "1")
    with pytest.raises(ContentError, match="docker schema 1"):
        resolve()


def test_artifacts_are_no_images(server, resolve):
    raw = server.add_blob("app", b"{}")
    config = {"mediaType": mediatype.OCI_EMPTY, "digest": raw, "size": 2}
    server.add_manifest("app", {"schemaVersion": 2, "config": config, "layers": []}, mediatype.OCI_MANIFEST, "1")
    with pytest.raises(ContentError, match="not an image but an artifact"):
        resolve()


def test_layers_and_configuration_must_agree(server, resolve):
    add_image(server, "app", "1", layers=2, rootfs={"type": "layers", "diff_ids": []})
    with pytest.raises(ContentError, match="2 layers, but its configuration lists 0"):
        resolve()


def test_corrupt_answers(server, resolve):  # N26
    add_image(server, "app", "1")
    server.fault(Corrupt(), method="GET", path="/manifests/")
    with pytest.raises(DigestMismatchError):
        resolve()
    server.fault(Corrupt(), method="GET", path="/blobs/")
    with pytest.raises(DigestMismatchError):
        resolve()


def test_a_huge_configuration_is_not_fetched(server, resolve):
    config = {"mediaType": mediatype.OCI_CONFIG, "digest": server.add_blob("app", b"{}"), "size": 1 << 40}
    server.add_manifest("app", {"schemaVersion": 2, "config": config, "layers": []}, mediatype.OCI_MANIFEST, "1")
    with pytest.raises(ContentError, match="larger than 8 MiB"):
        resolve()


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "", mediatype.OCI_MANIFEST + "; charset=utf-8"])
def test_wrong_content_types_do_not_matter(server, resolve, kind):
    entry = add_image(server, "app", "1")
    _, raw = server.repo("app").manifests[entry["digest"]]
    server.repo("app").manifests[entry["digest"]] = (kind, raw)
    assert str(resolve().reference.digest) == entry["digest"]


def test_html_instead_of_a_manifest(server, resolve):
    server.fault(Status(200, b"<html>", {"Content-Type": "text/html"}), path="/manifests/", times=9)
    with pytest.raises(ContentError, match="not JSON"):
        resolve()
