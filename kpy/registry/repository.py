"""A repository of a registry, as the `Repository` of `oci.content`: the one way in and out of registries.

Nothing is believed: what is read is verified against its descriptor, sizes are limited, types checked.
"""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO, cast

from kpy.errors import DigestMismatchError, ImageNotFoundError, RegistryError, StoreError
from kpy.oci import manifest as manifests
from kpy.oci import mediatype
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.reference import Reference
from kpy.oci.verify import VerifyingReader
from kpy.registry import listing, upload
from kpy.registry.body import read_piece, stated_size
from kpy.registry.challenge import repository_scope
from kpy.registry.download import PIECE, ResumingStream
from kpy.registry.problem import RETRIED, Answer
from kpy.registry.transport import Request, Transport
from kpy.registry.upload import Outcome, Target, ignore_progress
from kpy.util.streams import pieces

if TYPE_CHECKING:
    from requests import Response

_MANIFEST_TYPES = (*mediatype.ACCEPT, *mediatype.DOCKER_SCHEMA1)


class RemoteRepository:
    """One repository. Immutable and thread-safe: any number of threads may fetch and push at once.

    `writable` asks for push rights from the start, so that one token does for reading and for writing.
    """

    def __init__(self, transport: Transport, reference: Reference, *, writable: bool = False) -> None:
        self.reference = reference
        self._transport = transport
        self._registry = reference.registry
        self._name = reference.repository
        self._target = Target(transport, self._registry, self._name)
        self._read = self._target.scopes if writable else repository_scope(self._name, "pull")

    def __repr__(self) -> str:
        return f"RemoteRepository({self._registry}/{self._name})"

    # -- reading ----------------------------------------------------------------------------------

    def resolve(self, name: str, /) -> Descriptor | None:
        """The descriptor of a tag or digest, None when there is none. Asks by HEAD where that tells enough."""
        patient = True
        try:
            answer = self._exchange("HEAD", f"manifests/{name}", f"find {self._shown(name)}", (200, 404))
        except RegistryError as error:
            if error.status == 0:
                raise
            # Answers to HEAD have no body: GET brings the reason, or the manifest. We waited long enough.
            answer, patient = None, error.status not in RETRIED
        if answer is not None:
            if answer.status == 404:
                return None
            if (found := _described(answer, name)) is not None:
                return found
        return self._resolve_by_get(name, patient=patient)

    def _resolve_by_get(self, name: str, *, patient: bool) -> Descriptor | None:
        answer = self._exchange("GET", f"manifests/{name}", f"find {self._shown(name)}", (200, 404), patient=patient)
        if answer.status == 404:
            return None
        wanted = name if ":" in name else answer.headers.get("Docker-Content-Digest", "")
        digest = Digest.of(answer.body)
        if wanted:
            said = Digest.parse(wanted)
            hasher = said.hasher()
            hasher.update(answer.body)
            if hasher.hexdigest() != said.hex:
                raise DigestMismatchError(
                    f"manifest {self._shown(name)} does not match its digest: {self._registry} says {said}, "
                    f"the content has {said.algorithm}:{hasher.hexdigest()}"
                )
            digest = said
        kind = manifests.parse(answer.body, answer.headers.get("Content-Type", "")).media_type
        return Descriptor(kind, digest, len(answer.body))

    def not_found(self, name: str) -> ImageNotFoundError:
        """The error that says best why `resolve` gave None: no such tag, or no such repository."""
        shown = self._shown(name)
        try:
            self._exchange("GET", f"manifests/{name}", f"find {shown}", (200,))
        except ImageNotFoundError as error:
            where = f"{self._registry} has no repository {self._name}"
            if error.code != "NAME_UNKNOWN":
                where = f"check the name and the {'digest' if ':' in name else 'tag'}: {self._registry} has no such image"
            return ImageNotFoundError(
                f"{shown}: not found", method="GET", url=error.url, status=404, code=error.code, hint=where
            )
        except RegistryError:
            pass
        return ImageNotFoundError(f"{shown}: not found", status=404)

    def open(self, descriptor: Descriptor, /) -> BinaryIO:
        """A verified stream (see BlobSource.open) that survives broken connections. Close it.

        Holds one connection until it is closed; at most `Hosts.concurrency` at a time is good manners.
        """
        is_manifest = descriptor.media_type in _MANIFEST_TYPES
        kind = "manifest" if is_manifest else "blob"
        what = f"fetch {kind} {descriptor.digest} of {self._name}"
        if is_manifest and descriptor.size > mediatype.MAX_MANIFEST_SIZE:
            raise RegistryError(f"cannot {what}: it is larger than {mediatype.MAX_MANIFEST_SIZE >> 20} MiB")
        headers = {"Accept": ", ".join(dict.fromkeys((descriptor.media_type, *mediatype.ACCEPT)))} if is_manifest else {}
        target = f"/v2/{self._name}/{kind}s/{descriptor.digest}"

        def get(offset: int) -> "Response":
            own = {**headers, "Range": f"bytes={offset}-"} if offset else headers
            expect = (200, 206) if offset else (200,)
            return self._transport.open(
                Request("GET", self._registry, target, what, self._name, self._read, own, expect=expect)
            )

        response = get(0)
        length = stated_size(response.headers.get("Content-Length", ""))
        if length is not None and length != descriptor.size:
            response.close()
            raise DigestMismatchError(
                f"{kind} {descriptor.digest} of {self._name} has {length} bytes at {self._registry}, "
                f"its descriptor says {descriptor.size}"
            )
        stream = ResumingStream(response, descriptor.size, get, self._transport.pauses())
        what = f"{kind} {descriptor.digest} of {self._registry}/{self._name}"
        return cast(BinaryIO, VerifyingReader(cast(BinaryIO, stream), descriptor, what=what))

    def stat(self, digest: Digest, /) -> int | None:
        """The size of a blob if it is there, else None."""
        size = upload.blob_size(self._target, digest, self._read)
        if size is None or size >= 0:
            return size
        # A registry that does not say: count.
        request = Request(
            "GET", self._registry, f"/v2/{self._name}/blobs/{digest}", f"measure blob {digest}", self._name, self._read
        )
        with self._transport.open(request) as response:
            return sum(len(data) for data in iter(lambda: read_piece(response, PIECE), b""))

    def tags(self) -> list[str]:
        """All tags, in the registry's order (N30)."""
        return listing.tags(self._get_json, self._name)

    def referrers(self, subject: Digest, /, artifact_type: str = "") -> Sequence[Descriptor]:
        """The manifests whose subject this is; of the fallback tag where the registry knows no better (N29)."""
        return listing.referrers(self, self._get_json, self._name, subject, artifact_type)

    # -- writing ----------------------------------------------------------------------------------

    def upload(
        self,
        descriptor: Descriptor,
        open: Callable[[], BinaryIO],  # noqa: A002
        progress: Callable[[int], None] = ignore_progress,
        mount_from: Sequence[str] = (),
    ) -> Outcome:
        """Make the blob be here: `exists`, `mounted` from one of the repositories named, or `uploaded`.

        `open` gives the content from its start, each time it is called; we close it. `progress` gets the
        number of bytes sent so far, which may fall back when an upload begins anew. Waits while
        `Hosts.concurrency` other uploads to this registry run.
        """
        return upload.upload(self._target, descriptor, open, progress, mount_from)

    def mount(self, digest: Digest, from_repository: str) -> bool:
        """Take the blob over from another repository of this registry (N11); False when that does not work."""
        done, location = upload.mount(self._target, digest, from_repository)
        if location:
            upload.cancel(self._target, location)
        return done

    def check_push(self) -> None:
        """Raise what a push would raise at its start, early: begins an upload and cancels it."""
        answer = upload.start(self._target)
        upload.cancel(self._target, answer.headers["Location"])

    def put(self, stream: BinaryIO, expected: Descriptor | None = None, /) -> Descriptor:
        """Store the stream as a blob. See BlobStore.put; what cannot seek goes through a temporary file."""
        try:
            if stream.seekable():
                return self._put(stream, stream.tell(), expected)
            with tempfile.TemporaryFile() as spool:
                _copy(stream, cast(BinaryIO, spool), expected)
                return self._put(cast(BinaryIO, spool), 0, expected)
        except OSError as error:
            raise StoreError(f"cannot read the blob to upload: {error.strerror or error}") from error

    def _put(self, stream: BinaryIO, begin: int, expected: Descriptor | None) -> Descriptor:
        stream.seek(begin)
        found = _measure(stream, expected)
        if expected is not None and (found.digest, found.size) != (expected.digest, expected.size):
            raise DigestMismatchError(
                f"the blob to upload is {found.digest} of {found.size} bytes, not {expected.digest} of {expected.size}"
            )
        self.upload(found, lambda: cast(BinaryIO, _Rewound(stream, begin)))
        return found

    def put_manifest(self, raw: bytes, media_type: str, /, tag: str = "") -> Descriptor:
        """Store a manifest or index by digest, or under the tag. Keeps the referrers' fallback tag (N29)."""
        found = Descriptor(media_type, Digest.of(raw), len(raw))
        name = tag or str(found.digest)
        if len(raw) > mediatype.MAX_MANIFEST_SIZE:
            raise RegistryError(f"cannot push {self._shown(name)}: it is larger than {mediatype.MAX_MANIFEST_SIZE >> 20} MiB")
        request = Request(
            "PUT", self._registry, f"/v2/{self._name}/manifests/{name}", f"push {self._shown(name)}", self._name,
            self._target.scopes, {"Content-Type": media_type}, raw, (201, 200, 202),
        )  # fmt: skip
        try:
            answer = self._transport.exchange(request)
        except RegistryError as error:
            # An immutable tag that already is what we push is as good as pushed (N32).
            if tag and error.status in (400, 403, 405, 409, 412) and self._is_already(tag, found.digest):
                return found
            raise
        said = answer.headers.get("Docker-Content-Digest", "")
        if said.startswith("sha256:") and said != str(found.digest):
            raise DigestMismatchError(f"pushed manifest {found.digest}, but {self._registry} stored {said[:160]}")
        listing.keep_fallback(self, raw, found, said_subject=answer.headers.get("OCI-Subject", ""))
        return found

    # -- within -----------------------------------------------------------------------------------

    def _is_already(self, tag: str, digest: Digest) -> bool:
        try:
            there = self.resolve(tag)
        except RegistryError:
            return False
        return there is not None and there.digest == digest

    def _shown(self, name: str) -> str:
        if ":" in name:
            return Reference(self._registry, self._name, "", Digest.parse(name)).familiar
        return Reference(self._registry, self._name, name).familiar

    def _get_json(self, target: str, what: str, expect: tuple[int, ...], limit: int) -> Answer:
        return self._transport.exchange(
            Request("GET", self._registry, target, what, self._name, self._read, expect=expect), limit=limit
        )

    def _exchange(
        self, method: str, path: str, what: str, expect: tuple[int, ...], *, patient: bool = True
    ) -> Answer:
        """Ask for a manifest."""
        headers = {"Accept": ", ".join(mediatype.ACCEPT)}
        target = f"/v2/{self._name}/{path}"
        request = Request(
            method, self._registry, target, what, self._name, self._read, headers, None, expect, repeat=patient
        )
        return self._transport.exchange(request, limit=mediatype.MAX_MANIFEST_SIZE)


class _Rewound:
    """A seekable stream from where it began; closing leaves it open for the next try."""

    def __init__(self, stream: BinaryIO, begin: int) -> None:
        self._stream, self._begin = stream, begin
        stream.seek(begin)

    def seekable(self) -> bool:
        return True

    def seek(self, position: int) -> int:
        return self._stream.seek(self._begin + position)

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)

    def close(self) -> None:
        pass


def _copy(stream: BinaryIO, copy: BinaryIO, expected: Descriptor | None) -> None:
    size = 0
    for data in pieces(stream):
        size += len(data)
        if expected is not None and size > expected.size:
            raise DigestMismatchError(f"the blob to upload is longer than {expected.size} bytes")
        copy.write(data)


def _measure(stream: BinaryIO, expected: Descriptor | None) -> Descriptor:
    algorithm = expected.digest.algorithm if expected else "sha256"
    hasher = hashlib.new(algorithm)
    size = 0
    for data in pieces(stream):
        hasher.update(data)
        size += len(data)
    media_type = expected.media_type if expected else "application/octet-stream"
    return Descriptor(media_type, Digest(algorithm, hasher.hexdigest()), size)


def _described(answer: Answer, name: str) -> Descriptor | None:
    """The descriptor that the headers of an answer to HEAD give, None when they do not say all."""
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
    length = stated_size(answer.headers.get("Content-Length", ""))
    said = answer.headers.get("Docker-Content-Digest", "")
    if kind not in _MANIFEST_TYPES or length is None:
        return None
    if ":" in name:
        digest = Digest.parse(name)
        if said.startswith(digest.algorithm + ":") and said != name:
            raise DigestMismatchError(f"asked for manifest {name}, was offered {said[:160]}")
        return Descriptor(kind, digest, length)
    if not said:
        return None
    return Descriptor(kind, Digest.parse(said), length)
