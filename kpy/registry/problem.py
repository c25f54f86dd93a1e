"""What went wrong with a registry, in one line for people (N33). Shows no secret and no raw URL."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kpy.errors import AuthenticationError, ImageNotFoundError, RegistryError
from kpy.util.http import Failure, redact

_SECRETS = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~\-]{8,}|\beyJ[A-Za-z0-9_\-]{8,}[A-Za-z0-9_.\-]*")
_NOT_FOUND = ("NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "NOT_FOUND", "TAG_UNKNOWN")
RETRIED = frozenset((408, 429, 499, 500, 502, 503, 504, 522))  # N16
NETWORK_CODES = frozenset(("refused", "dns", "timeout", "proxy", "unreachable", "lost"))


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of a registry. `headers` do not mind case."""

    status: int
    headers: Mapping[str, str] = field(hash=False)
    body: bytes = field(repr=False)
    url: str = field(repr=False)


def first_error(body: bytes) -> tuple[str, str]:
    """(code, message) of an error body; text that is no such JSON counts as message, HTML as nothing."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        text = body[:400].decode("utf-8", "replace").strip()
        return "", "" if text.startswith("<") else clean(text)
    if not isinstance(data, dict):
        return "", ""
    errors = data.get("errors")
    if not isinstance(errors, list) or not errors or not isinstance(errors[0], dict):
        # token servers and proxies: {"details": …}, {"error": …, "error_description": …}, {"message": …}
        for key in ("details", "error_description", "message", "error"):
            if isinstance(data.get(key), str):
                return "", clean(data[key])
        return "", ""
    error = errors[0]
    code = clean(str(error.get("code") or ""))[:60].upper()
    message = clean(str(error.get("message") or ""))
    detail = error.get("detail")
    if isinstance(detail, str) and detail and detail != message:
        message = f"{message}: {clean(detail)}" if message else clean(detail)
    return code, message


def clean(text: str) -> str:
    """One line without control characters, secrets and other people's novels."""
    text = _SECRETS.sub("(secret)", text)
    text = "".join(char if char.isprintable() else " " for char in text[:1000])
    text = re.sub(r" +", " ", text).strip()
    return text if len(text) <= 300 else text[:299] + "…"


def problem(
    answer: Answer, *, method: str, registry: str, what: str, anonymous: bool = False
) -> RegistryError:
    """The error for an answer that is not what `what` (`pull app:1`, `upload blob …`) needs."""
    code, message = first_error(answer.body)
    status = f"HTTP {answer.status}"
    facts = ", ".join(part for part in (code, status) if part)
    text = f"cannot {what}: {registry} answered: {message} ({facts})" if message else f"cannot {what}: {registry} answered {facts}"
    kind: type[RegistryError] = RegistryError
    hint = ""
    if answer.status == 404 or code in _NOT_FOUND:
        kind = ImageNotFoundError
    elif answer.status in (401, 403):
        kind = AuthenticationError
        hint = f"log in: docker login {registry}" if anonymous else "the credentials may lack the right to do this"
    elif answer.status == 429 or code == "TOOMANYREQUESTS":
        hint = f"wait a while, or log in: docker login {registry}"
    elif answer.status in (413, 507):
        hint = "the registry, or a proxy before it, limits the size of uploads"
    return kind(text, method=method, url=redact(answer.url), status=answer.status, code=code, hint=hint)


def refused_login(
    answer: Answer, *, method: str, registry: str, repository: str, source: str, pushing: bool
) -> AuthenticationError:
    """The error for 401: `source` says whose credentials were sent, empty for none."""
    code, message = first_error(answer.body)
    resource = repository or "access"
    tail = f": {message}" if message else ""
    if source:
        text = f"registry {registry} refused the credentials of {source} for {resource}{tail}"
        hint = f"log in again: docker login {registry}"
    else:
        text = f"registry {registry} wants credentials for {resource}{tail}"
        hint = f"log in: docker login {registry}"
        if not pushing:
            hint += " (registries also answer so when there is no such repository)"
    return AuthenticationError(
        text, method=method, url=redact(answer.url), status=answer.status, code=code or "UNAUTHORIZED", hint=hint
    )


def unreachable(failure: Failure, detail: str, *, method: str, url: str) -> RegistryError:
    """The error for no answer at all. Its `code` is the failure's name, its status 0."""
    shown = redact(url)
    host = shown.partition("://")[2].partition("/")[0] or shown
    tail = f": {detail}" if detail else ""
    hint = ""
    match failure:
        case "refused":
            text = f"cannot connect to {host}: connection refused"
            hint = "is the registry running there?"
            if url.startswith("https:"):
                hint += f" One that speaks plain HTTP needs --insecure-registry {host}"
        case "dns":
            text = f"cannot find the registry {host}{tail}"
            hint = "check the name of the registry, and that this machine can resolve names"
        case "tls":
            text = f"cannot make a secure connection to {host}{tail}"
            if any(word in detail for word in ("wrong version", "unknown protocol", "record layer", "http request")):
                hint = f"it seems to speak plain HTTP: --insecure-registry {host} permits that"
            else:
                hint = f"give the CA certificate of the registry, or permit it with --insecure-registry {host}"
        case "timeout":
            text = f"{host} is too slow: {detail}" if detail else f"{host} did not answer in time"
        case "proxy":
            text = f"cannot reach {host} through the proxy"
            hint = "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
        case "unreachable":
            text = f"cannot connect to {host}{tail or ': network unreachable'}"
        case _:
            text = f"the connection to {host} broke{tail}"
    return RegistryError(text, method=method, url=shown, code=failure, hint=hint)
