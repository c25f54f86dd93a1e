"""The registry client against the real docker registry (distribution), with and without a password.

Starts its own `docker-registry serve`, which must be installed: without it these tests fail, not skip.
"""

import io
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kpy.errors import AuthenticationError, DigestMismatchError, ImageNotFoundError, RegistryError
from kpy.oci import mediatype
from kpy.oci.config import ImageConfig
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.manifest import Manifest, build_index, build_manifest
from kpy.oci.platform import Platform
from kpy.oci.reference import Reference
from kpy.registry import upload as uploads
from kpy.registry.client import RegistryClient
from kpy.registry.credentials import Credentials
from kpy.registry.repository import RemoteRepository
from kpy.registry.resolve import resolve_image

USER, PASSWORD = "builder", "pass:word"
# bcrypt of PASSWORD, as `htpasswd -nbB` writes it
HTPASSWD = "builder:$2b$05$U01zAkiVqm63YIV97dfr3OeGdpJi3RrJANuMw2JVHFJOaZX0aOyIS\n"


@contextmanager
def serve(directory: Path, *, password: bool) -> Iterator[str]:
    """A registry of our own on a free port; gives host:port."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    assert program, "docker-registry is not installed"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{sock.getsockname()[1]}"
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": host, "secret": "for this test"},
    }
    if password:
        (directory / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    (directory / "config.yml").write_text(json.dumps(config))  # YAML holds JSON
    process = subprocess.Popen(
        [program, "serve", str(directory / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            try:
                socket.create_connection((host.partition(":")[0], int(host.partition(":")[2])), 1).close()
                break
            except OSError:
                assert process.poll() is None, "docker-registry ended"
                time.sleep(0.05)
        yield host
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("plain"), password=False) as host:
        yield host


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("locked"), password=True) as host:
        yield host


def config_for(host: str, password: str = PASSWORD) -> Credentials:
    entry = {"username": USER, "password": password}
    return Credentials([("config.json", json.dumps({"auths": {host: entry}}).encode())])


def push_image(repository: RemoteRepository, text: bytes, architecture: str) -> Manifest:
    layer = repository.put(io.BytesIO(text), Descriptor(mediatype.OCI_LAYER, Digest.of(text), len(text)))
    config = ImageConfig(Platform("linux", architecture), diff_ids=(Digest.of(text),)).encode()
    stored = repository.put(io.BytesIO(config), Descriptor(mediatype.OCI_CONFIG, Digest.of(config), len(config)))
    manifest = build_manifest(stored, [layer])
    repository.put_manifest(manifest.raw, manifest.media_type)
    return manifest


def test_images_there_and_back(plain: str) -> None:
    reference = Reference.parse(f"{plain}/team/app:1")
    with RegistryClient() as client:
        repository = client.repository(reference, writable=True)
        repository.check_push()
        assert repository.resolve("1") is None
        with pytest.raises(ImageNotFoundError, match="team/app:1: not found"):
            resolve_image(repository, reference, Platform.parse("linux/amd64"))
        entries = []
        for architecture in ("amd64", "arm64"):
            made = push_image(repository, architecture.encode() * 1000, architecture)
            descriptor = made.descriptor
            entries.append(
                Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, Platform("linux", architecture))
            )
        index = build_index(entries)
        repository.put_manifest(index.raw, index.media_type, tag="1")
        repository.put_manifest(index.raw, index.media_type, tag="2")
        found = resolve_image(repository, reference, Platform.parse("linux/arm64"))
        assert found.reference.digest == index.descriptor.digest
        assert str(found.platform) == "linux/arm64"
        with repository.open(found.manifest.layers[0]) as stream:
            assert stream.read() == b"arm64" * 1000
        assert sorted(repository.tags()) == ["1", "2"]
        with pytest.raises(ImageNotFoundError, match="no image for linux/s390x"):
            resolve_image(repository, reference, Platform.parse("linux/s390x"))


def test_referrers_of_a_registry_that_knows_none(plain: str) -> None:
    with RegistryClient() as client:
        repository = client.repository(Reference.parse(f"{plain}/team/signed"))
        subject = push_image(repository, b"signed", "amd64").descriptor
        empty = repository.put(io.BytesIO(b"{}"), Descriptor(mediatype.OCI_EMPTY, Digest.of(b"{}"), 2))
        signature = build_manifest(empty, [empty], subject=subject, artifact_type="application/x-signature")
        repository.put_manifest(signature.raw, signature.media_type)
        assert [item.digest for item in repository.referrers(subject.digest)] == [signature.descriptor.digest]
        assert list(repository.referrers(subject.digest, "application/other")) == []


def test_blobs_are_mounted_found_and_refused(plain: str) -> None:
    data = os.urandom(3 << 20)
    blob = Descriptor(mediatype.OCI_LAYER, Digest.of(data), len(data))
    with RegistryClient() as client:
        first = client.repository(Reference.parse(f"{plain}/first"))
        second = client.repository(Reference.parse(f"{plain}/second"))
        assert first.stat(blob.digest) is None
        assert first.upload(blob, lambda: io.BytesIO(data)) == "uploaded"
        assert first.upload(blob, lambda: io.BytesIO(data)) == "exists"
        assert second.upload(blob, lambda: io.BytesIO(data), mount_from=["nosuch", "first"]) == "mounted"
        assert second.stat(blob.digest) == len(data)
        with pytest.raises(DigestMismatchError):
            first.upload(Descriptor(mediatype.OCI_LAYER, Digest.of(b"else"), 3), lambda: io.BytesIO(b"abc"))


def test_chunks_are_resumed_by_a_real_registry(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHUNK", 1 << 20)
    data = os.urandom((3 << 20) + 17)
    blob = Descriptor(mediatype.OCI_LAYER, Digest.of(data), len(data))
    broken = []

    class Breaks(io.BytesIO):
        """Breaks off once, as a connection does: the first pieces are at the registry by then."""

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 2 << 20 and not broken:
                broken.append(self.tell())
                raise ConnectionBrokeError
            return super().read(size)

    class ConnectionBrokeError(RegistryError):
        def __init__(self) -> None:
            super().__init__("broke", code="lost")

    with RegistryClient(sleep=lambda _: None) as client:
        repository = client.repository(Reference.parse(f"{plain}/chunked"))
        assert repository.upload(blob, lambda: Breaks(data)) == "uploaded"
        assert broken
        with repository.open(blob) as stream:
            assert stream.read() == data


def test_a_password_is_wanted(locked: str) -> None:
    reference = Reference.parse(f"{locked}/app:1")
    with RegistryClient() as client:
        with pytest.raises(AuthenticationError, match=f"registry {locked} wants credentials for app"):
            client.repository(reference).resolve("1")
        with pytest.raises(AuthenticationError):
            client.repository(reference).check_push()
        with pytest.raises(AuthenticationError):
            client.ping(locked)
    with RegistryClient(credentials=config_for(locked, "wrong")) as client:
        with pytest.raises(AuthenticationError, match=r"refused the credentials of config\.json for app"):
            client.repository(reference).resolve("1")
    with RegistryClient(credentials=config_for(locked)) as client:
        client.ping(locked)
        repository = client.repository(reference)
        made = push_image(repository, b"secret", "amd64")
        repository.put_manifest(made.raw, made.media_type, tag="1")
        assert resolve_image(repository, reference, Platform.parse("linux/amd64")).manifest == made
