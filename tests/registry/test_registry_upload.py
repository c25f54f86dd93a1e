"""Uploads and pushes against the fake registry (N10-N14, N28, N29, N32, N35)."""

import io
import json

import pytest

from kpy.errors import AuthenticationError, DigestMismatchError, ImageNotFoundError, RegistryError, StoreError
from kpy.oci import mediatype
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.manifest import build_manifest
from kpy.oci.reference import Reference
from kpy.registry import upload as uploads
from kpy.registry.listing import fallback_tag
from tests.registry.served import add_image
from tests.registry_server import Bearer, CutRequest, Drop, Headers, RegistryServer, Status

BLOB = bytes(range(256)) * 12288  # 3 MiB


def describe(data):
    return Descriptor(mediatype.OCI_LAYER_GZIP, Digest.of(data), len(data))


def push(repo, data=BLOB, **others):
    return repo.upload(describe(data), lambda: io.BytesIO(data), **others)


def held(server, data=BLOB, name="app"):
    return server.repo(name).blobs.get(str(Digest.of(data))) == data


def test_one_request_after_the_start(server, repo):  # N10, N12
    sent = []
    assert push(repo, progress=sent.append) == "uploaded"
    assert held(server)
    assert [line.partition("?")[0].partition(" ")[0] for line in server.lines] == ["GET", "HEAD", "POST", "PUT"]
    assert server.requests[-1].sent == len(BLOB)
    assert sent == [1 << 20, 2 << 20, 3 << 20, 3 << 20]


def test_what_is_there_is_not_sent(server, repo):  # N10
    server.add_blob("app", BLOB)
    assert repo.upload(describe(BLOB), lambda: pytest.fail("opened")) == "exists"
    assert server.count("POST") == 0


@pytest.mark.parametrize("data", [b"", b"x"])
def test_tiny_blobs(server, repo, data):
    assert push(repo, data) == "uploaded"
    assert held(server, data)


@pytest.mark.parametrize("data", [b"x", b"xy", BLOB])
def test_tiny_blobs_in_chunks(server, repo, data, monkeypatch):  # N13
    server.monolithic = False
    monkeypatch.setattr(uploads, "CHUNK", 1 << 20)
    assert push(repo, data) == "uploaded"
    assert held(server, data)
    assert server.uploads == {}  # the refused one was cancelled


def test_chunks_are_as_long_as_the_registry_wants(server, repo, monkeypatch):  # N13
    server.monolithic, server.chunk_min = False, 2 << 20
    monkeypatch.setattr(uploads, "CHUNK", 1 << 20)
    push(repo)
    patches = [item for item in server.requests if item.method == "PATCH"]
    assert [item.headers["Content-Range"] for item in patches] == ["0-2097151", "2097152-3145727"]


def test_relative_locations(server, repo):  # N35
    server.relative_locations = True
    assert push(repo) == "uploaded"
    assert held(server)


def test_mounted_instead_of_sent(server, repo):  # N11
    server.add_blob("base", BLOB)
    assert repo.upload(describe(BLOB), lambda: pytest.fail("opened"), mount_from=["app", "nosuch", "base"]) == "mounted"
    assert held(server)
    assert server.uploads == {}
    assert repo.mount(Digest.of(BLOB), "base")
    assert not repo.mount(Digest.of(b"else"), "base")
    assert server.uploads == {}


def test_a_refused_mount_becomes_the_upload(server, repo):  # N11
    server.mounts = False
    assert push(repo, mount_from=["base"]) == "uploaded"
    assert server.count("POST") == 1
    server.fault(Status(405), method="POST", path="mount=")
    assert push(repo, b"other", mount_from=["base"]) == "uploaded"


def test_mounting_asks_for_both_repositories(server, connect):  # N04
    server.auth = Bearer()
    server.add_blob("base", BLOB)
    server.repo("app")
    config = {"auths": {server.host: {"username": "user", "password": "pass:word"}}}
    repo = connect(config=config).repository(Reference.parse(f"{server.host}/app"), writable=True)
    assert push(repo, mount_from=["base"]) == "mounted"
    assert server.count(r"GET /token.*scope=repository%3Aapp%3Apull%2Cpush&scope=repository%3Abase%3Apull") == 1


def test_a_broken_upload_goes_on(server, repo):  # N14
    server.fault(CutRequest(1_500_000), method="PUT")
    assert push(repo) == "uploaded"
    assert held(server)
    patch = next(item for item in server.requests if item.method == "PATCH")
    assert patch.headers["Content-Range"].startswith("1500000-")


def test_a_broken_upload_begins_anew_where_it_cannot_go_on(server, repo):
    server.upload_status = False
    server.fault(CutRequest(1_500_000), method="PUT", times=2)
    assert push(repo) == "uploaded"
    assert held(server)
    assert server.count("POST") == 3


def test_a_chunk_out_of_step(server, repo, monkeypatch):  # N13: 416
    server.monolithic = False
    monkeypatch.setattr(uploads, "CHUNK", 1 << 20)
    server.fault(CutRequest(400_000), method="PATCH")
    assert push(repo) == "uploaded"
    server.fault(Status(416), method="PATCH", times=2)
    assert push(repo, BLOB + b"2") == "uploaded"
    assert held(server, BLOB + b"2")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_registries(server, repo, clock, status):  # N15, N16
    server.fault(Status(status, headers={"Retry-After": "5"}), method="PUT", times=2)
    assert push(repo) == "uploaded"
    assert clock.slept == [5.5, 6.0]


def test_uploads_that_always_break_end(server, repo, clock):
    server.fault(Drop(), method="PUT", times=99)
    with pytest.raises(RegistryError):
        push(repo)
    assert len(clock.slept) == 3


def test_a_registry_that_takes_nothing(server, repo):
    server.monolithic = False
    server.fault(Status(202, headers={"Range": "0-0"}), method="PATCH", times=99)
    with pytest.raises(RegistryError, match="takes only 1 of 3145728 bytes"):
        push(repo)
    assert server.count("PATCH") == 4


def test_wrong_content_is_refused_by_the_registry(server, repo):
    with pytest.raises(DigestMismatchError, match="is not sha256:"):
        repo.upload(describe(BLOB), lambda: io.BytesIO(b"x" + BLOB[1:]))
    assert not held(server)


@pytest.mark.parametrize("data", [BLOB[:-1], BLOB + b"x", b""])
def test_a_source_of_another_length(server, repo, data):
    with pytest.raises(DigestMismatchError):
        repo.upload(describe(BLOB), lambda: io.BytesIO(data))
    assert server.repo("app").blobs == {}


def test_a_source_that_fails(server, repo, clock):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    with pytest.raises(StoreError, match="cannot read the blob to upload: Input/output error"):
        repo.upload(describe(BLOB), Broken)
    assert clock.slept == []


def test_sources_are_closed(server, repo):
    opened = []

    def source():
        opened.append(io.BytesIO(BLOB))
        return opened[-1]

    server.fault(CutRequest(100), method="PUT")
    repo.upload(describe(BLOB), source)
    assert len(opened) == 2
    assert all(stream.closed for stream in opened)


def test_no_rights_no_retries(server, connect, clock):
    server.auth = Bearer(anonymous_pull=True)
    repo = connect().repository(Reference.parse(f"{server.host}/app"))
    with pytest.raises(AuthenticationError, match="wants credentials for app") as caught:
        push(repo)
    assert "docker login" in caught.value.hint
    with pytest.raises(AuthenticationError):
        repo.check_push()
    assert clock.slept == []


def test_a_repository_that_must_be_created_first(server, repo, clock):  # N35: ECR
    server.fault(Status(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"create it"}]}'), method="POST", times=9)
    with pytest.raises(ImageNotFoundError, match="create it"):
        push(repo)
    assert server.count("POST") == 1


def test_check_push_leaves_nothing(server, repo):
    repo.check_push()
    assert server.uploads == {}
    assert server.lines[-1].startswith("DELETE")


def test_put_streams(server, repo):
    class Pipe(io.RawIOBase):
        def __init__(self, data):
            self.source = io.BytesIO(data)

        def readable(self):
            return True

        def read(self, size=-1):
            return self.source.read(size)

    assert repo.put(io.BytesIO(BLOB)).digest == Digest.of(BLOB)
    assert repo.put(Pipe(b"piped")).digest == Digest.of(b"piped")
    assert held(server)
    assert held(server, b"piped")
    for stream in (io.BytesIO(b"wrong"), Pipe(b"wrong"), Pipe(b"longer than expected")):
        with pytest.raises(DigestMismatchError):
            repo.put(stream, describe(b"right"))
    started = io.BytesIO(b"skip|rest")
    started.read(5)
    assert repo.put(started, describe(b"rest")).size == 4


def image(server, name="app", **others):
    config, layer = server.add_blob(name, b"{}"), server.add_blob(name, BLOB)
    return build_manifest(
        Descriptor(mediatype.OCI_CONFIG, Digest.parse(config), 2),
        [Descriptor(mediatype.OCI_LAYER_GZIP, Digest.parse(layer), len(BLOB))],
        **others,
    )


def test_manifests_by_digest_and_tag(server, repo):
    manifest = image(server)
    found = repo.put_manifest(manifest.raw, manifest.media_type)
    assert repo.resolve(str(found.digest)) == found
    repo.put_manifest(manifest.raw, manifest.media_type, tag="v1")
    assert repo.resolve("v1") == found
    assert server.repo("app").manifests[str(found.digest)][1] == manifest.raw


def test_a_manifest_is_sent_again_after_trouble(server, repo):
    manifest = image(server)
    server.fault(Status(503), method="PUT", times=2)
    server.fault(Drop(), method="PUT")
    assert repo.put_manifest(manifest.raw, manifest.media_type, tag="v1")


def test_a_registry_that_stores_something_else(server, repo):
    manifest = image(server)
    server.fault(Headers({"Docker-Content-Digest": str(Digest.of(b"else"))}), method="PUT")
    with pytest.raises(DigestMismatchError):
        repo.put_manifest(manifest.raw, manifest.media_type)


def test_an_immutable_tag_with_the_same_content_is_fine(server, repo):  # N32
    manifest = image(server)
    repo.put_manifest(manifest.raw, manifest.media_type, tag="v1")
    refusal = Status(400, b'{"errors":[{"code":"TAG_INVALID","message":"the tag is immutable"}]}')
    server.fault(refusal, method="PUT", times=2)
    repo.put_manifest(manifest.raw, manifest.media_type, tag="v1")
    other = image(server, annotations={"a": "b"})
    with pytest.raises(RegistryError, match="immutable"):
        repo.put_manifest(other.raw, other.media_type, tag="v1")


@pytest.mark.parametrize("supported", [True, False])
def test_referrers(server, repo, supported):  # N29
    server.referrers = supported
    server.page_size = 2
    subject = repo.put_manifest(image(server).raw, mediatype.OCI_MANIFEST, tag="1")
    assert list(repo.referrers(subject.digest)) == []
    for number, kind in enumerate(["a/sbom", "a/sbom", "a/signature"]):
        manifest = image(server, subject=subject, artifact_type=kind, annotations={"n": str(number)})
        repo.put_manifest(manifest.raw, manifest.media_type)
        repo.put_manifest(manifest.raw, manifest.media_type)  # listed once all the same
    assert [item.annotations["n"] for item in repo.referrers(subject.digest)] == ["0", "1", "2"]
    assert [item.annotations["n"] for item in repo.referrers(subject.digest, "a/signature")] == ["2"]
    assert (fallback_tag(subject.digest) in server.repo("app").tags) is not supported


def test_tokens_are_renewed_in_a_long_push(server, connect, clock):  # N03
    server.auth = Bearer(expires_in=60)
    config = {"auths": {server.host: {"username": "user", "password": "pass:word"}}}
    repo = connect(config=config).repository(Reference.parse(f"{server.host}/app"), writable=True)
    push(repo, b"one")
    push(repo, b"two")
    assert server.count("/token") == 1
    clock.now += 55
    push(repo, b"three")
    assert server.count("/token") == 2
    server.revoke_tokens()
    clock.now += 20
    push(repo, b"four")
    assert server.count("/token") == 3


def test_a_token_refused_in_the_middle_of_an_upload(server, connect, clock):
    server.auth = Bearer()
    config = {"auths": {server.host: {"username": "user", "password": "pass:word"}}}
    repo = connect(config=config).repository(Reference.parse(f"{server.host}/app"), writable=True)
    push(repo, b"one")
    clock.now += 30
    server.fault(Status(401, b"", {"WWW-Authenticate": f'Bearer realm="{server.url}/token",service="fake"'}), method="PUT")
    push(repo)
    assert held(server)
    assert server.count("/token") == 2


def test_a_copy_between_registries(server, repo, connect):
    with RegistryServer() as other:
        entry = add_image(other, "base", "1")
        source = connect().repository(Reference.parse(f"{other.host}/base:1"))
        with source.open(source.resolve("1")) as stream:
            raw = stream.read()
        for item in [json.loads(raw)["config"], *json.loads(raw)["layers"]]:
            descriptor = Descriptor.from_json(item)
            repo.upload(descriptor, lambda wanted=descriptor: source.open(wanted))
        assert str(repo.put_manifest(raw, entry["mediaType"], tag="1").digest) == entry["digest"]
