"""Layers in another form for the result: times no later than SOURCE_DATE_EPOCH (`rewrite-timestamp`), another compression
(`force-compression`).

Done after the build and not while layers are written, as in BuildKit: another epoch must not run every RUN again. What
was rewritten is remembered by the layer, the epoch and the compression. Times are rewritten in layers that this
build added, never in those of the base, which stay byte for byte (BK#4614); compression is of all layers.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from kpy.cache.base import CacheRecord
from kpy.errors import ContentError
from kpy.layer.compress import Compressor
from kpy.layer.entry import Kind, LayerItem
from kpy.layer.readahead import ChunkReader
from kpy.layer.tarread import Content, read_tar
from kpy.oci import mediatype
from kpy.oci.digest import Digest
from kpy.oci.image import Layer
from kpy.solver.build_layer import MEDIA_TYPES, SECOND, store_layer
from kpy.solver.values import ChainValue, Services
from kpy.util import canonical
from kpy.util.streams import pieces

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What is wanted. `latest` in seconds, None: times stay. `compress`: all layers in the build's compression."""

    latest: int | None = None
    compress: bool = False


def rewritten(value: ChainValue, wanted: Rewrite, services: Services) -> ChainValue:
    """The chain with its layers in the form that is wanted. Raises ContentError, StoreError, RegistryError."""
    chain = []
    for position, layer in enumerate(value.chain):
        services.cancel.check()
        if position >= value.base and wanted.latest is not None:
            layer = _clamped(layer, wanted.latest, services)
        elif wanted.compress:
            layer = _compressed(layer, services)
        chain.append(layer)
    return ChainValue(tuple(chain), value.base)


def _remembered(layer: Layer, how: str, services: Services, make: Callable[[], Layer]) -> Layer:
    digest = str(layer.descriptor.digest)
    key = Digest.of(canonical.dumps_sorted(["rewrite", _VERSION, digest, how, services.compression.identity]))
    record = services.cache.load(key)
    if record is not None and record.layer is not None:
        return record.layer
    made = make()
    services.cache.save(CacheRecord(key, made, description=f"{how} of {digest}"))
    return made


def _clamped(layer: Layer, latest: int, services: Services) -> Layer:
    limit = latest * SECOND
    if services.layers.layer_tree(layer).newest <= limit:
        return layer

    def items(plain: BinaryIO) -> Iterator[LayerItem]:
        for entry, content in read_tar(plain, layer=True):
            opener = _opener(content) if entry.kind is Kind.FILE and entry.size else None
            yield LayerItem(replace(entry, mtime=min(entry.mtime, limit)), opener)

    def make() -> Layer:
        with services.layers.tar(layer) as plain:
            return store_layer(items(plain), services)

    return _remembered(layer, f"times until {latest}", services, make)


def _opener(content: Content) -> Callable[[], BinaryIO]:
    return lambda: cast(BinaryIO, ChunkReader(content.chunks(), lambda: None))


def _compressed(layer: Layer, services: Services) -> Layer:
    media_type = MEDIA_TYPES[services.compression.kind]
    own = layer.descriptor.media_type
    if mediatype.is_foreign(own) or mediatype.layer_compression(own) == mediatype.layer_compression(media_type):
        return layer

    def make() -> Layer:
        hasher = hashlib.new(layer.diff_id.algorithm)
        with services.store.images.writer() as writer, services.layers.tar(layer) as plain:
            with Compressor(services.compression, lambda data: _write(writer.write, data), threads=2) as compressor:
                for data in pieces(plain):
                    hasher.update(data)
                    compressor.write(data)
            if hasher.hexdigest() != layer.diff_id.hex:
                raise ContentError(f"layer {layer.descriptor.digest} does not match its diff_id {layer.diff_id}")
            made = Layer(writer.commit(media_type), layer.diff_id)
        services.store.put_layer(made)
        return made

    return _remembered(layer, "compression", services, make)


def _write(write: Callable[[bytes], int], data: bytes) -> None:
    write(data)
