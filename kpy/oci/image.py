"""Images as immutable values: a chain of layers, a configuration, and where the content is."""

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

from kpy.oci.config import ImageConfig
from kpy.oci.content import BlobSource
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer: its blob, and the digest of its uncompressed tar."""

    descriptor: Descriptor
    diff_id: Digest


Chain: TypeAlias = tuple[Layer, ...]


def chain_id(chain: Chain) -> Digest | None:
    """The ChainID (OCI image-spec, config.md#layer-chainid); None for the empty chain."""
    found: Digest | None = None
    for layer in chain:
        if found is None:
            found = layer.diff_id
        else:
            found = Digest("sha256", hashlib.sha256(f"{found} {layer.diff_id}".encode()).hexdigest())
    return found


@dataclass(frozen=True, slots=True)
class Image:
    """One image for one platform. `content` gives its config and its layers, fetching them when asked."""

    manifest: Manifest
    config: ImageConfig
    chain: Chain
    content: BlobSource
