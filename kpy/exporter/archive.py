"""Tar archives of an image layout, the same bytes for the same artifact. Owns the file at `dest`: whole or not there."""

import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from kpy.errors import StoreError
from kpy.exporter.base import Artifact, all_blobs, all_manifests
from kpy.oci import mediatype
from kpy.oci.content import BlobSource
from kpy.oci.descriptor import Descriptor
from kpy.oci.reference import Reference
from kpy.util import canonical, fs
from kpy.util.cancel import Cancel
from kpy.util.checkpoint import checkpoint
from kpy.util.outlet import Outlet, open_waiting

REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"
LAYOUT = canonical.dumps({"imageLayoutVersion": "1.0.0"})


@dataclass(frozen=True, slots=True)
class FromSource:
    """A member whose content is a blob."""

    descriptor: Descriptor
    source: BlobSource


Member = bytes | FromSource


def blob_path(descriptor: Descriptor) -> str:
    """Where a blob is in a layout."""
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}"


def layout_members(artifact: Artifact, names: tuple[Reference, ...]) -> dict[str, Member]:
    """The files of an image layout that holds the artifact."""
    members: dict[str, Member] = {"oci-layout": LAYOUT, "index.json": layout_index(artifact, names)}
    for item in all_manifests(artifact):
        members[blob_path(item.descriptor)] = item.raw
    for descriptor, source in all_blobs(artifact).values():
        members[blob_path(descriptor)] = FromSource(descriptor, source)
    return members


def layout_index(artifact: Artifact, names: tuple[Reference, ...]) -> bytes:
    """index.json: an entry for each name, and for what refers to the artifact from outside its index."""
    entries: list[dict[str, Any]] = []
    root = artifact.descriptor.to_json()
    for name in names:
        annotations = {IMAGE_NAME: str(name)} | ({REF_NAME: name.tag} if name.tag else {})
        entries.append(root | {"annotations": {**artifact.annotations, **annotations}})
    if not names:
        entries.append(root)
    entries.extend(part.to_json() for part in unlisted(artifact))
    data = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": entries}
    return canonical.dumps(data)


def unlisted(artifact: Artifact) -> tuple[Descriptor, ...]:
    """The attachments that no index lists."""
    listed = {item.digest for item in artifact.index.manifests} if artifact.index else set()
    found = (part.manifest.descriptor for part in artifact.attachments)
    return tuple(item for item in found if item.digest not in listed)


def write_tar(members: Mapping[str, Member], stream: BinaryIO) -> None:
    """Write the members, sorted by name, with nothing of this machine or this moment in them."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as archive:
        directories: set[str] = set()
        for name in sorted(members):
            for directory in _parents(name):
                if directory not in directories:
                    directories.add(directory)
                    archive.addfile(_info(directory, tarfile.DIRTYPE, 0o755, 0))
            match members[name]:
                case bytes() as data:
                    archive.addfile(_info(name, tarfile.REGTYPE, 0o644, len(data)), io.BytesIO(data))
                case FromSource(descriptor, source):
                    with source.open(descriptor) as content:
                        info = _info(name, tarfile.REGTYPE, 0o644, descriptor.size)
                        archive.addfile(info, cast("BinaryIO", _Whole(content)))
                        content.read(1)  # past the end: there the digest is checked


class _Whole:
    """Reads as much as it is asked for: tarfile takes a short read, as sockets give them, for the end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        parts = []
        while size and (data := self._stream.read(size)):
            checkpoint()
            parts.append(data)
            size -= len(data)
        if size:
            self._stream.read(1)  # a verified stream says now that it is short
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _info(name: str, kind: bytes, mode: int, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size = kind, mode, size
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


@contextmanager
def destination(dest: Path | BinaryIO, cancel: Cancel | None = None) -> Iterator[BinaryIO]:
    """Where to write: a stream as it is, or a file that appears at `dest` if the block ends well.

    A link at `dest` is replaced, and not followed: whoever made it would choose which file of ours is overwritten. A FIFO
    or a device stays, and is written to. `cancel` ends the wait for whoever reads.
    """
    if not isinstance(dest, Path):
        with _stream(dest, cancel) as stream:
            yield _guarded(stream, "the output")
            with fs.io_errors("write", "the output"):
                stream.flush()
        return
    if os.path.isdir(dest):
        raise StoreError(f"cannot write {dest}: it is a directory", hint="name a file, or use tar=false")
    if _is_descriptor(dest):
        opened = _special(dest, os.O_TRUNC, cancel)
    elif os.path.lexists(dest) and not os.path.islink(dest) and not os.path.isfile(dest):
        opened = _special(dest, os.O_NOFOLLOW, cancel)  # a link may have taken its place since
    else:
        opened = _file(dest)
    with opened as stream:
        yield stream


def _is_descriptor(dest: Path) -> bool:
    """Is this a link of the system's to what is open, such as /dev/stdout, /dev/fd/3 or /proc/self/fd/1?"""
    parent = os.path.realpath(dest.parent)
    return os.path.islink(dest) and (parent == "/dev" or parent.startswith("/proc/"))


@contextmanager
def _stream(stream: BinaryIO, cancel: Cancel | None) -> Iterator[BinaryIO]:
    """The stream; by its descriptor, if it has one."""
    try:
        descriptor = stream.fileno()
    except OSError:
        yield stream  # it is in memory
        return
    with fs.io_errors("write", "the output"):
        stream.flush()
    with Outlet(descriptor, cancel) as outlet:
        yield cast("BinaryIO", outlet)


@contextmanager
def _special(dest: Path, flags: int, cancel: Cancel | None) -> Iterator[BinaryIO]:
    """What cannot be replaced: a device, a FIFO, an open file."""
    with fs.io_errors("write", dest):
        descriptor = open_waiting(dest, flags, cancel)
    try:
        with Outlet(descriptor, cancel) as outlet:
            yield _guarded(cast("BinaryIO", outlet), os.fspath(dest))
    finally:
        os.close(descriptor)


@contextmanager
def _file(dest: Path) -> Iterator[BinaryIO]:
    temporary = fs.temporary_file(dest.parent, mode=0o644)
    with suppress(OSError):  # a directory that we may write but not list
        fs.remove_stale(dest.parent)  # of an export that was killed
    with fs.io_errors("write", dest):
        stream, path = temporary.__enter__()
    try:
        yield _guarded(stream, os.fspath(dest))
        with fs.io_errors("write", dest):
            stream.flush()
            os.rename(path, dest)
    finally:
        temporary.__exit__(None, None, None)


def _guarded(stream: BinaryIO, what: str) -> BinaryIO:
    return cast("BinaryIO", _Guarded(stream, what))


class _Guarded(io.RawIOBase):
    """Passes writes on; its OSErrors become StoreErrors there, so that those of the sources stay what they are."""

    def __init__(self, stream: BinaryIO, what: str) -> None:
        super().__init__()
        self._stream = stream
        self._what = what

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        with fs.io_errors("write", self._what):
            self._stream.write(data)
        return len(data)

    def flush(self) -> None:
        if not self.closed:
            with fs.io_errors("write", self._what):
                self._stream.flush()
