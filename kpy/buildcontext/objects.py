"""Objects of S3, Google Cloud Storage and Azure Blob Storage as what they are, files on HTTPS servers: which URL, and what
to send with a request for it. No SDK, no metadata service: credentials are those of the environment's variables.

    s3://BUCKET/KEY         AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL
    gs://BUCKET/KEY         GOOGLE_OAUTH_ACCESS_TOKEN, or an HMAC key: GS_ACCESS_KEY_ID, GS_SECRET_ACCESS_KEY;
                            STORAGE_EMULATOR_HOST
    azblob://CONTAINER/KEY  AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_SERVICE_ENDPOINT

Without credentials a request is anonymous, as public buckets allow. The credentials go to that server only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias
from urllib.parse import quote, urlsplit

from kpy.buildcontext.sigv4 import AwsKey, Scope, sign
from kpy.errors import UsageError

SCHEMES = ("s3", "gs", "azblob")

Clock: TypeAlias = Callable[[], datetime]
Variables: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wire:
    """A request as it is sent."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Object:
    """`url` without anything secret; `wire` makes a request for it or for a URL of the same server that it redirects to;
    `hint` says what may be wrong when the server refuses with a status."""

    url: str
    wire: Callable[[str], Wire] = field(repr=False)
    hint: Callable[[int], str] = field(repr=False)


def is_object(text: str) -> bool:
    """Is it the name of an object?"""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


def locate(text: str, variables: Variables, now: Clock = lambda: datetime.now(UTC)) -> Object:
    """Where the object is, and how to ask for it. Raises UsageError for names and settings that cannot be."""
    scheme, _, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket or not key or "@" in bucket or ":" in bucket or any(char in text for char in "\0\r\n"):
        raise UsageError(f"invalid object {text!r}", hint=f"it is {scheme.lower()}://BUCKET/KEY")
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise UsageError(f"the object {text!r} cannot be asked for over HTTP: a part of its key is empty, . or ..")
    path = quote(key, safe="/-_.~", errors="surrogateescape")
    match scheme.lower():
        case "s3":
            return _s3(bucket, path, variables, now)
        case "gs":
            return _google(bucket, path, variables, now)
        case _:
            return _azure(bucket, path, variables)


def with_sas(url: str, variables: Variables) -> Object | None:
    """A plain URL of the storage account that the environment has a token for; None for any other."""
    token, account = variables.get("AZURE_STORAGE_SAS_TOKEN", ""), variables.get("AZURE_STORAGE_ACCOUNT", "")
    parts = urlsplit(url)
    if not token or not account or parts.query or parts.scheme != "https":
        return None
    return _blob(url, token) if parts.netloc == f"{account}.blob.core.windows.net" else None


def _s3(bucket: str, path: str, variables: Variables, now: Clock) -> Object:
    region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION") or "us-east-1"
    if not region.replace("-", "").isalnum() or not region.isascii():
        raise UsageError(f"AWS_REGION is {region!r}, which is no region")
    endpoint = variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL") or ""
    domain = f"{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")
    if endpoint:
        url = f"{_endpoint('AWS_ENDPOINT_URL', endpoint)}/{bucket}/{path}"
    elif "." in bucket:  # no certificate is for such a host
        url = f"https://s3.{domain}/{bucket}/{path}"
    else:
        url = f"https://{bucket}.s3.{domain}/{path}"
    key = _key(variables, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

    def wire(url: str) -> Wire:
        return Wire(url, sign("GET", url, {}, key, Scope(region), now()) if key else {})

    def hint(status: int) -> str:
        if status in (301, 307, 400):
            return f"is the bucket in {region}? AWS_REGION names its region"
        return _refused(status, f"{key.id} may not read it, or the clock of this machine is wrong" if key else
                        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")  # fmt: skip

    return Object(url, wire, hint)


def _google(bucket: str, path: str, variables: Variables, now: Clock) -> Object:
    emulator = variables.get("STORAGE_EMULATOR_HOST", "")
    if emulator and "://" not in emulator:
        emulator = f"http://{emulator}"
    host = _endpoint("STORAGE_EMULATOR_HOST", emulator) if emulator else "https://storage.googleapis.com"
    url = f"{host}/{bucket}/{path}"
    token = variables.get("GOOGLE_OAUTH_ACCESS_TOKEN", "")
    if not (token.isascii() and token.isprintable()):
        raise UsageError("GOOGLE_OAUTH_ACCESS_TOKEN has characters that no token has")
    key = _key(variables, "GS_ACCESS_KEY_ID", "GS_SECRET_ACCESS_KEY", "")

    def wire(url: str) -> Wire:
        if token:
            return Wire(url, {"Authorization": f"Bearer {token}"})
        return Wire(url, sign("GET", url, {}, key, Scope("auto"), now()) if key else {})

    return Object(url, wire, lambda status: _refused(
        status, "the token or key may not read it, or is too old" if token or key else
        "set GOOGLE_OAUTH_ACCESS_TOKEN, or GS_ACCESS_KEY_ID and GS_SECRET_ACCESS_KEY",
    ))  # fmt: skip


def _azure(container: str, path: str, variables: Variables) -> Object:
    account = variables.get("AZURE_STORAGE_ACCOUNT", "")
    endpoint = variables.get("AZURE_STORAGE_SERVICE_ENDPOINT", "")
    if not endpoint and not (account.isascii() and account.isalnum()):
        raise UsageError(
            f"azblob://{container}: AZURE_STORAGE_ACCOUNT names no storage account" if account else
            f"azblob://{container}: of which storage account?",
            hint="set AZURE_STORAGE_ACCOUNT, and AZURE_STORAGE_SAS_TOKEN if it is not public",
        )  # fmt: skip
    host = _endpoint("AZURE_STORAGE_SERVICE_ENDPOINT", endpoint) if endpoint else f"https://{account}.blob.core.windows.net"
    return _blob(f"{host}/{container}/{path}", variables.get("AZURE_STORAGE_SAS_TOKEN", ""))


def _blob(url: str, token: str) -> Object:
    token = token.lstrip("?")
    if any(char in token for char in " \r\n\0#"):
        raise UsageError("AZURE_STORAGE_SAS_TOKEN has characters that no token has")
    return Object(
        url,
        lambda url: Wire(f"{url}?{token}" if token else url),
        lambda status: _refused(
            status, "the token may not read it, or has expired" if token else "set AZURE_STORAGE_SAS_TOKEN"
        ),
    )


def _refused(status: int, text: str) -> str:
    if status == 404:
        return "there is no such bucket or key"
    return text if status in (401, 403) else ""


def _key(variables: Variables, name: str, secret: str, token: str) -> AwsKey | None:
    """The key of two variables; one without the other is a mistake."""
    ident, value = variables.get(name, ""), variables.get(secret, "")
    if bool(ident) != bool(value):
        raise UsageError(f"{name if ident else secret} is set and {secret if ident else name} is not")
    more = variables.get(token, "") if token else ""
    if not all(part.isascii() and part.isprintable() and " " not in part for part in (ident, value, more)):
        raise UsageError(f"{name}, {secret} or {token or 'the other'} has characters that no key has")
    return AwsKey(ident, value, more) if ident else None


def _endpoint(name: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = None
    if not usable or parts.query or parts.fragment or "@" in parts.netloc:
        raise UsageError(f"{name} is no http(s) URL of a server", hint="for example https://minio.example:9000")
    return text.rstrip("/")
