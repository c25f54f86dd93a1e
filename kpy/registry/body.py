"""Bodies of answers: raw bytes, piece by piece, with limits. Decodes nothing: what was hashed stays as it is."""

from typing import TYPE_CHECKING

from kpy.errors import RegistryError
from kpy.registry import problem
from kpy.util import http
from kpy.util.checkpoint import checkpoint

if TYPE_CHECKING:
    from requests import Response

MAX_SMALL = 1 << 20


def stated_size(text: str) -> int | None:
    """The number of bytes that a header gives, such as Content-Length; None for none, and for what is no such number."""
    # isdigit alone takes a superscript two, and int refuses that as well as 5,000 digits
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def read_piece(response: "Response", size: int) -> bytes:
    """Up to `size` raw bytes of the body, empty at its end; what breaks is a RegistryError."""
    import urllib3

    checkpoint()
    try:
        data: bytes = response.raw.read(size, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        response.close()
        raise problem.unreachable(*http.classify(error), method="GET", url=response.url or "") from error
    return data


def read_some(response: "Response", limit: int) -> bytes:
    """The first `limit` bytes of the body."""
    parts: list[bytes] = []
    while limit and (data := read_piece(response, limit)):
        parts.append(data)
        limit -= len(data)
    return b"".join(parts)


def read_all(response: "Response", limit: int) -> bytes:
    """The whole body; more than `limit` bytes raise RegistryError. Closes the answer."""
    try:
        data = read_some(response, limit + 1)
    finally:
        response.close()
    if len(data) > limit:
        raise RegistryError(f"the answer is larger than {limit >> 20} MiB", url=http.redact(response.url or ""))
    return data


def discard(response: "Response") -> None:
    """Forget the body; a short one is read, so that the connection can be used again."""
    try:
        read_some(response, 64 << 10)
    except RegistryError:
        pass
    finally:
        response.close()
