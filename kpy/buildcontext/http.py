"""ADD from a URL (C24, C25): one file, streamed to disk with a limit, its checksum verified on the way."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, BinaryIO

from kpy import __version__
from kpy.errors import ContextError, DigestMismatchError
from kpy.layer.entry import Entry, Kind
from kpy.layer.source import Opener
from kpy.util import http
from kpy.util.proxies import Proxies

if TYPE_CHECKING:
    from requests import Response
    from requests.adapters import HTTPAdapter

MAX_DOWNLOAD = 32 << 30
_REDIRECTS = 10
_PIECE = 1 << 20
_UNNAMED = "__unnamed__"  # as BuildKit calls what a URL gives no name


class Download:
    """A FileSource with the one file that a URL gave: mode 0600, the time of Last-Modified (or 0)."""

    def __init__(self, path: str, name: str, size: int, mtime: int, sha256: str) -> None:
        self._path = path
        self._entry = Entry(name, Kind.FILE, 0o600, size=size, mtime=mtime * 1_000_000_000, sha256=sha256)

    def lookup(self, path: str, /) -> Entry | None:
        """See FileSource."""
        if not path:
            return Entry("", Kind.DIR, 0o755)
        return self._entry if path == self._entry.path else None

    def children(self, path: str, /) -> Sequence[str]:
        """See FileSource."""
        return () if path else (self._entry.path,)

    def link_id(self, entry: Entry, /) -> object | None:
        """See FileSource."""
        return None

    @contextmanager
    def reading(self, entries: Sequence[Entry], /) -> Iterator[Opener]:
        """See FileSource."""

        def read(_: Entry) -> BinaryIO:
            return open(self._path, "rb", buffering=0)

        yield read


def download(
    url: str, checksum: str, name: str, directory: str, proxies: Proxies, progress: Callable[[int, int], None]
) -> Download:
    """Fetch a URL into `directory`. `checksum` is `sha256:…` or "". `progress` gets bytes done and bytes in all.

    Raises ContextError (status, no answer, too large), DigestMismatchError.
    """
    path = os.path.join(directory, hashlib.sha256(url.encode()).hexdigest())
    hasher = hashlib.sha256()
    shown = http.redact(url)
    done = 0
    adapter = http.adapter(http.Trust(), pool_size=1)
    try:
        response = _get(adapter, url, proxies)
        total = int(response.headers.get("Content-Length") or 0)
        with open(path, "wb", buffering=0) as out:
            while data := response.raw.read(_PIECE):
                out.write(data)
                hasher.update(data)
                done += len(data)
                progress(done, total)
                if done > MAX_DOWNLOAD:
                    raise ContextError(f"failed to download {shown}: it is larger than {MAX_DOWNLOAD >> 30} GiB")
        if total and done < total:
            raise ContextError(f"failed to download {shown}: it ended after {done} of {total} bytes")
    except ContextError:
        raise
    except Exception as error:  # requests, urllib3 and socket errors: the seam
        _, detail = http.classify(error)
        raise ContextError(f"failed to download {shown}: {detail}") from error
    finally:
        adapter.close()
    found = f"sha256:{hasher.hexdigest()}"
    if checksum and checksum != found:
        raise DigestMismatchError(f"digest mismatch for {shown}: it has {found}, --checksum says {checksum}")
    return Download(path, _name(name, response), done, _modified(response), hasher.hexdigest())


def _get(adapter: "HTTPAdapter", url: str, proxies: Proxies) -> "Response":
    import requests

    for _ in range(_REDIRECTS):
        headers = http.headers_for({}, f"kpy/{__version__}")
        prepared = requests.Request("GET", url, headers=headers).prepare()
        response = adapter.send(prepared, stream=True, timeout=(15, 120), proxies=proxies.choose(url))
        if response.is_redirect:
            target = requests.compat.urljoin(url, response.headers["Location"])
            response.close()
            if not target.startswith(("http://", "https://")):
                raise ContextError(f"failed to download {http.redact(url)}: it redirects to {http.redact(target)}")
            url = target
            continue
        if response.status_code != 200:
            response.close()
            raise ContextError(f"failed to download {http.redact(url)}: the server answered with status {response.status_code}")
        return response
    raise ContextError(f"failed to download {http.redact(url)}: more than {_REDIRECTS} redirects")


def _name(name: str, response: "Response") -> str:
    """The last part of the URL, or what Content-Disposition says when the URL ends with a slash."""
    if name and name not in (".", ".."):
        return name
    from email.message import Message

    message = Message()
    message["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    given = os.path.basename(str(message.get_filename() or ""))
    return given if given not in ("", ".", "..") else _UNNAMED


def _modified(response: "Response") -> int:
    try:
        return max(0, int(parsedate_to_datetime(response.headers["Last-Modified"]).timestamp()))
    except (KeyError, ValueError, TypeError):
        return 0
