"""Files from URLs (C24, C25): streamed into the store with a limit, and fetched again only when the server says so.

Credentials go to the host that they are for, never along a redirect to another.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from kpy import __version__
from kpy.buildcontext.objects import Object
from kpy.dockerfile.remotes import UNNAMED, basic_authorization, url_filename
from kpy.errors import ContentError, ContextError, DigestMismatchError, KpyError
from kpy.layer.entry import Entry, Kind
from kpy.layer.source import Opener, listing_of
from kpy.oci.content import BlobStore
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.util import fs, http
from kpy.util.checkpoint import checkpoint
from kpy.util.proxies import Proxies
from kpy.util.sockets import Sockets

if TYPE_CHECKING:
    from requests import Response
    from requests.adapters import HTTPAdapter

MAX_DOWNLOAD = 32 << 30
_OCTETS = "application/octet-stream"
_REDIRECTS = 10
_MAX_RECORD = 64 << 10
_LATEST = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class _Record:
    """What a URL gave the last time. `served` is the name that the server gave it, or ""."""

    digest: str
    size: int
    etag: str = ""
    modified: str = ""
    served: str = ""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """What the machine and the user give. `records` is a directory for validators; contents go to `blobs`.

    `authorization` gives the value of the Authorization header for a URL, or "". `store` is the object store that the URL
    is of, and knows better. `sockets` ends downloads.
    """

    blobs: BlobStore
    records: Path
    proxies: Proxies = field(default_factory=Proxies, repr=False)
    ca_file: str = ""
    authorization: Callable[[str], str] = field(default=lambda _url: "", repr=False)
    sockets: Sockets = field(default_factory=Sockets)
    store: Object | None = None


class Download:
    """A FileSource with the one file that a URL gave: mode 0600, the time of Last-Modified (or 0)."""

    def __init__(self, name: str, mtime: int, descriptor: Descriptor, blobs: BlobStore) -> None:
        self._descriptor = descriptor
        self._blobs = blobs
        self._entry = Entry(
            name, Kind.FILE, 0o600, size=descriptor.size, mtime=mtime * 1_000_000_000, sha256=descriptor.digest.hex
        )

    @property
    def name(self) -> str:
        """The name of the file."""
        return self._entry.path

    def open_content(self) -> BinaryIO:
        """The content, verified."""
        return self._blobs.open(self._descriptor)

    def lookup(self, path: str, /) -> Entry | None:
        """See FileSource."""
        if not path:
            return Entry("", Kind.DIR, 0o755)
        return self._entry if path == self._entry.path else None

    def children(self, path: str, /) -> Sequence[str]:
        """See FileSource."""
        return () if path else (self._entry.path,)

    def listing(self, path: str, /) -> Iterator[Entry]:
        """See FileSource."""
        return listing_of(self, path)

    def link_id(self, entry: Entry, /) -> object | None:
        """See FileSource."""
        return None

    @contextmanager
    def reading(self, entries: Iterable[Entry], /) -> Iterator[Opener]:
        """See FileSource."""
        yield lambda _entry: self.open_content()


def download(
    url: str, checksum: str, name: str, settings: HttpSettings, progress: Callable[[int, int], None]
) -> Download:
    """Fetch a URL, or find that what it gave the last time still holds. `checksum` is `sha256:…` or "".

    `name` "" is what the server says, or else the last part of the URL. `progress` gets bytes done and bytes in all,
    and may raise. Raises ContextError (status, no answer, too large), DigestMismatchError.
    """
    base, own = _without_credentials(url)
    place = settings.records / hashlib.sha256(base.encode("utf-8", "surrogateescape")).hexdigest()
    known = _load(place, settings.blobs)
    if known is None or not checksum or known.digest != checksum:
        header = basic_authorization(own) if own else settings.authorization(base)
        known = _fetch(base, header, known, settings, progress)
        if checksum and checksum != known.digest:
            raise DigestMismatchError(f"digest mismatch for {http.redact(url)}: it has {known.digest}, --checksum says {checksum}")
        with suppress(OSError):
            os.makedirs(settings.records, mode=0o700, exist_ok=True)
            fs.write_atomic(place, json.dumps(asdict(known)).encode())
    descriptor = Descriptor(_OCTETS, Digest.parse(known.digest), known.size)
    return Download(name or known.served or url_filename(url) or UNNAMED, _modified(known.modified), descriptor, settings.blobs)


def _without_credentials(url: str) -> tuple[str, str]:
    """The URL without fragment and `user:password@`, and that."""
    url = url.partition("#")[0]
    try:
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError("it has no host")
        _ = parts.port
    except ValueError as error:
        raise ContextError(f"invalid URL: {error}") from error
    before, at, host = parts.netloc.rpartition("@")
    own = ":".join(unquote(part) for part in before.split(":", 1)) if at else ""
    return parts._replace(netloc=host).geturl(), own + ("" if ":" in own or not own else ":")


def _load(place: Path, blobs: BlobStore) -> _Record | None:
    """What we have of a URL; None when there is nothing, or its content has been cleaned up."""
    try:
        with open(place, "rb") as stream:
            record = _Record(**json.loads(stream.read(_MAX_RECORD)))
        there = blobs.stat(Digest.parse(record.digest)) == record.size
    except (OSError, ValueError, TypeError, KpyError):
        return None
    return record if there else None


class _Body:
    """The body of an answer as a stream that counts, and ends with an error when it is too large or too short."""

    def __init__(self, response: "Response", shown: str, progress: Callable[[int, int], None]) -> None:
        self._raw = response.raw
        self._shown = shown
        self._progress = progress
        length = response.headers.get("Content-Length", "")
        self._total = int(length) if length.isascii() and length.isdigit() else 0
        self._done = 0

    def read(self, size: int = -1) -> bytes:
        checkpoint()
        data: bytes = self._raw.read(size if size > 0 else 1 << 20)
        self._done += len(data)
        self._progress(self._done, self._total)
        if self._done > MAX_DOWNLOAD:
            raise ContextError(f"failed to download {self._shown}: it is larger than {MAX_DOWNLOAD >> 30} GiB")
        if not data and self._done < self._total:
            raise ContextError(f"failed to download {self._shown}: it ended after {self._done} of {self._total} bytes")
        return data


def _fetch(
    url: str, header: str, known: _Record | None, settings: HttpSettings, progress: Callable[[int, int], None]
) -> _Record:
    shown = http.redact(url)
    if any(char in header for char in "\r\n\0"):
        raise ContextError(f"the credentials for {urlsplit(url).hostname} have a line break")
    try:
        adapter = http.adapter(http.Trust(ca_files=(settings.ca_file,) if settings.ca_file else ()), pool_size=1, sockets=settings.sockets)
    except OSError as error:
        raise ContextError(f"cannot read the CA certificates of {settings.ca_file}: {error.strerror or error}") from error
    try:
        response = _get(adapter, url, header, known, settings)
        if response.status_code == 304 and known is not None:
            response.close()
            return known
        with response:
            found = settings.blobs.put(cast("BinaryIO", _Body(response, shown, progress)))
    except KpyError:
        raise
    except Exception as error:  # requests, urllib3 and socket errors: the seam
        kind, detail = http.classify(error)
        raise ContextError(f"failed to download {shown}: {detail or _WORDS[kind]}") from error
    finally:
        adapter.close()
    headers = response.headers
    return _Record(
        str(found.digest), found.size, headers.get("ETag", "")[:1000], headers.get("Last-Modified", "")[:100], _served(response)
    )


_WORDS: dict[http.Failure, str] = {
    "refused": "connection refused", "dns": "no such host", "tls": "tls failed", "timeout": "no answer in time",
    "proxy": "the proxy refused or did not answer", "unreachable": "the host is not reachable", "lost": "the connection was lost",
}  # fmt: skip


def _get(adapter: "HTTPAdapter", url: str, header: str, known: _Record | None, settings: HttpSettings) -> "Response":
    import requests

    asked = {}
    if known is not None and known.etag:
        asked["If-None-Match"] = known.etag
    elif known is not None and known.modified:
        asked["If-Modified-Since"] = known.modified
    home = _origin(url)
    for _ in range(_REDIRECTS):
        secret: dict[str, str] = {"Authorization": header} if header and _origin(url) == home else {}
        sent = url
        if settings.store is not None and _origin(url) == home:
            wire = settings.store.wire(url)
            sent, secret = wire.url, dict(wire.headers)
        headers = http.headers_for({**asked, **secret}, f"kpy/{__version__}")
        prepared = requests.Request("GET", sent, headers=headers).prepare()
        response = adapter.send(prepared, stream=True, timeout=(15, 120), proxies=settings.proxies.choose(url))
        if response.is_redirect:
            target = response.headers["Location"]
            response.close()
            try:
                url = http.join(url, target)
            except ValueError as error:
                raise ContextError(f"failed to download {http.redact(url)}: it redirects to {http.redact(target)}") from error
            continue
        if not (200 <= response.status_code < 300 and response.status_code != 206) and not (asked and response.status_code == 304):
            response.close()
            raise ContextError(
                f"failed to download {http.redact(url)}: the server answered with status {response.status_code}",
                hint=settings.store.hint(response.status_code) if settings.store is not None else
                _status_hint(response.status_code, urlsplit(url).hostname or "", sent=bool(secret)),
            )
        return response
    raise ContextError(f"failed to download {http.redact(url)}: more than {_REDIRECTS} redirects")


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _status_hint(status: int, host: str, *, sent: bool) -> str:
    if status not in (401, 403):
        return ""
    if sent:
        return "the server refuses the credentials that it was given"
    return f"give a token with --secret id=HTTP_AUTH_TOKEN_{host},env=NAME"


def _served(response: "Response") -> str:
    """The name that Content-Disposition gives."""
    from email.message import Message

    message = Message()
    try:
        message["Content-Disposition"] = response.headers.get("Content-Disposition", "")
        given = str(message.get_filename() or "")
    except (ValueError, ContentError, LookupError):
        return ""
    name = given.rpartition("/")[2]
    usable = name not in ("", ".", "..") and len(name.encode("utf-8", "surrogateescape")) <= 255 and name.isprintable()
    return name if usable else ""


def _modified(text: str) -> int:
    try:
        return min(max(0, int(parsedate_to_datetime(text).timestamp())), _LATEST)
    except (ValueError, TypeError, OverflowError):
        return 0
