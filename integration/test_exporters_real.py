"""What we export is taken by the real tools: skopeo, umoci, docker, podman."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Docker, Registry, tool

from kpy.errors import SignatureError, StoreError
from kpy.exporter.base import Artifact
from kpy.exporter.convert import to_docker
from kpy.exporter.docker import DockerArchiveExporter
from kpy.exporter.load import Loader, LoadExporter
from kpy.exporter.oci import OciArchiveExporter, OciLayoutExporter
from kpy.exporter.push import PushExporter, Target
from kpy.oci import mediatype
from kpy.oci.reference import Reference
from kpy.registry.client import RegistryClient
from kpy.signing import cosign
from kpy.signing.keys import PrivateKey
from tests.exporter.exporting import make_image, several, tar_of
from tests.fakes import MemoryRepository

MANIFEST_TYPES = [mediatype.OCI_MANIFEST, mediatype.DOCKER_MANIFEST]


@pytest.fixture(autouse=True)
def engine(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The docker client finds the engine of the tests."""
    monkeypatch.setenv("DOCKER_HOST", docker.socket)


def run(*argv: object) -> str:
    program, *more = [str(item) for item in argv]
    done = subprocess.run([tool(program), *more], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def hello(family: str = mediatype.OCI_MANIFEST, layer_type: str = mediatype.OCI_LAYER_GZIP) -> Artifact:
    layers = tar_of({"bin/hello": b"\x7fELF", "etc/x": b"x"}), tar_of({"etc/x": b"changed " * 1000})
    artifact = Artifact((make_image(MemoryRepository(), *layers, layer_type=layer_type),))
    return to_docker(artifact) if mediatype.is_docker(family) else artifact


@pytest.fixture
def name() -> Iterator[Reference]:
    found = Reference.parse(f"kpy-test-{uuid.uuid4().hex[:12]}:v1")
    yield found
    for program in ("docker", "podman"):
        for image in (found.familiar, f"localhost/{found.familiar}"):
            subprocess.run([program, "rmi", "-f", image], check=False, capture_output=True)


def test_skopeo_reads_the_directory_and_the_archive(tmp_path: Path, name: Reference) -> None:
    # OCI types only: skopeo does not look at docker manifests in a layout.
    artifact = hello()
    OciLayoutExporter(tmp_path / "l", (name,)).export(artifact)
    OciArchiveExporter(tmp_path / "a.tar", (name,)).export(artifact)
    for place in (f"oci:{tmp_path / 'l'}:v1", f"oci-archive:{tmp_path / 'a.tar'}"):
        found = json.loads(run("skopeo", "inspect", place))
        assert found["Digest"] == str(artifact.descriptor.digest)
        assert found["Layers"] == [str(layer.digest) for layer in artifact.images[0].manifest.layers]
    run("skopeo", "--insecure-policy", "copy", f"oci:{tmp_path / 'l'}:v1", f"dir:{tmp_path / 'd'}")
    assert (tmp_path / "d" / "manifest.json").read_bytes() == artifact.root.raw


def test_skopeo_copies_an_index_with_attestations(tmp_path: Path, name: Reference) -> None:
    artifact = several()
    OciLayoutExporter(tmp_path / "l", (name,)).export(artifact)
    run("skopeo", "--insecure-policy", "copy", "--all", f"oci:{tmp_path / 'l'}:v1", f"oci:{tmp_path / 'm'}:v1")
    [entry] = json.loads((tmp_path / "m" / "index.json").read_bytes())["manifests"]
    assert entry["digest"] == str(artifact.descriptor.digest)


def test_umoci_unpacks(tmp_path: Path, name: Reference) -> None:
    OciLayoutExporter(tmp_path / "l", (name,)).export(hello())
    rootless = ["--rootless"] if os.geteuid() else []
    run("umoci", "unpack", *rootless, "--image", f"{tmp_path / 'l'}:v1", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/etc/x").read_bytes() == b"changed " * 1000
    assert "v1" in run("umoci", "list", "--layout", tmp_path / "l")
    run("umoci", "gc", "--layout", tmp_path / "l")  # may lock and clean where we are
    OciLayoutExporter(tmp_path / "l", (name.with_tag("v2"),)).export(hello())
    assert run("umoci", "list", "--layout", tmp_path / "l").split() == ["v1", "v2"]


@pytest.mark.parametrize("program", ["docker", "podman"])
@pytest.mark.parametrize("layer_type", [mediatype.OCI_LAYER_GZIP, mediatype.OCI_LAYER])
@pytest.mark.parametrize("family", MANIFEST_TYPES)
def test_docker_and_podman_load(tmp_path: Path, name: Reference, program: str, layer_type: str, family: str) -> None:
    artifact = hello(family, layer_type)
    DockerArchiveExporter(tmp_path / "a.tar", (name, name.with_tag("v2"))).export(artifact)
    said = run(program, "load", "-i", tmp_path / "a.tar")
    assert name.familiar in said
    try:
        for tag in ("v1", "v2"):
            [found] = json.loads(run(program, "image", "inspect", name.with_tag(tag).familiar))
            assert found["Id"].removeprefix("sha256:") == artifact.images[0].manifest.config.digest.hex
            assert found["RootFS"]["Layers"] == [str(layer.diff_id) for layer in artifact.images[0].chain]
    finally:
        subprocess.run([program, "rmi", "-f", name.with_tag("v2").familiar], check=False, capture_output=True)


@pytest.mark.parametrize("program", ["docker", "podman"])
def test_the_image_is_loaded(name: Reference, program: str) -> None:
    """--load"""
    loader = Loader(program, tool(program), os.environ)
    loader.check()
    result = LoadExporter(loader, (name,)).export(hello())
    assert result.names == (str(name),)
    assert run(program, "inspect", "--type", "image", "--format", "{{.Config.Cmd}}", name.familiar).strip() == "[/hello]"


def test_what_an_engine_refuses_is_said(name: Reference) -> None:
    broken = Artifact((make_image(MemoryRepository(), b"this is no tar", layer_type=mediatype.OCI_LAYER),))
    with pytest.raises(StoreError, match="docker load failed: .*"):
        LoadExporter(Loader.find(os.environ), (name,)).export(broken)


@pytest.mark.parametrize("program", ["docker", "podman"])
def test_one_layer_twice_and_no_name(tmp_path: Path, program: str) -> None:
    tar = tar_of({f"{uuid.uuid4().hex}": b"x"})
    image = make_image(MemoryRepository(), tar, tar)
    DockerArchiveExporter(tmp_path / "a.tar").export(Artifact((image,)))
    said = run(program, "load", "-i", tmp_path / "a.tar")
    ident = image.manifest.config.digest.hex
    assert ident in said
    run(program, "rmi", "-f", ident)


def test_podman_loads_the_oci_archive(tmp_path: Path, name: Reference) -> None:
    artifact = hello()
    OciArchiveExporter(tmp_path / "a.tar", (name,)).export(artifact)
    run("podman", "load", "-i", tmp_path / "a.tar")
    run("podman", "rmi", "-f", artifact.images[0].manifest.config.digest.hex)


def test_skopeo_reads_the_docker_archive(tmp_path: Path, name: Reference) -> None:
    artifact = hello()
    DockerArchiveExporter(tmp_path / "a.tar", (name,)).export(artifact)
    found = json.loads(run("skopeo", "inspect", f"docker-archive:{tmp_path / 'a.tar'}:{name.familiar}"))
    assert len(found["Layers"]) == 2
    with pytest.raises(AssertionError):
        run("skopeo", "inspect", f"docker-archive:{tmp_path / 'a.tar'}:none:v1")


@pytest.mark.parametrize("family", MANIFEST_TYPES)
def test_a_real_registry_takes_it_and_docker_pulls_it(family: str, registry: Registry) -> None:
    artifact, key = hello(family), PrivateKey.generate()
    reference = Reference.parse(f"{registry.host}/kpy-test/{uuid.uuid4().hex[:12]}:v1")
    with RegistryClient() as client:
        repository = client.repository(reference, writable=True)
        for _ in range(2):  # the second time it is all there, and signed already
            PushExporter(
                (Target(repository, (reference,)),),
                sign=lambda where, name, root: cosign.sign_manifest(where, name, root, key) and None,
            ).export(artifact)
        [payload] = cosign.verify_manifest(repository, reference, repository.resolve("v1"), key.public)
        assert payload.digest == artifact.descriptor.digest
        with pytest.raises(SignatureError):
            cosign.verify_manifest(repository, reference, artifact.descriptor, PrivateKey.generate().public)
    for pull in (["docker", "pull"], ["podman", "pull", "--tls-verify=false"]):
        run(*pull, reference)
        run(pull[0], "rmi", "-f", reference)
    raw = run("skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{reference}")
    assert raw.encode() == artifact.root.raw
    signatures = cosign.signature_tag(artifact.descriptor.digest)
    found = json.loads(
        run("skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{reference.with_tag(signatures)}")
    )
    assert [layer["mediaType"] for layer in found["layers"]] == [mediatype.COSIGN_PAYLOAD]
