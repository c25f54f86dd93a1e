"""cosign's signatures in a registry: an artifact under the tag `sha256-<hex>.sig`, a layer for each signature.

Reads and writes through a Repository; whether to trust what is read is decided in `verify`.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

from kpy.errors import ContentError, ImageNotFoundError, SignatureError
from kpy.oci import manifest, mediatype
from kpy.oci.content import Repository
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.reference import DOCKER_HUB, Reference
from kpy.signing import verify
from kpy.signing.base import Signature, Signer, Verifier
from kpy.util import canonical

SIGNATURE = "dev.cosignproject.cosign/signature"
_MAX_PAYLOAD = 1 << 20
_MAX_SIGNATURES = 1000


def signature_tag(digest: Digest) -> str:
    """The tag under which the signatures of a manifest are."""
    return f"{digest.algorithm}-{digest.hex}.sig"


def repository_name(reference: Reference) -> str:
    """The repository as cosign writes it into payloads."""
    registry = "index.docker.io" if reference.registry == DOCKER_HUB else reference.registry
    return f"{registry}/{reference.repository}"


def sign_manifest(
    repository: Repository,
    reference: Reference,
    descriptor: Descriptor,
    signer: Signer,
    *,
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """Sign the manifest; gives the descriptor of the artifact that holds its signatures.

    Signatures of other keys stay; an older one of this key for this digest is replaced. `annotations` are signed too.
    """
    said = verify.Payload(descriptor.digest, repository_name(reference), dict(annotations or {}))
    payload = verify.encode_payload(said)
    signature = base64.b64encode(signer.sign(payload)).decode()
    layer = Descriptor(
        mediatype.COSIGN_PAYLOAD, Digest.of(payload), len(payload), annotations={SIGNATURE: signature}
    )
    repository.put(BytesIO(payload), replace(layer, annotations={}))
    old = _signatures_manifest(repository, descriptor.digest)
    layers = [
        item
        for item in (old.layers if old else ())
        if not _is_replaced(repository, item, signer, descriptor.digest)
    ]
    return _put_artifact(repository, [*layers, layer], signature_tag(descriptor.digest))


def _put_artifact(repository: Repository, layers: Sequence[Descriptor], tag: str) -> Descriptor:
    # The empty config that go-containerregistry makes, with the payloads as diff_ids: they are not compressed.
    data: dict[str, Any] = {
        "architecture": "",
        "created": "0001-01-01T00:00:00Z",
        "history": [{"created": "0001-01-01T00:00:00Z"} for _ in layers],
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": [str(item.digest) for item in layers]},
        "config": {},
    }
    raw = canonical.dumps(data)
    config = Descriptor(mediatype.OCI_CONFIG, Digest.of(raw), len(raw))
    repository.put(BytesIO(raw), config)
    built = manifest.build_manifest(config, layers)
    return repository.put_manifest(built.raw, built.media_type, tag=tag)


def _is_replaced(repository: Repository, layer: Descriptor, signer: Signer, digest: Digest) -> bool:
    try:
        found = _read(repository, layer)
        return (
            signer.verifies(found.payload, found.signature)
            and verify.parse_payload(found.payload).digest == digest
        )
    except SignatureError:
        return False  # not ours to judge: it stays


def verify_manifest(
    repository: Repository, reference: Reference, descriptor: Descriptor, key: Verifier
) -> list[verify.Payload]:
    """What the signatures by this key say of the manifest, at least one. Raises SignatureError with the reason:
    there are none, none is by this key, or they are for another manifest."""
    name = f"{reference.registry}/{reference.repository}@{descriptor.digest}"
    return verify.verify_any(find_signatures(repository, descriptor.digest), key, descriptor.digest, name)


def find_signatures(repository: Repository, digest: Digest) -> list[Signature]:
    """Every readable signature stored for a manifest, whatever it is worth.

    Raises SignatureError when there are signatures, but all of them are broken.
    """
    artifact = _signatures_manifest(repository, digest)
    found = []
    broken: SignatureError | None = None
    for layer in artifact.layers if artifact else ():
        try:
            found.append(_read(repository, layer))
        except SignatureError as error:
            broken = broken or error
    if broken and not found:
        raise broken
    return found


def _signatures_manifest(repository: Repository, digest: Digest) -> manifest.Manifest | None:
    tag = signature_tag(digest)
    descriptor = repository.resolve(tag)
    if descriptor is None:
        return None
    if descriptor.size > mediatype.MAX_MANIFEST_SIZE:
        raise SignatureError(f"{tag} is too large to be a list of signatures")
    with repository.open(descriptor) as stream:
        raw = stream.read()
    try:
        found = manifest.parse(raw, descriptor.media_type)
    except ContentError as error:
        raise SignatureError(f"{tag} is not a list of signatures: {error.message}") from error
    if not isinstance(found, manifest.Manifest) or len(found.layers) > _MAX_SIGNATURES:
        raise SignatureError(f"{tag} is not a list of signatures")
    return found


def _read(repository: Repository, layer: Descriptor) -> Signature:
    try:
        if layer.media_type != mediatype.COSIGN_PAYLOAD or layer.size > _MAX_PAYLOAD:
            raise SignatureError(f"the signature {layer.digest} is broken: no payload of cosign's")
        signature = base64.b64decode(layer.annotations[SIGNATURE], validate=True)
        with repository.open(layer) as stream:
            return Signature(stream.read(), signature)
    except (KeyError, ValueError) as error:
        raise SignatureError(f"the signature {layer.digest} is broken: it has no base64 in {SIGNATURE}") from error
    except (ContentError, ImageNotFoundError) as error:
        raise SignatureError(f"the signature {layer.digest} is broken: {error.message}") from error
