"""Implementations of our protocols in memory, for tests of any room. No cleverness, no mocks."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import BinaryIO, cast

from kpy.errors import ImageNotFoundError
from kpy.events import Event
from kpy.oci import manifest
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.verify import VerifyingReader


class RecordingReporter:
    """Keeps every event, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


class MemoryRepository:
    """An oci.content.Repository in memory. `log` holds the digests and tags in the order in which they arrived."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.manifests: dict[Digest, Descriptor] = {}
        self.tagged: dict[str, Digest] = {}
        self.log: list[str] = []
        self.opened: list[Digest] = []
        self._lock = threading.Lock()

    def stat(self, digest: Digest, /) -> int | None:
        data = self.blobs.get(digest)
        return None if data is None else len(data)

    def open(self, descriptor: Descriptor, /) -> BinaryIO:
        data = self.blobs.get(descriptor.digest)
        if data is None:
            raise ImageNotFoundError(f"no blob {descriptor.digest}")
        with self._lock:
            self.opened.append(descriptor.digest)
        return cast("BinaryIO", VerifyingReader(BytesIO(data), descriptor))

    def put(self, stream: BinaryIO, expected: Descriptor | None = None, /) -> Descriptor:
        if expected is None:
            data = stream.read()
            expected = Descriptor("application/octet-stream", Digest.of(data), len(data))
        else:
            data = VerifyingReader(stream, expected).read()
        with self._lock:
            if expected.digest not in self.blobs:
                self.log.append(str(expected.digest))
            self.blobs[expected.digest] = data
        return expected

    def put_bytes(self, data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
        return self.put(BytesIO(data), Descriptor(media_type, Digest.of(data), len(data)))

    def resolve(self, name: str, /) -> Descriptor | None:
        digest = self.tagged.get(name)
        if digest is None and ":" in name:
            digest = Digest.parse(name)
        return self.manifests.get(digest) if digest else None

    def put_manifest(self, raw: bytes, media_type: str, /, tag: str = "") -> Descriptor:
        found = Descriptor(media_type, Digest.of(raw), len(raw))
        with self._lock:
            self.blobs[found.digest] = raw
            self.manifests[found.digest] = found
            if tag:
                self.tagged[tag] = found.digest
            self.log.append(tag or str(found.digest))
        return found

    def referrers(self, subject: Digest, /, artifact_type: str = "") -> Sequence[Descriptor]:
        found = []
        for digest, descriptor in sorted(self.manifests.items()):
            parsed = manifest.parse(self.blobs[digest], descriptor.media_type)
            if parsed.subject is None or parsed.subject.digest != subject:
                continue
            kind = parsed.artifact_type or parsed.config.media_type if isinstance(parsed, manifest.Manifest) else ""
            if not artifact_type or kind == artifact_type:
                found.append(replace(descriptor, annotations=parsed.annotations, artifact_type=kind))
        return found
