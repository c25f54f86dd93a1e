"""What a snapshotter is. A snapshot is only a disk cache of a chain; implementations stand beside this file."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from kpy.layer.entry import LayerItem
from kpy.layer.extract import ExtractOptions
from kpy.layer.index import LayerTree
from kpy.oci.image import Chain, Layer


class LayerContent(Protocol):
    """Knows where layers are."""

    def extract(self, layers: Chain, root: str, options: ExtractOptions, /) -> Sequence[LayerTree]:
        """Apply the layers, the lowest first, to the directory: in one pass, also of what is only in a registry.

        Gives their indexes. Each is verified against blob digest and diff_id. Raises ContentError, StoreError or
        RegistryError; the directory is then not to be used.
        """
        ...

    def layer_tree(self, layer: Layer, /) -> LayerTree:
        """The index of a layer that was just made of a snapshot's changes, with the digests of its files."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A writable root file system that holds `chain`. `key` is the implementation's own."""

    chain: Chain
    root: str
    key: str = ""


class Snapshotter(Protocol):
    """Makes root file systems of chains and tells what changed in them."""

    @property
    def capacity(self) -> int:
        """How many prepared snapshots may be in use at once: 1 for a live root."""
        ...

    def prepare(self, chain: Chain, base: int, /) -> AbstractContextManager[Snapshot]:
        """A writable root that holds the chain, until the block ends; changes not committed are then dropped.

        The first `base` layers are those of the base image: worth keeping for other builds. Layers are taken from
        the snapshotter's LayerContent. Raises ContentError, StoreError (disk full), SandboxError.
        """
        ...

    def view(self, chain: Chain, /) -> AbstractContextManager[str | None]:
        """The path of a read-only root that holds the chain if one is at hand without unpacking, else None."""
        ...

    def changes(self, active: Snapshot, /) -> Iterator[LayerItem]:
        """What a RUN changed, exactly, as a layer has it: sorted, whiteouts only for what the chain has, hard links
        after their target, parents of what changed included. No mount point, nothing below one."""
        ...

    def commit(self, active: Snapshot, layer: Layer, /) -> None:
        """The changes are now `layer`: keep what is on disk as the snapshot of `active.chain + (layer,)`."""
        ...
