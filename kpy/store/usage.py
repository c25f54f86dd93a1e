"""How much the store holds, by kind."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kpy.oci.image import Layer
from kpy.store.gc import reachable
from kpy.store.store import Store
from kpy.util.checkpoint import checked


@dataclass(frozen=True, slots=True)
class Usage:
    """One kind of content: how many files, their bytes on disk, and how many of those nothing needs."""

    kind: str
    count: int
    bytes: int
    reclaimable: int


def usage(store: Store, kept_layers: Iterable[Layer] = ()) -> tuple[Usage, ...]:
    """What the store holds. `kept_layers`: those of the cache records."""
    used = reachable(store.images, kept_layers)
    blobs = list(store.images.blobs.digests())
    unused = sum(size for digest, size in blobs if digest not in used.blobs)
    trees, tree_bytes = _measure(store.directory / "trees")
    records, record_bytes = _measure(store.cache)
    snapshots, snapshot_bytes = _measure(store.snapshots)
    return (
        Usage("blobs", len(blobs), sum(size for _, size in blobs), unused),
        Usage("trees", trees, tree_bytes, tree_bytes),
        Usage("cache records", records, record_bytes, record_bytes),
        Usage("snapshots", snapshots, snapshot_bytes, snapshot_bytes),
    )


def _measure(directory: Path) -> tuple[int, int]:
    """How many entries are right in the directory, and the bytes that all files below take; links count once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    try:
        count = len(os.listdir(directory))
    except OSError:
        return 0, 0
    waiting = [os.fspath(directory)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in checked(entries):
                    found = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif (found.st_dev, found.st_ino) not in seen:
                        seen.add((found.st_dev, found.st_ino))
                        total += found.st_blocks * 512
        except OSError:
            continue  # removed meanwhile, or not readable for us
    return count, total
