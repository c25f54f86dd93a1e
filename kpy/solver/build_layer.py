"""From entries to a layer in the store: written, hashed and compressed in one pass, its tree kept with it."""

import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, cast

from kpy.layer.build import build_layer
from kpy.layer.entry import Entry, LayerItem
from kpy.oci import mediatype
from kpy.oci.image import Layer
from kpy.solver.copy import CAPABILITY
from kpy.solver.values import Services

SECOND = 1_000_000_000
_MOST_THREADS = 8  # more wait for the one that reads the files; each holds a few MiB
MEDIA_TYPES = {
    "gzip": mediatype.OCI_LAYER_GZIP,
    "zstd": mediatype.OCI_LAYER_ZSTD,
    "none": mediatype.OCI_LAYER,
}


def in_layer_form(entry: Entry) -> Entry:
    """As layers have it: whole seconds (containerd truncates them too), and only file capabilities as attributes."""
    mtime = entry.mtime // SECOND * SECOND
    xattrs = entry.xattrs
    if xattrs and any(key != CAPABILITY for key in xattrs):
        xattrs = {key: value for key, value in xattrs.items() if key == CAPABILITY}
    if mtime == entry.mtime and xattrs is entry.xattrs:
        return entry
    # three times as fast as dataclasses.replace
    return Entry(entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, mtime, entry.link,
                 entry.device, xattrs, entry.sha256)  # fmt: skip


def _checked(items: Iterable[LayerItem], services: Services) -> Iterator[LayerItem]:
    for item in items:
        services.cancel.check()
        entry = in_layer_form(item.entry)
        yield item if entry is item.entry else LayerItem(entry, item.open, item.twin, item.alone)


def store_layer(items: Iterable[LayerItem], services: Services) -> Layer:
    """Write what a step made as a layer to the store. Nothing is left of it when this raises."""
    return write_layer(_checked(items, services), services)


def write_layer(items: Iterable[LayerItem], services: Services) -> Layer:
    """The same for entries that are in the form of layers already."""
    blobs = services.store.images
    with blobs.writer() as writer, services.store.tree_writer() as index:
        threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
        sink = cast(BinaryIO, writer)
        built = build_layer(items, sink, index.stream, services.compression, threads=threads)
        layer = Layer(writer.commit(MEDIA_TYPES[services.compression.kind]), built.diff_id)
        index.commit(layer.diff_id)
    services.store.put_layer(layer)
    return layer
