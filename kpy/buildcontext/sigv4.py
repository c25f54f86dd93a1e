"""Signature Version 4 of AWS, which S3 and all that speaks like it want: headers that sign a request. Pure.

The specification: AWS documentation, "Create a signed AWS API request". The clock is the caller's.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class AwsKey:
    """Who signs. `token` goes with temporary keys."""

    id: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a signature is good for."""

    region: str
    service: str = "s3"


def sign(
    method: str, url: str, headers: Mapping[str, str], key: AwsKey, scope: Scope, when: datetime, *, payload: str = EMPTY
) -> dict[str, str]:
    """The headers to add to a request with these others, which are all signed. The path of the URL must be in the form in
    which it is sent. `payload` is the hex digest of the body; services but S3 do not want it as a header."""
    stamp = when.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    added = {"X-Amz-Date": stamp}
    if scope.service == "s3":
        added["X-Amz-Content-Sha256"] = payload
    if key.token:
        added["X-Amz-Security-Token"] = key.token
    parts = urlsplit(url)
    signed = {name.lower(): " ".join(value.split()) for name, value in {**headers, **added, "Host": parts.netloc}.items()}
    names = ";".join(sorted(signed))
    request = "\n".join(
        [method, parts.path or "/", _query(parts.query), *(f"{name}:{signed[name]}" for name in sorted(signed)), "", names, payload]
    )
    place = f"{stamp[:8]}/{scope.region}/{scope.service}/aws4_request"
    text = "\n".join([_ALGORITHM, stamp, place, hashlib.sha256(request.encode()).hexdigest()])
    signature = _hmac(signing_key(key.secret, stamp[:8], scope), text).hex()
    added["Authorization"] = f"{_ALGORITHM} Credential={key.id}/{place},SignedHeaders={names},Signature={signature}"
    return added


def signing_key(secret: str, day: str, scope: Scope) -> bytes:
    """The key of one day (YYYYMMDD), region and service."""
    found = f"AWS4{secret}".encode()
    for part in (day, scope.region, scope.service, "aws4_request"):
        found = _hmac(found, part)
    return found


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _query(query: str) -> str:
    pairs = [(quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in parse_qsl(query, keep_blank_values=True)]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))
