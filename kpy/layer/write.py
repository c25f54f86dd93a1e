"""Items to a tar stream. Refuses files that changed while they were read, and names that would be whiteouts.

The end is two zero blocks and no padding to a record of 10 KiB, as Go's archive/tar writes it, so that the
empty layer has the well-known digest (L06).
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import BinaryIO, TypeAlias

from kpy.errors import ContentError, StoreError
from kpy.layer.entry import Entry, Kind, LayerItem
from kpy.layer.header import BLOCK, encode_header
from kpy.layer.index import KEPT_FILES, MAX_KEPT
from kpy.util.checkpoint import checkpoint

Sink: TypeAlias = Callable[[bytes], None]

CHUNK = 1 << 20
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class _Batch:
    """Joins headers and small files to chunks of about 1 MiB."""

    def __init__(self, out: Sink) -> None:
        self._out = out
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size >= CHUNK:
            self.flush()

    def flush(self) -> None:
        if self._parts:
            self._out(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
        self._parts = []
        self._size = 0


def write_tar(items: Iterable[LayerItem], out: Sink, *, kept: dict[str, bytes] | None = None) -> list[Entry]:
    """As `stream_tar`; gives back the entries."""
    entries: list[Entry] = []
    stream_tar(items, out, seen=entries.append, kept=kept)
    return entries


def stream_tar(
    items: Iterable[LayerItem],
    out: Sink,
    *,
    seen: Callable[[Entry], object] = lambda _: None,
    kept: dict[str, bytes] | None = None,
) -> None:
    """Write the items in their order; `seen` gets each entry when it is written, with the `sha256` of a FILE.

    A HARDLINK to a FILE of the same layer is written with the file's owner, mode, time and xattrs, whatever its own
    say: containerd applies those of the link to the file. `kept` receives the content of the files that a LayerTree
    keeps. Raises ContentError when a file yields another size than its entry says, or another digest if the entry has
    one.
    """
    batch = _Batch(out)
    files: dict[str, Entry] = {}
    for item in items:
        checkpoint()
        entry = item.entry
        if entry.kind is Kind.HARDLINK and entry.link in files:
            entry = _dressed_as(entry, files[entry.link])
        batch.write(encode_header(entry))
        if entry.kind is Kind.FILE:
            sha256 = _content(item, batch, kept)
            if entry.sha256 and entry.sha256 != sha256:
                raise _changed(entry)
            if not entry.sha256:
                entry = _with_sha256(entry, sha256)
            if not item.alone:
                files[entry.path] = entry
        seen(replace(entry, kind=Kind.HARDLINK, link=item.twin, size=0, sha256="") if item.twin else entry)
    batch.write(bytes(2 * BLOCK))
    batch.flush()


def _with_sha256(entry: Entry, sha256: str) -> Entry:
    # three times as fast as dataclasses.replace
    return Entry(entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime, entry.link,
                 entry.device, entry.xattrs, sha256)  # fmt: skip


def _dressed_as(link: Entry, file: Entry) -> Entry:
    return Entry(link.path, link.kind, file.mode, file.uid, file.gid, 0, file.mtime, link.link, xattrs=file.xattrs)


def _changed(entry: Entry) -> ContentError:
    return ContentError(
        f"{entry.path!r} changed while it was read", hint="run the build again when nothing writes to the file"
    )


def _content(item: LayerItem, batch: _Batch, kept: dict[str, bytes] | None) -> str:
    entry = item.entry
    if item.open is None:
        if entry.size:
            raise ContentError(f"{entry.path!r} of {entry.size} bytes has no content")
        sha256 = _EMPTY_SHA256
    else:
        try:
            stream = item.open()
        except OSError as error:
            raise StoreError(f"cannot read {entry.path!r}: {error.strerror or error}") from error
        with stream:
            sha256 = _copy(entry, stream, batch, kept)
    padding = -entry.size % BLOCK
    if padding:
        batch.write(bytes(padding))
    return sha256


def _copy(entry: Entry, stream: BinaryIO, batch: _Batch, kept: dict[str, bytes] | None) -> str:
    keep = kept is not None and entry.path in KEPT_FILES and entry.size <= MAX_KEPT
    whole: list[bytes] = []
    hasher = hashlib.sha256()
    left = entry.size
    while True:
        checkpoint()
        try:
            # one more than is left: a file that grew shows itself
            data = stream.read(min(CHUNK, left + 1))
        except OSError as error:
            raise StoreError(f"cannot read {entry.path!r}: {error.strerror or error}") from error
        if not data:
            break
        left -= len(data)
        if left < 0:
            raise _changed(entry)
        hasher.update(data)
        batch.write(data)
        if keep:
            whole.append(data)
    if left:
        raise _changed(entry)
    if keep and kept is not None:
        kept[entry.path] = b"".join(whole)
    return hasher.hexdigest()
