"""HTTP without policy: adapters with our TLS trust, URL redaction, names for what went wrong.

Knows nothing of registries. Never reads the environment (so no netrc, no *_PROXY) and keeps no cookies.
"""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urljoin, urlsplit, urlunsplit

from kpy.util.pace import Pace, TooSlowError
from kpy.util.sockets import Sockets
from kpy.util.trust import Trust as Trust  # noqa: PLC0414  (adapter users need it)
from kpy.util.trust import ssl_context

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter

Failure: TypeAlias = Literal["refused", "dns", "tls", "timeout", "proxy", "unreachable", "lost"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for a connection, and for the next bytes of an answer; and how many of them must come in time."""

    connect: float = 15.0
    read: float = 120.0
    pace: Pace = field(default_factory=Pace)


def redact(url: str) -> str:
    """The URL without user, password, fragment and the values of its query: fit for a message."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(invalid URL)"
    query = "&".join(f"{part.partition('=')[0]}=…" for part in parts.query.split("&") if part)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def join(base: str, target: str) -> str:
    """The absolute http(s) URL that `target`, from a stranger, means at `base`. Raises ValueError."""
    url = urljoin(base, target).partition("#")[0]
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("not an HTTP URL")
    return url


def adapter(trust: Trust, *, pool_size: int, sockets: Sockets | None = None, pace: Pace | None = None) -> "HTTPAdapter":
    """A requests adapter: a thread-safe pool of kept-alive connections that trusts whom it is told to.

    `sockets` knows what it opens, and can end it; `pace` is how fast answers must come.

    We send through adapters, not sessions: a Session keeps cookies, reads netrc and proxies of the
    environment, and swallows the whole body of a redirect into memory.
    """
    from requests.adapters import HTTPAdapter

    from kpy.util.pools import pools_of

    context = ssl_context(trust)
    pools = pools_of(sockets or Sockets(), verify=trust.verify, pace=pace or Pace())

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:  # noqa: FBT001, FBT002
            super().init_poolmanager(connections, maxsize, block=block, **kwargs)
            self.poolmanager.pool_classes_by_scheme = pools

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            manager = super().proxy_manager_for(proxy, **kwargs)
            manager.pool_classes_by_scheme = pools
            return manager

        def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
            host, _ = super().build_connection_pool_key_attributes(request, trust.verify, None)
            if host["scheme"] != "https":
                return host, {}
            return host, {"ssl_context": context, "cert_reqs": "CERT_REQUIRED" if trust.verify else "CERT_NONE"}

        def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
            pass  # the context says it all

    return Adapter(pool_connections=64, pool_maxsize=pool_size)


def classify(error: BaseException) -> tuple[Failure, str]:
    """What a requests, urllib3 or socket exception means, and its detail in few words."""
    chain = list(_causes(error))
    names = {type(item).__name__ for item in chain}
    for item in chain:
        if isinstance(item, ssl.SSLError) and not isinstance(item, ssl.SSLEOFError):
            return "tls", str(getattr(item, "verify_message", "") or item.reason or item).lower().replace("_", " ")
    if "ProxyError" in names:
        return "proxy", ""
    for item in chain:
        if isinstance(item, socket.gaierror):
            return ("dns", "temporary failure") if item.errno == socket.EAI_AGAIN else ("dns", "no such host")
        if isinstance(item, TooSlowError):
            return "timeout", str(item)
        if isinstance(item, ConnectionRefusedError):
            return "refused", ""
        if isinstance(item, ConnectionResetError | BrokenPipeError):
            return "lost", ""
    if names & {"SSLError"} and not names & {"SSLEOFError"}:
        return "tls", re.sub(r"\s+", " ", str(chain[-1]))[:120]
    if any(isinstance(item, TimeoutError) for item in chain) or any("Timeout" in name for name in names):
        return "timeout", ""
    if "NewConnectionError" in names:
        return "unreachable", next((i.strerror.lower() for i in chain if isinstance(i, OSError) and i.strerror), "")
    return "lost", ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo and len(seen) < 32:
        item = todo.pop(0)
        if item is None or any(item is old for old in seen):
            continue
        seen.append(item)
        yield item
        todo += [item.__cause__, item.__context__]
        todo += [arg for arg in (*item.args, getattr(item, "reason", None)) if isinstance(arg, BaseException)]


def headers_for(base: Mapping[str, str], user_agent: str) -> dict[str, str]:
    """The headers of a request of ours: what was hashed must not be transcoded on the way."""
    return {"User-Agent": user_agent, "Accept-Encoding": "identity", **base}
