"""Items to a compressed layer in one pass: tar, diff_id, compression and digest, each in its own threads (L09).

Memory stays flat: every queue between the threads is short. Writes only to the sink it is given.
"""

import hashlib
import queue
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO

from kpy.layer.compress import Compression, Compressor
from kpy.layer.entry import LayerItem
from kpy.layer.index import IndexWriter
from kpy.layer.write import stream_tar
from kpy.oci.digest import Digest
from kpy.util import fs, threads

_QUEUED = 6  # chunks of about 1 MiB


@dataclass(frozen=True, slots=True)
class Built:
    """A layer that was written: digest and size of the blob, diff_id and size of the tar."""

    diff_id: Digest
    digest: Digest
    size: int
    uncompressed_size: int


class _Worker:
    """Calls `function` with every chunk, in order, in a thread; the first error comes out of `put` or at the end."""

    def __init__(self, function: Callable[[bytes], None], name: str) -> None:
        self._function = function
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED)
        self._error: BaseException | None = None
        self._name = name

    def __enter__(self) -> "_Worker":
        self._thread = threads.start(self._work, self._name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def put(self, chunk: bytes) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(chunk)

    def _work(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if self._error is None:  # else: empty the queue, so that nobody waits
                try:
                    self._function(chunk)
                except BaseException as error:
                    self._error = error


class _Tally:
    """Digest and size of what passes."""

    def __init__(self, sink: BinaryIO | None = None) -> None:
        self._sink = sink
        self._hasher = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        self._hasher.update(chunk)
        self.size += len(chunk)
        if self._sink is not None:
            try:
                view = memoryview(chunk)
                while view:
                    view = view[self._sink.write(view) :]
            except OSError as error:
                raise fs.store_error("write", "the layer", error) from error

    def digest(self) -> Digest:
        return Digest("sha256", self._hasher.hexdigest())


def build_layer(
    items: Iterable[LayerItem], sink: BinaryIO, index: BinaryIO, compression: Compression, *, threads: int = 2
) -> Built:
    """Write the items, in their order, to `sink` as a compressed layer, and its encoded index to `index`, which can
    seek. The same bytes for any number of threads.

    Raises ContentError for what cannot be in a layer and for files that change meanwhile, StoreError when a file
    cannot be read or the sink not be written.
    """
    kept: dict[str, bytes] = {}
    writer = IndexWriter(index)
    blob = _Tally(sink)
    tar = _Tally()
    with (
        _Worker(blob.write, "kpy-blob") as blobs,
        _Worker(tar.write, "kpy-diff-id") as tars,
        Compressor(compression, blobs.put, threads=threads) as compressor,
    ):

        def out(chunk: bytes) -> None:
            tars.put(chunk)
            compressor.write(chunk)

        stream_tar(items, out, seen=writer.add, kept=kept)
    writer.finish(kept)
    return Built(tar.digest(), blob.digest(), blob.size, tar.size)
