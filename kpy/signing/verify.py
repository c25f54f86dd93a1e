"""The decision whether signatures speak for a manifest. No I/O: bytes in, an answer or a reason out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kpy.errors import ContentError, SignatureError
from kpy.oci.digest import Digest
from kpy.signing.base import Signature, Verifier
from kpy.util import canonical

PAYLOAD_TYPE = "cosign container image signature"
_MAX_PAYLOAD = 1 << 20


@dataclass(frozen=True, slots=True)
class Payload:
    """What was signed: a manifest's digest, the repository it was in, and what else the signer said."""

    digest: Digest
    reference: str
    optional: Mapping[str, Any] = field(default_factory=dict, hash=False)


def encode_payload(payload: Payload) -> bytes:
    """The bytes to sign (containers/image, docs/atomic-signature.md, as cosign writes it)."""
    return canonical.dumps(
        {
            "critical": {
                "identity": {"docker-reference": payload.reference},
                "image": {"docker-manifest-digest": str(payload.digest)},
                "type": PAYLOAD_TYPE,
            },
            "optional": dict(sorted(payload.optional.items())) or None,
        }
    )


def parse_payload(data: bytes) -> Payload:
    """Read a payload. Raises SignatureError for what is none."""
    if len(data) > _MAX_PAYLOAD:
        raise SignatureError("malformed signature payload: it is too large")
    try:
        found = json.loads(data)
        critical = found["critical"]
        digest = Digest.parse(critical["image"]["docker-manifest-digest"])
        reference, kind = critical["identity"]["docker-reference"], critical["type"]
        optional = found.get("optional") or {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ContentError) as error:
        raise SignatureError(f"malformed signature payload: {type(error).__name__}") from error
    if not isinstance(reference, str) or not isinstance(kind, str) or not isinstance(optional, dict):
        raise SignatureError("malformed signature payload: wrong types")
    if kind != PAYLOAD_TYPE:
        raise SignatureError(f"the signature payload is of type {kind[:80]!r}, not {PAYLOAD_TYPE!r}")
    return Payload(digest, reference, optional)


def verify(found: Signature, key: Verifier, digest: Digest) -> Payload:
    """What this signature says, if it was made with the key and speaks of this digest. Raises SignatureError.

    The repository that the payload names is not compared, as cosign does not: images are copied with their signatures.
    """
    if not key.verifies(found.payload, found.signature):
        raise SignatureError(f"the signature was not made with the key {key.key_id}")
    payload = parse_payload(found.payload)
    if payload.digest != digest:
        raise SignatureError(
            f"the signature is for {payload.digest}, not for {digest}",
            hint="the manifest was changed after it was signed, or the signature was moved here",
        )
    return payload


def verify_any(signatures: Sequence[Signature], key: Verifier, digest: Digest, name: str) -> list[Payload]:
    """What the signatures that hold say, at least one. Raises SignatureError with the reason that tells most.

    `name` is what is verified, for messages.
    """
    if not signatures:
        raise SignatureError(f"{name} has no signature", hint="kpy build --push --sign-key KEY signs what it pushes")
    good = []
    ours: SignatureError | None = None
    for signature in signatures:
        if not key.verifies(signature.payload, signature.signature):
            continue
        try:
            good.append(verify(signature, key, digest))
        except SignatureError as error:
            ours = ours or error
    if good:
        return good
    if ours is not None:
        raise SignatureError(f"{name}: {ours.message}", hint=ours.hint)
    one = len(signatures) == 1
    raise SignatureError(
        f"{name} has {len(signatures)} signature{'' if one else 's'}, "
        f"{'not' if one else 'none'} made with the key {key.key_id}",
        hint="it was signed with another key: check which public key belongs to the signer",
    )
