"""Pushing over HTTP to the fake registry: the requests, faults on the way, signatures that are found again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kpy.errors import InterruptedBuildError, KpyError
from kpy.events import StepProgress
from kpy.exporter.base import Artifact
from kpy.exporter.oci import OciLayoutExporter
from kpy.exporter.push import PushExporter, Remote, Target
from kpy.oci.image import Image
from kpy.oci.reference import Reference
from kpy.registry.client import RegistryClient
from kpy.registry.repository import RemoteRepository
from kpy.signing import cosign
from kpy.signing.keys import PrivateKey
from kpy.store.layout import LayoutRepository
from kpy.util.cancel import Cancel
from tests.exporter.exporting import make_image, one, several
from tests.fakes import MemoryRepository
from tests.registry_server import Cut, CutRequest, RegistryServer, Status

_: type[Remote] = RemoteRepository


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as found:
        for name in ("app", "base"):
            found.repo(name)
        yield found


@pytest.fixture
def client() -> Iterator[RegistryClient]:
    with RegistryClient(sleep=lambda _: None) as found:
        yield found


def target(server: RegistryServer, client: RegistryClient, name: str = "app", *tags: str) -> Target:
    references = tuple(Reference.parse(f"{server.host}/{name}:{tag}") for tag in tags or ("v1",))
    return Target(client.repository(references[0], writable=True), references)


def test_push_and_sign_then_verify(server: RegistryServer, client: RegistryClient) -> None:
    artifact, key = several(), PrivateKey.generate()
    to = target(server, client, "app", "v1", "latest")
    PushExporter(
        (to,), sign=lambda repository, reference, root: cosign.sign_manifest(repository, reference, root, key) and None
    ).export(artifact)
    puts = [line.split(" ")[1].rpartition("/")[2] for line in server.lines if line.startswith("PUT") and "/manifests/" in line]
    assert puts[-3:] == [cosign.signature_tag(artifact.descriptor.digest), "v1", "latest"]
    found = to.repository.resolve("v1")
    assert found.digest == artifact.descriptor.digest
    [payload] = cosign.verify_manifest(to.repository, to.references[0], found, key.public)
    assert payload.digest == found.digest
    assert [item.artifact_type for item in to.repository.referrers(found.digest)] == ["application/vnd.x"]


def test_second_push_uploads_nothing(server: RegistryServer, client: RegistryClient) -> None:
    for _ in range(2):
        PushExporter((target(server, client),)).export(one())
    assert server.count("POST /v2/app/blobs/uploads/") == 3


def test_base_layers_are_mounted(server: RegistryServer, client: RegistryClient) -> None:
    artifact = one()
    PushExporter((target(server, client, "base"),)).export(artifact)
    before = len(server.lines)
    PushExporter((target(server, client),), mount_from=lambda *_: ["base"]).export(artifact)
    requests = server.lines[before:]
    assert sum("mount=" in line for line in requests) == 3
    assert not any(line.startswith(("PATCH", "PUT /v2/app/blobs")) for line in requests)


@pytest.mark.parametrize("fault", [Status(503), CutRequest(100), Cut(0)])
def test_faults_on_the_way_are_survived(server: RegistryServer, client: RegistryClient, fault: object) -> None:
    artifact = one()
    server.fault(fault, method="PUT", times=2)
    PushExporter((target(server, client),)).export(artifact)
    assert target(server, client).repository.resolve("v1").digest == artifact.descriptor.digest


def test_a_registry_that_refuses_gets_no_tag(server: RegistryServer, client: RegistryClient) -> None:
    artifact = one()
    server.fault(Status(403, b'{"errors":[{"code":"DENIED","message":"quota"}]}'), path="/blobs/uploads/", times=99)
    with pytest.raises(KpyError, match="quota"):
        PushExporter((target(server, client),)).export(artifact)
    assert not any("/manifests/" in line for line in server.lines)


def test_from_a_layout_on_disk(server: RegistryServer, client: RegistryClient, tmp_path: Path) -> None:
    artifact = one()
    OciLayoutExporter(tmp_path / "l").export(artifact)
    [image] = artifact.images
    stored = Image(image.manifest, image.config, image.chain, LayoutRepository(tmp_path / "l"))
    PushExporter((target(server, client),)).export(Artifact((stored,)))
    assert server.repo("app")


def test_a_base_in_another_registry_passes_through(server: RegistryServer, client: RegistryClient) -> None:
    artifact = one()
    PushExporter((target(server, client, "base"),)).export(artifact)
    [image] = artifact.images
    remote = Image(image.manifest, image.config, image.chain, target(server, client, "base").repository)
    with RegistryServer() as other:
        other.repo("copy")
        PushExporter((target(other, client, "copy"),)).export(Artifact((remote,)))
        assert target(other, client, "copy").repository.resolve("v1").digest == artifact.descriptor.digest


def test_cancel_in_the_middle_of_an_upload(server: RegistryServer, client: RegistryClient) -> None:
    content = MemoryRepository()
    image = make_image(content, bytes(8 << 20), layer_type="application/vnd.oci.image.layer.v1.tar")
    with Cancel() as cancel:

        def report(event: object) -> None:
            if isinstance(event, StepProgress) and 0 < event.current < event.total:
                cancel.set()

        with pytest.raises(InterruptedBuildError):
            PushExporter((target(server, client),), report, cancel=cancel).export(Artifact((image,)))
    assert not any("/manifests/" in line for line in server.lines)
