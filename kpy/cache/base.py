"""What a build cache is: from the key of a step to the layer it made."""

from dataclasses import dataclass
from typing import Protocol

from kpy.oci.digest import Digest
from kpy.oci.image import Layer


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """The step with this key made this layer, or none. `created_at` is RFC 3339; `description` is for people."""

    key: Digest
    layer: Layer | None
    created_at: str = ""
    description: str = ""

    @property
    def empty(self) -> bool:
        """Did the step make no layer?"""
        return self.layer is None


class Cache(Protocol):
    """Finds and keeps records. Thread-safe."""

    def load(self, key: Digest, /) -> CacheRecord | None:
        """The record of the key, None if there is none or its layer is gone."""
        ...

    def save(self, record: CacheRecord, /) -> None:
        """Keep the record, in place of one with the same key."""
        ...
