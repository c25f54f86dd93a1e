"""The index of one layer: its entries in the order of the tar, and the few files that rules need.

Made by reading the layer's tar once, or while it is written; kept in the store in the encoded form. Knows nothing
of other layers.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from kpy.errors import ContentError
from kpy.layer.entry import Entry, Kind
from kpy.layer.tarread import DEFAULT_LIMITS, TarLimits, read_tar

KEPT_FILES = frozenset({"etc/passwd", "etc/group"})
MAX_KEPT = 1 << 20

_MAGIC = b"kpytree\x01"
_KINDS = {kind.value: kind for kind in Kind}
_NOTHING: Mapping[str, bytes] = {}


@dataclass(frozen=True, slots=True)
class LayerTree:
    """Entries in tar order, FILEs with `sha256`, and the content of those of KEPT_FILES that the layer has."""

    entries: Sequence[Entry]
    files: Mapping[str, bytes] = field(default_factory=dict, hash=False)

    def encode(self) -> bytes:
        """One compact piece of bytes for the store."""
        import zstandard

        payload = json.dumps(_columns(self), separators=(",", ":")).encode()
        return _MAGIC + hashlib.sha256(payload).digest() + zstandard.ZstdCompressor(level=1).compress(payload)

    @staticmethod
    def decode(data: bytes) -> "LayerTree":
        """What `encode` made. Raises ContentError when it is broken or of another version."""
        import zstandard

        if not data.startswith(_MAGIC):
            raise ContentError("layer index is of another version or no index at all")
        start = len(_MAGIC) + 32
        try:
            payload = zstandard.ZstdDecompressor().decompress(data[start:])
            if hashlib.sha256(payload).digest() != data[len(_MAGIC) : start]:
                raise ContentError("layer index is broken: its checksum differs")
            return _from_columns(json.loads(payload))
        except MemoryError as error:  # a broken frame says any size
            raise ContentError("layer index is broken: it says that it is too large") from error
        except (zstandard.ZstdError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ContentError(f"layer index is broken: {error}") from error


def scan_layer(tar: BinaryIO, *, limits: TarLimits = DEFAULT_LIMITS) -> LayerTree:
    """Index an uncompressed layer, reading the stream to its end. Raises ContentError for a broken tar."""
    entries: list[Entry] = []
    files: dict[str, bytes] = {}
    for entry, content in read_tar(tar, layer=True, limits=limits):
        if entry.kind is not Kind.FILE:
            entries.append(entry)
            continue
        hasher = hashlib.sha256()
        if entry.path in KEPT_FILES and entry.size <= MAX_KEPT:
            files[entry.path] = b"".join(content.chunks())
            hasher.update(files[entry.path])
        else:
            for chunk in content.chunks():
                hasher.update(chunk)
        entries.append(Entry(entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime,
                             entry.link, entry.device, entry.xattrs, hasher.hexdigest()))  # fmt: skip
    return LayerTree(entries, files)


def _columns(tree: LayerTree) -> dict[str, Any]:
    entries = tree.entries
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
        "files": {path: base64.b64encode(content).decode() for path, content in tree.files.items()},
    }


def _from_columns(columns: dict[str, Any]) -> LayerTree:
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
    entries = list(
        map(Entry, columns["path"], kinds, columns["mode"], columns["uid"], columns["gid"], columns["size"],
            columns["mtime"], columns["link"], devices, xattrs, columns["sha256"])
    )  # fmt: skip
    return LayerTree(entries, {path: base64.b64decode(value) for path, value in columns["files"].items()})
