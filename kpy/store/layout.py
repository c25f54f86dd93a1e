"""A repository on disk: an OCI image layout (image-spec, image-layout.md). Owns index.json and the names in it.

Two kinds of names: a whole reference such as `docker.io/library/app:v1`, kept in the annotation that containerd
and BuildKit use, and a plain tag such as `v1`, kept in the one that the specification defines. An entry named by a
whole reference has its tag too, so that other tools find it; a tag belongs to the entry that took it last.
"""

import json
import os
import stat as modes
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from kpy.errors import ContentError
from kpy.oci import manifest, mediatype
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.store.blobs import BlobDirectory, BlobWriter
from kpy.util import canonical, fs
from kpy.util.locks import FileLock

REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"
_VERSION = "1.0.0"
_MAX_INDEX = 64 << 20
_Entries: TypeAlias = list[dict[str, Any]]


class LayoutRepository:
    """An oci.content.Repository in `directory`, for any number of processes and threads at once.

    Reading raises ContentError when the directory is no image layout; writing makes it one. `lock` is the file
    that guards index.json (default: index.json.lock beside it, as BuildKit does, removed when free).
    """

    def __init__(self, directory: Path, *, lock: Path | None = None) -> None:
        self.directory = directory
        self.blobs = BlobDirectory(directory / "blobs")
        self._index = directory / "index.json"
        self._lock = lock

    # --- blobs

    def stat(self, digest: Digest, /) -> int | None:
        """The size in bytes if the blob is there, else None."""
        return self.blobs.stat(digest)

    def open(self, descriptor: Descriptor, /) -> BinaryIO:
        """A verified stream of the blob. Raises ImageNotFoundError."""
        return self.blobs.open(descriptor)

    def put(self, stream: BinaryIO, expected: Descriptor | None = None, /) -> Descriptor:
        """Store the stream. Idempotent: returning means the content is stored, not that we stored it."""
        self.create()
        return self.blobs.put(stream, expected)

    def writer(self, expected: Descriptor | None = None) -> AbstractContextManager[BlobWriter]:
        """A writer for one blob; nothing remains of it unless it is committed inside the block."""
        self.create()
        return self.blobs.writer(expected)

    # --- manifests

    def resolve(self, name: str, /) -> Descriptor | None:
        """The descriptor of a whole reference, a tag or a digest; None when there is none."""
        entries = self._entries()
        try:
            digest = Digest.parse(name)
        except ContentError:
            position = _find(entries, name)
            return None if position is None else Descriptor.from_json(entries[position])
        for entry in entries:
            if entry.get("digest") == name:
                return Descriptor.from_json(entry)
        return self._manifest_blob(digest)

    def _manifest_blob(self, digest: Digest) -> Descriptor | None:
        size = self.stat(digest)
        if size is None or size > mediatype.MAX_MANIFEST_SIZE:
            return None
        try:
            return manifest.parse(self._read(Descriptor("", digest, size))).descriptor
        except ContentError:
            return None  # a blob, but not a manifest

    def put_manifest(self, raw: bytes, media_type: str, /, tag: str = "") -> Descriptor:
        """Store a manifest or index; `tag`, a tag or a whole reference, names it. One with a subject is listed
        in index.json in any case, for that is where its referrers are looked for."""
        self.create()
        found = self.blobs.put_bytes(raw, media_type)
        parsed = manifest.parse(raw, media_type)
        if isinstance(parsed, manifest.Manifest) and parsed.subject:
            found = replace(found, artifact_type=parsed.artifact_type or parsed.config.media_type)
        if tag:
            self.tag(found, tag)
        elif parsed.subject:
            self.list_untagged(found)
        return replace(found, artifact_type="")

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Name a manifest that is stored; whatever had the name before loses it."""

        def edit(entries: _Entries) -> _Entries:
            kept = [e for e in entries if not (_is_bare(e) and e.get("digest") == str(descriptor.digest))]
            return [*_without(kept, name), descriptor.to_json() | {"annotations": _annotations(descriptor, name)}]

        self._edit(edit)

    def list_untagged(self, descriptor: Descriptor) -> None:
        """List a manifest in index.json without a name, unless it is listed already."""

        def edit(entries: _Entries) -> _Entries:
            if any(entry.get("digest") == str(descriptor.digest) for entry in entries):
                return entries
            return [*entries, descriptor.to_json()]

        self._edit(edit)

    def untag(self, name: str) -> bool:
        """Forget a reference, a tag, or all names of a digest; the content stays. Says whether there was one."""
        gone = False

        def edit(entries: _Entries) -> _Entries:
            nonlocal gone
            position = _find(entries, name)
            kept = [e for i, e in enumerate(entries) if i != position and e.get("digest") != name]
            gone = len(kept) != len(entries)
            return kept

        self._edit(edit)
        return gone

    def tags(self) -> Sequence[str]:
        """Every name, sorted: the whole reference where there is one, else the tag."""
        return sorted({name for name, _ in self.named() if name})

    def named(self) -> Sequence[tuple[str, Descriptor]]:
        """The entries of index.json, each with its name ("" when it has none), in their order."""
        found = []
        for entry in self._entries():
            annotations = _annotations_of(entry)
            name = annotations.get(IMAGE_NAME) or annotations.get(REF_NAME) or ""
            found.append((name, Descriptor.from_json(entry)))
        return found

    def referrers(self, subject: Digest, /, artifact_type: str = "") -> Sequence[Descriptor]:
        """The listed manifests whose subject this is."""
        found: dict[Digest, Descriptor] = {}
        for _, entry in self.named():
            if self.stat(entry.digest) is None or entry.digest in found:
                continue
            try:
                parsed = manifest.parse(self._read(entry), entry.media_type)
            except ContentError:
                continue
            if parsed.subject is None or parsed.subject.digest != subject:
                continue
            kind = parsed.artifact_type or parsed.config.media_type if isinstance(parsed, manifest.Manifest) else ""
            if not artifact_type or kind == artifact_type:
                found[entry.digest] = replace(
                    entry, annotations=parsed.annotations, artifact_type=kind, platform=None
                )
        return [found[digest] for digest in sorted(found)]

    # --- the directory

    def create(self) -> None:
        """Make the directory an image layout unless it is one. Idempotent."""
        if os.path.exists(self._index):
            return
        with fs.io_errors("write", self.directory):
            os.makedirs(self.directory / "blobs" / "sha256", exist_ok=True)
            with self._locked():
                if not os.path.exists(self.directory / "oci-layout"):
                    fs.write_atomic(
                        self.directory / "oci-layout", canonical.dumps({"imageLayoutVersion": _VERSION})
                    )
                if not os.path.exists(self._index):
                    self._write([], {})

    def remove_stale(self) -> None:
        """Remove what killed processes left half-written."""
        self.blobs.remove_stale()
        try:
            fs.remove_stale(self.directory)
        except OSError:
            pass  # nothing there, or not for us to clean

    def _locked(self) -> FileLock:
        if self._lock is not None:
            return FileLock(self._lock)
        return FileLock(self.directory / "index.json.lock", transient=True)

    def _edit(self, change: Callable[[_Entries], _Entries]) -> None:
        self.create()
        with self._locked():
            data = self._load()
            entries = data["manifests"]
            changed = change(entries)
            if changed != entries:
                self._write(changed, data)

    def _write(self, entries: _Entries, data: dict[str, Any]) -> None:
        data = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX} | data | {"manifests": entries}
        with fs.io_errors("write", self._index):
            fs.write_atomic(self._index, canonical.dumps(data), durable=True)

    def _entries(self) -> _Entries:
        entries: _Entries = self._load()["manifests"]
        return entries

    def _load(self) -> dict[str, Any]:
        try:
            # A fifo in a layout that somebody gave us must not block.
            with open(os.open(self._index, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
                if not modes.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    raise ContentError(f"{self._index} is not a regular file")
                raw = stream.read(_MAX_INDEX + 1)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ContentError(f"{self.directory} is not an oci image layout: it has no index.json") from error
        except OSError as error:
            raise fs.store_error("read", self._index, error) from error
        try:
            data = json.loads(raw) if len(raw) <= _MAX_INDEX else None
        except (ValueError, RecursionError) as error:
            raise ContentError(f"{self._index} is not json: {error}") from error
        if not isinstance(data, dict):
            raise ContentError(f"{self._index} is not an oci index")
        entries = [] if data.get("manifests") is None else data["manifests"]
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ContentError(f"{self._index} is not an oci index: its manifests are not a list of objects")
        return data | {"manifests": entries}

    def _read(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > mediatype.MAX_MANIFEST_SIZE:
            raise ContentError(f"manifest {descriptor.digest} is larger than {mediatype.MAX_MANIFEST_SIZE >> 20} MiB")
        with self.open(descriptor) as stream:
            return stream.read()


def _annotations_of(entry: dict[str, Any]) -> dict[str, str]:
    found = entry.get("annotations")
    return found if isinstance(found, dict) else {}


def _is_bare(entry: dict[str, Any]) -> bool:
    return not {REF_NAME, IMAGE_NAME} & _annotations_of(entry).keys()


def _split(name: str) -> tuple[str, str]:
    """The whole reference ("" if it is none) and the tag of a name."""
    if "/" not in name:
        return "", name
    tag = name.rpartition("/")[2].partition(":")[2]
    return name, tag if "@" not in name else ""


def _annotations(descriptor: Descriptor, name: str) -> dict[str, str]:
    image, tag = _split(name)
    found = dict(descriptor.annotations)
    for key, value in ((IMAGE_NAME, image), (REF_NAME, tag)):
        found.pop(key, None)
        if value:
            found[key] = value
    return dict(sorted(found.items()))


def _find(entries: _Entries, name: str) -> int | None:
    for key in (IMAGE_NAME, REF_NAME):
        for position in range(len(entries) - 1, -1, -1):
            if _annotations_of(entries[position]).get(key) == name:
                return position
    return None


def _without(entries: _Entries, name: str) -> _Entries:
    """The entries, none of which has the name or its tag any more."""
    image, tag = _split(name)
    kept = []
    for entry in entries:
        annotations = dict(_annotations_of(entry))
        if image and annotations.get(IMAGE_NAME) == image:
            continue
        if tag and annotations.get(REF_NAME) == tag:
            if not annotations.pop(REF_NAME) or IMAGE_NAME not in annotations:
                continue
            entry = entry | {"annotations": annotations}
        kept.append(entry)
    return kept
