"""Digests (OCI image-spec, descriptor.md#digests): parse, compute, print."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from kpy.errors import ContentError

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_FORM = re.compile(r"(sha256|sha512):([0-9a-f]+)")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`algorithm:hex`, of a supported algorithm, valid once constructed.

    Raises ContentError when the algorithm is not supported or the hex is not of its length.
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        if len(self.hex) != _HEX_LENGTH.get(self.algorithm, -1) or not _FORM.fullmatch(str(self)):
            raise ContentError(f"invalid digest {str(self)[:160]!r}")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first 12 hex digits, for people."""
        return self.hex[:12]

    def hasher(self) -> Any:
        """A new hashlib object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    @staticmethod
    def parse(text: str) -> "Digest":
        """Read `sha256:…` or `sha512:…`. Raises ContentError."""
        algorithm, _, value = text.partition(":")
        return Digest(algorithm, value)

    @staticmethod
    def of(data: bytes) -> "Digest":
        """The sha256 digest of the bytes."""
        return Digest("sha256", hashlib.sha256(data).hexdigest())
