"""The index of one layer: its entries in the order of the tar, and the few files that rules need.

Made by reading the layer's tar once, or while it is written; kept in the store in the encoded form, and read from
there a block at a time. Knows nothing of other layers.

The encoded form: a magic word, the sha256 of what follows, blocks of columns of some entries each, an empty block,
and a last one with the files. Before each block stands its length.
"""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from kpy.errors import ContentError
from kpy.layer.entry import Entry, Kind
from kpy.layer.tarread import DEFAULT_LIMITS, TarLimits, read_tar
from kpy.util import fs
from kpy.util.checkpoint import checkpoint

KEPT_FILES = frozenset({"etc/passwd", "etc/group"})
MAX_KEPT = 1 << 20

_MAGIC = b"kpytree\x02"
_BLOCK = 512  # entries
_MAX_BLOCK = 1 << 28
_KINDS = {kind.value: kind for kind in Kind}
_NOTHING: Mapping[str, bytes] = {}


@dataclass(frozen=True, slots=True)
class LayerTree:
    """Entries in tar order, FILEs with `sha256`, and the content of those of KEPT_FILES that the layer has."""

    entries: Collection[Entry]
    files: Mapping[str, bytes] = field(default_factory=dict, hash=False)

    @property
    def newest(self) -> int:
        """The newest time of an entry, or 0."""
        if isinstance(self.entries, StoredEntries):
            return self.entries.newest
        return max((entry.mtime for entry in self.entries), default=0)

    @property
    def removes(self) -> bool:
        """Is there a WHITEOUT or an OPAQUE?"""
        if isinstance(self.entries, StoredEntries):
            return self.entries.removes
        return any(_removes(entry) for entry in self.entries)

    def encode(self) -> bytes:
        """One piece of bytes."""
        stream = io.BytesIO()
        writer = IndexWriter(stream)
        for entry in self.entries:
            writer.add(entry)
        writer.finish(self.files)
        return stream.getvalue()

    @staticmethod
    def decode(data: bytes) -> "LayerTree":
        """What `encode` made. Raises ContentError when it is broken or of another version."""
        return LayerTree.stored(lambda: io.BytesIO(data))

    @staticmethod
    def stored(opener: Callable[[], BinaryIO]) -> "LayerTree":
        """What an IndexWriter wrote; checked now, opened again when the entries are asked for, which are not kept in
        memory. Raises ContentError when it is broken or of another version."""
        with opener() as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise ContentError("layer index is of another version or no index at all")
            expected, hasher = stream.read(32), hashlib.sha256()
            while _read_block(stream, hasher.update):
                checkpoint()
            last = _read_block(stream, hasher.update)
            if stream.read(1) or hasher.digest() != expected:
                raise ContentError("layer index is broken: its checksum differs")
        with _reading():
            about = json.loads(_inflate(last))
            files = {path: base64.b64decode(value) for path, value in about["files"].items()}
            entries = StoredEntries(opener, int(about["count"]), int(about["newest"]), bool(about["removes"]))
            return LayerTree(entries, files)


class StoredEntries(Collection[Entry]):
    """The entries of an encoded index, decoded whenever somebody goes through them."""

    def __init__(self, opener: Callable[[], BinaryIO], count: int, newest: int, removes: bool) -> None:  # noqa: FBT001
        self._opener = opener
        self._count = count
        self.newest = newest
        self.removes = removes

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        with self._opener() as stream:
            stream.seek(len(_MAGIC) + 32)
            while block := _read_block(stream, lambda _: None):
                checkpoint()
                with _reading():
                    entries = _from_columns(json.loads(_inflate(block)))
                yield from entries

    def __contains__(self, item: object) -> bool:
        return any(entry == item for entry in self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Collection) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class IndexWriter:
    """Writes the encoded form to a stream that can seek, a block at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        import zstandard

        self._stream = stream
        self._compress = zstandard.ZstdCompressor(level=1).compress
        self._hasher = hashlib.sha256()
        self._block: list[Entry] = []
        self.count, self._newest, self._removes = 0, 0, False
        self._write(_MAGIC + bytes(32))

    def add(self, entry: Entry) -> None:
        """The next entry of the tar."""
        self._block.append(entry)
        if len(self._block) == _BLOCK:
            self._flush()

    def finish(self, files: Mapping[str, bytes]) -> None:
        """That was all; `files` are the content of those of KEPT_FILES that were there."""
        if self._block:
            self._flush()
        self._put(b"")
        kept = {path: base64.b64encode(content).decode() for path, content in files.items()}
        about = {"count": self.count, "newest": self._newest, "removes": self._removes, "files": kept}
        self._put(self._compress(json.dumps(about, separators=(",", ":")).encode()))
        self._stream.seek(len(_MAGIC))
        self._write(self._hasher.digest())
        self._stream.flush()

    def _flush(self) -> None:
        block, self._block = self._block, []
        self.count += len(block)
        self._newest = max(self._newest, *(entry.mtime for entry in block))
        self._removes = self._removes or any(_removes(entry) for entry in block)
        self._put(self._compress(json.dumps(_columns(block), separators=(",", ":")).encode()))

    def _put(self, data: bytes) -> None:
        data = len(data).to_bytes(4) + data
        self._hasher.update(data)
        self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            self._stream.write(data)
        except OSError as error:
            raise fs.store_error("write", "the index of a layer", error) from error


def _removes(entry: Entry) -> bool:
    return entry.kind is Kind.WHITEOUT or entry.kind is Kind.OPAQUE


def _read_block(stream: BinaryIO, seen: Callable[[bytes], object]) -> bytes:
    head = stream.read(4)
    length = int.from_bytes(head)
    if len(head) < 4 or length > _MAX_BLOCK:
        raise ContentError("layer index is broken: it ends too early")
    block = stream.read(length)
    if len(block) < length:
        raise ContentError("layer index is broken: it ends too early")
    seen(head)
    seen(block)
    return block


def _inflate(block: bytes) -> bytes:
    import zstandard

    inflated: bytes = zstandard.ZstdDecompressor().decompress(block)
    return inflated


@contextmanager
def _reading() -> Iterator[None]:
    import zstandard

    try:
        yield
    except (MemoryError, OverflowError) as error:  # a broken frame says any size
        raise ContentError("layer index is broken: it says that it is too large") from error
    except (zstandard.ZstdError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ContentError(f"layer index is broken: {error}") from error


def scan_layer(tar: BinaryIO, *, limits: TarLimits = DEFAULT_LIMITS) -> LayerTree:
    """Index an uncompressed layer, reading the stream to its end. Raises ContentError for a broken tar."""
    entries: list[Entry] = []
    return LayerTree(entries, _scan(tar, entries.append, limits))


def index_layer(tar: BinaryIO, index: BinaryIO, *, limits: TarLimits = DEFAULT_LIMITS) -> int:
    """As `scan_layer`, encoded to a stream that can seek; how many entries there are."""
    writer = IndexWriter(index)
    writer.finish(_scan(tar, writer.add, limits))
    return writer.count


def _scan(
    tar: BinaryIO, seen: Callable[[Entry], object], limits: TarLimits
) -> Mapping[str, bytes]:
    """Gives the entries to `seen`; the content of those of KEPT_FILES that are there."""
    files: dict[str, bytes] = {}
    for entry, content in read_tar(tar, layer=True, limits=limits):
        if entry.kind is not Kind.FILE:
            seen(entry)
            continue
        hasher = hashlib.sha256()
        if entry.path in KEPT_FILES and entry.size <= MAX_KEPT:
            files[entry.path] = b"".join(content.chunks())
            hasher.update(files[entry.path])
        else:
            for chunk in content.chunks():
                hasher.update(chunk)
        seen(Entry(entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime,
                   entry.link, entry.device, entry.xattrs, hasher.hexdigest()))  # fmt: skip
    return files


def _columns(entries: list[Entry]) -> dict[str, Any]:
    return {
        "path": [entry.path for entry in entries],
        "kind": "".join(entry.kind.value for entry in entries),
        "mode": [entry.mode for entry in entries],
        "uid": [entry.uid for entry in entries],
        "gid": [entry.gid for entry in entries],
        "size": [entry.size for entry in entries],
        "mtime": [entry.mtime for entry in entries],
        "link": [entry.link for entry in entries],
        "device": {number: entry.device for number, entry in enumerate(entries) if entry.device != (0, 0)},
        "xattrs": {
            number: {key: base64.b64encode(value).decode() for key, value in entry.xattrs.items()}
            for number, entry in enumerate(entries)
            if entry.xattrs
        },
        "sha256": [entry.sha256 for entry in entries],
    }


def _from_columns(columns: dict[str, Any]) -> list[Entry]:
    count = len(columns["path"])
    for name in ("kind", "mode", "uid", "gid", "size", "mtime", "link", "sha256"):
        if len(columns[name]) != count:
            raise ContentError(f"layer index is broken: column {name} is short")
    devices: list[tuple[int, int]] = [(0, 0)] * count
    for number, (major, minor) in columns["device"].items():
        devices[int(number)] = (int(major), int(minor))
    xattrs: list[Mapping[str, bytes]] = [_NOTHING] * count
    for number, values in columns["xattrs"].items():
        xattrs[int(number)] = {key: base64.b64decode(value) for key, value in values.items()}
    kinds = [_KINDS[letter] for letter in columns["kind"]]
    return list(
        map(Entry, columns["path"], kinds, columns["mode"], columns["uid"], columns["gid"], columns["size"],
            columns["mtime"], columns["link"], devices, xattrs, columns["sha256"])
    )  # fmt: skip
