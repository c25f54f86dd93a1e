"""Uploads of one blob: there already, mounted, in one request, or in chunks; resumed where that is offered.

Distribution-spec, "Push". Knows no credentials and no manifests. The source is a factory, so that each try
reads it from its start; what it gives is trusted to be the blob, and the registry checks the digest.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Literal, TypeAlias
from urllib.parse import urlencode

from kpy.errors import AuthenticationError, DigestMismatchError, ImageNotFoundError, RegistryError, StoreError
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.registry.body import stated_size
from kpy.registry.challenge import Scopes, repository_scope
from kpy.registry.pause import Pauses
from kpy.registry.problem import NETWORK_CODES, RETRIED, Answer, problem
from kpy.registry.transport import Request, Transport
from kpy.util.checkpoint import checkpoint

Outcome: TypeAlias = Literal["exists", "mounted", "uploaded"]
PIECE = 1 << 20
CHUNK = 32 << 20  # below the limits of 100 MB that proxies like to set
_FALLBACK = (400, 404, 405, 411, 413, 415, 416, 501)  # to one big PUT: then try chunks (N13)
_OCTETS = {"Content-Type": "application/octet-stream"}
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")


def ignore_progress(_: int) -> None:
    """Report to nobody."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to: a repository of a registry."""

    transport: Transport
    registry: str
    repository: str

    @property
    def scopes(self) -> Scopes:
        """What uploading needs."""
        return repository_scope(self.repository, "pull", "push")


class _Pieces:
    """The bytes `start`..`start + length` of a source, read anew by each iteration. Owns the open source."""

    def __init__(
        self, open_source: Callable[[], BinaryIO], start: int, length: int, total: int, progress: Callable[[int], None]
    ) -> None:
        self._open, self._start, self._length, self._total = open_source, start, length, total
        self._progress = progress
        self._stream: BinaryIO | None = None

    def __enter__(self) -> "_Pieces":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        self.__exit__(None, None, None)
        try:
            stream = self._stream = self._open()
            _skip(stream, self._start)
            position, end = self._start, self._start + self._length
            while position < end:
                checkpoint()
                data = stream.read(min(PIECE, end - position))
                if not data:
                    raise DigestMismatchError(f"the blob to upload ends after {position} of {self._total} bytes")
                position += len(data)
                if position == self._total and stream.read(1):  # also makes a verified stream check its digest
                    raise DigestMismatchError(f"the blob to upload is longer than {self._total} bytes")
                yield data
                self._progress(position)
        except OSError as error:
            # As an OSError it would look like one of the connection's.
            raise StoreError(f"cannot read the blob to upload: {error.strerror or type(error).__name__}") from error


def _skip(stream: BinaryIO, count: int) -> None:
    if count and stream.seekable():
        stream.seek(count)
        return
    while count:
        checkpoint()
        data = stream.read(min(PIECE, count))
        if not data:
            raise DigestMismatchError("the blob to upload is shorter than before")
        count -= len(data)


def upload(
    target: Target,
    descriptor: Descriptor,
    open_source: Callable[[], BinaryIO],
    progress: Callable[[int], None],
    mount_from: Sequence[str],
) -> Outcome:
    """Make the blob be in the repository, the cheapest way. See RemoteRepository.upload."""
    if blob_size(target, descriptor.digest, target.scopes) is not None:
        return "exists"
    location = ""
    for source in dict.fromkeys(name for name in mount_from if name and name != target.repository):
        mounted, location = mount(target, descriptor.digest, source, previous=location)
        if mounted:
            return "mounted"
    with target.transport.slot(target.registry):
        _Upload(target, descriptor, open_source, progress).run(location)
    return "uploaded"


def blob_size(target: Target, digest: Digest, scopes: Scopes) -> int | None:
    """The size of the blob, None when it is not there; -1 when the registry does not say."""
    answer = target.transport.exchange(
        Request(
            "HEAD",
            target.registry,
            f"/v2/{target.repository}/blobs/{digest}",
            f"look for blob {digest} in {target.repository}",
            target.repository,
            scopes,
            expect=(200, 404),
        )
    )
    if answer.status == 404:
        return None
    size = stated_size(answer.headers.get("Content-Length", ""))
    return -1 if size is None else size


def mount(target: Target, digest: Digest, source: str, *, previous: str = "") -> tuple[bool, str]:
    """Mount the blob of another repository of this registry (N11): (done, the Location of an upload begun instead)."""
    query = urlencode({"mount": str(digest), "from": source})
    request = Request(
        "POST",
        target.registry,
        f"/v2/{target.repository}/blobs/uploads/?{query}",
        f"mount blob {digest} from {source}",
        target.repository,
        target.scopes | repository_scope(source, "pull"),
        expect=(201, 202),
    )
    try:
        answer = target.transport.exchange(request)
    except (AuthenticationError, ImageNotFoundError):
        return False, previous
    except RegistryError as error:
        if error.status in (400, 405, 501):  # mounting is optional
            return False, previous
        raise
    if answer.status == 201:
        if previous:
            cancel(target, previous)
        return True, ""
    location = answer.headers.get("Location", "")
    if previous and location:
        cancel(target, previous)
    return False, location or previous


def start(target: Target) -> Answer:
    """Begin an upload: the answer has its Location. Fails as a push would that may not (FEATURES 2: early probe)."""
    answer = target.transport.exchange(
        Request(
            "POST",
            target.registry,
            f"/v2/{target.repository}/blobs/uploads/",
            f"push to {target.repository}",
            target.repository,
            target.scopes,
            expect=(202,),
        )
    )
    if not answer.headers.get("Location"):
        raise RegistryError(f"{target.registry} began an upload without saying where (no Location)", status=202)
    return answer


def cancel(target: Target, location: str) -> None:
    """Forget an upload that was begun. Registries clean up by themselves: failing does not matter."""
    try:
        target.transport.exchange(
            Request(
                "DELETE",
                target.registry,
                location,
                "cancel an upload",
                target.repository,
                target.scopes,
                expect=(200, 202, 204, 404, 405),
                repeat=False,
            )
        )
    except RegistryError:
        pass


class _LaterError(RegistryError):
    """An answer after which one may try again."""

    def __init__(self, error: RegistryError, retry_after: str) -> None:
        super().__init__(
            error.message, method=error.method, url=error.url, status=error.status, code=error.code, hint=error.hint
        )
        self.retry_after = retry_after


class _Upload:
    """The state of one upload: where it goes, and how much of it is there."""

    def __init__(
        self,
        target: Target,
        descriptor: Descriptor,
        open_source: Callable[[], BinaryIO],
        progress: Callable[[int], None],
    ) -> None:
        self._target, self._descriptor = target, descriptor
        self._open, self._progress = open_source, progress
        self._location = ""
        self._offset = 0
        self._chunk = 0  # 0: all in one request
        self._least = 0  # OCI-Chunk-Min-Length

    def run(self, location: str) -> None:
        """Upload, with retries; `location` is that of an upload begun already, or empty."""
        pauses = self._target.transport.pauses()
        self._location = location
        while True:
            if not self._location:
                self._begin()
            try:
                self._send_all(pauses)
                return
            except RegistryError as error:
                self._recover(error, pauses)

    def _begin(self) -> None:
        answer = start(self._target)
        self._location, self._offset = answer.headers["Location"], 0
        least = stated_size(answer.headers.get("OCI-Chunk-Min-Length", "")) or 0
        self._least = least if least < 100_000_000_000 else 0

    def _send_all(self, pauses: Pauses) -> None:
        size = self._descriptor.size
        if not self._chunk and not self._offset:
            self._finish(0, size)
            return
        while self._offset < size:
            before = self._offset
            length = min(size - before, max(self._chunk or CHUNK, self._least))
            self._patch(length)
            if self._offset >= before + length:
                pauses.refill()
            elif not pauses.pause():
                raise RegistryError(f"{self._target.registry} takes only {self._offset} of {size} bytes of the blob")
        self._finish(size, 0)

    def _finish(self, offset: int, length: int) -> None:
        """PUT what is left and close the upload (N12)."""
        join = "&" if "?" in self._location else "?"
        answer = self._request(
            "PUT",
            f"{self._location}{join}{urlencode({'digest': str(self._descriptor.digest)})}",
            offset,
            length,
            (201, 200, 202, 204),
        )
        said = answer.headers.get("Docker-Content-Digest", "")
        digest = self._descriptor.digest
        if said.startswith(digest.algorithm + ":") and said != str(digest):
            raise DigestMismatchError(f"uploaded blob {digest}, but {self._target.registry} stored {said[:160]}")
        self._progress(self._descriptor.size)

    def _patch(self, length: int) -> None:
        answer = self._request("PATCH", self._location, self._offset, length, (202, 201, 204))
        self._location = answer.headers.get("Location") or self._location
        there = _received(answer)
        # 0-0 is one byte here, and nothing when we ask (distribution says it for both).
        self._offset = self._checked(there or 1) if there is not None else self._offset + length

    def _request(self, method: str, target: str, offset: int, length: int, expect: tuple[int, ...]) -> Answer:
        size = self._descriptor.size
        headers = dict(_OCTETS)
        if method == "PATCH":
            headers["Content-Range"] = f"{offset}-{offset + length - 1}"
        what = f"upload blob {self._descriptor.digest} to {self._target.repository}"
        with _Pieces(self._open, offset, length, size, self._progress) as pieces:
            answer = self._target.transport.exchange(
                Request(
                    method,
                    self._target.registry,
                    target,
                    what,
                    self._target.repository,
                    self._target.scopes,
                    headers,
                    (lambda: pieces) if length else None,
                    {*expect, *RETRIED},
                    repeat=False,
                )
            )
        if answer.status in RETRIED:
            raise _LaterError(
                problem(answer, method=method, registry=self._target.registry, what=what),
                answer.headers.get("Retry-After", ""),
            )
        return answer

    def _recover(self, error: RegistryError, pauses: Pauses) -> None:
        """Make another try possible, or raise what is to be told."""
        if error.code == "DIGEST_INVALID":
            raise DigestMismatchError(f"the blob to upload is not {self._descriptor.digest}: {error.message}") from error
        if (error.status == 0 and error.code in NETWORK_CODES) or error.status in RETRIED:
            if not pauses.pause(error.retry_after if isinstance(error, _LaterError) else ""):
                raise error
            self._resynchronise()
            return
        if error.status == 416 and self._chunk:  # out of step: the registry knows where it is (N13)
            if not pauses.pause():
                raise error
            self._resynchronise()
            return
        if error.status == 404 and self._chunk and pauses.pause():  # the upload is gone
            self._location = ""
            return
        if error.status in _FALLBACK and not self._chunk and self._descriptor.size:
            cancel(self._target, self._location)
            self._chunk, self._location = CHUNK, ""
            return
        raise error

    def _resynchronise(self) -> None:
        """Ask how much is there; begin anew when that cannot be known (N14)."""
        if not self._location:
            return
        try:
            answer = self._target.transport.exchange(
                Request(
                    "GET",
                    self._target.registry,
                    self._location,
                    "ask for the state of an upload",
                    self._target.repository,
                    self._target.scopes,
                    expect=(204, 200, 202),
                )
            )
            there = _received(answer)
            self._offset = 0 if there is None else self._checked(there)
            self._location = answer.headers.get("Location") or self._location
        except RegistryError:
            self._offset = 0
        if not self._offset:
            self._location = ""

    def _checked(self, there: int) -> int:
        if not 0 <= there <= self._descriptor.size:
            raise RegistryError(f"{self._target.registry} claims to have {there} of {self._descriptor.size} bytes")
        return there


def _received(answer: Answer) -> int | None:
    """How many bytes are there, of a Range header that names the last one."""
    match = _RANGE.fullmatch(answer.headers.get("Range", "").strip())
    if match is None:
        return None
    last = int(match[1])
    return last + 1 if last else 0  # distribution says 0-0 for nothing, too: one byte sent again does no harm
