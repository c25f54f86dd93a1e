"""cosign's signatures: what is written, what is kept, and every reason not to trust (3.4)."""

import base64
import json
from dataclasses import replace
from io import BytesIO

import pytest

from kpy.errors import SignatureError
from kpy.oci import manifest, mediatype
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.reference import Reference
from kpy.signing import cosign, verify
from kpy.signing.keys import PrivateKey
from tests.fakes import MemoryRepository

KEY, OTHER = PrivateKey.generate(), PrivateKey.generate()
REF = Reference.parse("registry.example.com/team/app:v1")
IMAGE = Descriptor(mediatype.OCI_MANIFEST, Digest.of(b"image"), 5)
TAG = f"sha256-{IMAGE.digest.hex}.sig"


def signed(*keys: PrivateKey) -> MemoryRepository:
    repository = MemoryRepository()
    for key in keys:
        cosign.sign_manifest(repository, REF, IMAGE, key)
    return repository


def read(repository: MemoryRepository) -> manifest.Manifest:
    found = repository.resolve(TAG)
    return manifest.parse(repository.blobs[found.digest], found.media_type)


def test_what_is_written_is_what_cosign_writes() -> None:
    repository = signed(KEY)
    found = read(repository)
    [layer] = found.layers
    assert layer.media_type == "application/vnd.dev.cosign.simplesigning.v1+json"
    payload = repository.blobs[layer.digest]
    assert payload == (
        b'{"critical":{"identity":{"docker-reference":"registry.example.com/team/app"},"image":'
        b'{"docker-manifest-digest":"' + str(IMAGE.digest).encode() + b'"},'
        b'"type":"cosign container image signature"},"optional":null}'
    )
    assert KEY.verifies(payload, base64.b64decode(layer.annotations["dev.cosignproject.cosign/signature"]))
    config = json.loads(repository.blobs[found.config.digest])
    assert found.config.media_type == mediatype.OCI_CONFIG
    assert config["rootfs"]["diff_ids"] == [str(layer.digest)]
    # payload and config first, the tag last
    assert repository.log == [str(layer.digest), str(found.config.digest), TAG]


def test_docker_hub_is_named_as_cosign_does() -> None:
    assert cosign.repository_name(Reference.parse("alpine")) == "index.docker.io/library/alpine"


def test_sign_and_verify() -> None:
    repository = MemoryRepository()
    cosign.sign_manifest(repository, REF, IMAGE, KEY, annotations={"commit": "abc"})
    [payload] = cosign.verify_manifest(repository, REF, IMAGE, KEY.public)
    assert payload == verify.Payload(IMAGE.digest, "registry.example.com/team/app", {"commit": "abc"})


def test_signatures_of_others_stay_and_our_own_is_replaced() -> None:
    repository = signed(OTHER, KEY, KEY)
    assert len(read(repository).layers) == 2
    for key in (KEY, OTHER):
        assert len(cosign.verify_manifest(repository, REF, IMAGE, key.public)) == 1


def test_no_signature() -> None:
    with pytest.raises(SignatureError, match=f"app@{IMAGE.digest} has no signature"):
        cosign.verify_manifest(MemoryRepository(), REF, IMAGE, KEY.public)


def test_signed_with_another_key() -> None:
    with pytest.raises(SignatureError, match="has 1 signature, not made with the key SHA256:"):
        cosign.verify_manifest(signed(OTHER), REF, IMAGE, KEY.public)
    with pytest.raises(SignatureError, match="has 2 signatures, none made"):
        cosign.verify_manifest(signed(OTHER, PrivateKey.generate()), REF, IMAGE, KEY.public)


def test_signature_moved_to_a_changed_manifest() -> None:
    repository = signed(KEY)
    changed = Descriptor(mediatype.OCI_MANIFEST, Digest.of(b"changed"), 7)
    repository.tagged[cosign.signature_tag(changed.digest)] = repository.tagged[TAG]
    with pytest.raises(SignatureError, match=f"for {IMAGE.digest}, not for {changed.digest}"):
        cosign.verify_manifest(repository, REF, changed, KEY.public)


def put_signature(repository: MemoryRepository, payload: bytes, signature: bytes | str, *, lie: bytes | None = None) -> None:
    text = signature if isinstance(signature, str) else base64.b64encode(signature).decode()
    layer = repository.put(BytesIO(payload), Descriptor(mediatype.COSIGN_PAYLOAD, Digest.of(payload), len(payload)))
    if lie is not None:
        repository.blobs[layer.digest] = lie
    config = repository.put_bytes(b"{}", mediatype.OCI_CONFIG)
    built = manifest.build_manifest(config, [replace(layer, annotations={cosign.SIGNATURE: text})])
    repository.put_manifest(built.raw, built.media_type, tag=TAG)


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"null", b'{"critical":3}', b'{"critical":{"image":{"docker-manifest-digest":7}}}', b"[" * 99_999]
)
def test_malformed_payload(payload: bytes) -> None:
    repository = MemoryRepository()
    put_signature(repository, payload, KEY.sign(payload))
    with pytest.raises(SignatureError, match="malformed signature payload"):
        cosign.verify_manifest(repository, REF, IMAGE, KEY.public)


def test_payload_of_another_type() -> None:
    repository = MemoryRepository()
    payload = verify.encode_payload(verify.Payload(IMAGE.digest, "x")).replace(b"cosign container", b"atomic container")
    put_signature(repository, payload, KEY.sign(payload))
    with pytest.raises(SignatureError, match="of type 'atomic container image signature'"):
        cosign.verify_manifest(repository, REF, IMAGE, KEY.public)


def test_payload_changed_in_the_registry() -> None:
    payload = verify.encode_payload(verify.Payload(IMAGE.digest, "x"))
    repository = MemoryRepository()
    put_signature(repository, payload, KEY.sign(payload), lie=payload.replace(b"x", b"y"))
    with pytest.raises(SignatureError, match="is broken"):
        cosign.verify_manifest(repository, REF, IMAGE, KEY.public)


@pytest.mark.parametrize("text", ["", "!", "AAAA", "é"])
def test_signature_that_is_none(text: str) -> None:
    repository = MemoryRepository()
    put_signature(repository, verify.encode_payload(verify.Payload(IMAGE.digest, "x")), text)
    with pytest.raises(SignatureError):
        cosign.verify_manifest(repository, REF, IMAGE, KEY.public)
    cosign.sign_manifest(repository, REF, IMAGE, KEY)
    assert cosign.verify_manifest(repository, REF, IMAGE, KEY.public)


def test_the_tag_is_something_else() -> None:
    repository = MemoryRepository()
    index = manifest.build_index([])
    repository.put_manifest(index.raw, index.media_type, tag=TAG)
    with pytest.raises(SignatureError, match="not a list of signatures"):
        cosign.verify_manifest(repository, REF, IMAGE, KEY.public)


def test_a_good_signature_among_bad_ones_is_enough() -> None:
    repository = MemoryRepository()
    put_signature(repository, b"{", KEY.sign(b"{"))
    cosign.sign_manifest(repository, REF, IMAGE, OTHER)
    cosign.sign_manifest(repository, REF, IMAGE, KEY)
    assert len(read(repository).layers) == 3
    assert len(cosign.verify_manifest(repository, REF, IMAGE, KEY.public)) == 1


def test_another_repository_is_reported_not_refused() -> None:
    repository = signed(KEY)
    [payload] = cosign.verify_manifest(repository, Reference.parse("mirror.example.com/app:v1"), IMAGE, KEY.public)
    assert payload.reference == "registry.example.com/team/app"
