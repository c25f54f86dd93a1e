"""What signs, and what checks a signature. Knows nothing of envelopes."""

from dataclasses import dataclass
from typing import Protocol


class Signer(Protocol):
    """Signs bytes with one private key."""

    @property
    def key_id(self) -> str:
        """Names the key: the digest of its public half."""
        ...

    def sign(self, payload: bytes, /) -> bytes:
        """The signature of the payload, as cosign makes it for this kind of key."""
        ...

    def verifies(self, payload: bytes, signature: bytes, /) -> bool:
        """Was this signature made with this very key?"""
        ...


class Verifier(Protocol):
    """Checks signatures with one public key."""

    @property
    def key_id(self) -> str:
        """Names the key: the digest of its public half."""
        ...

    def verifies(self, payload: bytes, signature: bytes, /) -> bool:
        """Was this signature of this payload made with the key's private half?"""
        ...


@dataclass(frozen=True, slots=True)
class Signature:
    """A payload and a signature of it, as they were found."""

    payload: bytes
    signature: bytes
