"""One client's way to the network: pooled connections, probing, redirects, retries, authorization.

The seam where exceptions of requests and urllib3 become RegistryError. Knows HTTP, not repositories.
Thread-safe. Authorization goes to the registry itself, never to whom it redirects (N09).
"""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from kpy.errors import InterruptedBuildError, KpyError, RegistryError
from kpy.registry import challenge, problem
from kpy.registry.auth import Authenticator, Subject
from kpy.registry.body import MAX_SMALL, discard, read_all, read_some
from kpy.registry.challenge import Scopes
from kpy.registry.credentials import Credentials
from kpy.registry.hosts import Endpoint, Hosts
from kpy.registry.pause import Pauses
from kpy.registry.problem import Answer
from kpy.util import http
from kpy.util.retry import Retry
from kpy.util.sockets import Sockets
from kpy.util.trust import Trust

if TYPE_CHECKING:
    from requests import Response
    from requests.adapters import HTTPAdapter

BodyFactory: TypeAlias = Callable[[], Iterable[bytes]]  # sized; called anew for each try
_MAX_REDIRECTS = 6
_MAX_LOGINS = 4
_OK = frozenset((200,))


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a registry. `target` is a path, or a URL it gave us; `what` completes "cannot …".

    `repeat` says that it may be sent again after it failed half-way; `expect`, which statuses are an answer.
    """

    method: str
    registry: str
    target: str
    what: str
    repository: str = ""
    scopes: Scopes = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    body: bytes | BodyFactory | None = field(default=None, repr=False)
    expect: Collection[int] = _OK
    repeat: bool = True

    @property
    def pushing(self) -> bool:
        """Does it want to write?"""
        return any(action == "push" for _, _, action in self.scopes)


class Transport:
    """Sends requests. `sleep`, `clock` and `jitter` (0..1) are arguments, so that tests need no time."""

    def __init__(
        self,
        hosts: Hosts,
        credentials: Credentials,
        *,
        retry: Retry,
        user_agent: str,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self.hosts = hosts
        self.retry = retry
        self._user_agent = user_agent
        self._sleep = sleep
        self._jitter = jitter
        self._auth = Authenticator(credentials, self._exchange_plain, clock)
        self._lock = threading.Lock()
        self._adapters: dict[Trust, HTTPAdapter] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._probing: dict[str, threading.Lock] = {}
        self._slots: dict[str, threading.BoundedSemaphore] = {}
        self._met: set[str] = set()
        self._sockets = Sockets()

    def abort(self) -> None:
        """Break off all that is under way, from any thread: it raises InterruptedBuildError, as does all that begins."""
        self._sockets.abort()

    def close(self) -> None:
        """Close all pooled connections."""
        with self._lock:
            for adapter in self._adapters.values():
                adapter.close()
            self._adapters.clear()

    def slot(self, registry: str) -> threading.BoundedSemaphore:
        """One of the registry's transfers (N17); hold it while uploading."""
        with self._lock:
            return self._slots.setdefault(registry, threading.BoundedSemaphore(max(1, self.hosts.concurrency)))

    def pauses(self) -> Pauses:
        """The waits of one operation that may be tried again."""
        return Pauses(self.retry, self._sleep, self._jitter)

    def exchange(self, request: Request, *, limit: int = MAX_SMALL) -> Answer:
        """Send, and read the whole answer, of at most `limit` bytes."""
        pauses = self.pauses()
        while True:
            response = self.open(request, pauses)
            try:
                return self._whole(response, limit)
            except RegistryError as error:
                if not request.repeat or error.code not in problem.NETWORK_CODES or not pauses.pause():
                    raise

    def open(self, request: Request, pauses: Pauses | None = None) -> "Response":
        """Send, and give back the answer with its body unread; the caller closes it.

        Its status is in `expect`; others raise RegistryError, after retries where they make sense (N16).
        """
        pauses = pauses or self.pauses()
        while True:
            try:
                response, sent = self._authorized(request)
            except RegistryError as error:
                if request.repeat and self._is_transient(error, request.registry) and pauses.pause():
                    continue
                raise
            if response.status_code in request.expect:
                return response
            again = request.repeat and response.status_code in problem.RETRIED
            after = response.headers.get("Retry-After", "")
            answer = self._error_answer(response)
            if again and pauses.pause(after):
                continue
            raise self._problem(request, answer, sent)

    def endpoint(self, registry: str) -> Endpoint:
        """How this registry is reached; probed once when there are several ways."""
        with self._lock:
            known = self._endpoints.get(registry)
            probing = self._probing.setdefault(registry, threading.Lock())
        if known is not None:
            return known
        with probing:
            with self._lock:
                known = self._endpoints.get(registry)
            if known is None:
                candidates = self.hosts.candidates(registry)
                known = candidates[0] if len(candidates) == 1 else self._probe(candidates)
                with self._lock:
                    self._endpoints[registry] = known
        return known

    def _probe(self, candidates: tuple[Endpoint, ...]) -> Endpoint:
        errors: list[RegistryError] = []
        strange: Endpoint | None = None
        for candidate in candidates:
            try:
                response = self._follow("GET", f"{candidate.base}/v2/", {}, None, candidate, "")
            except RegistryError as error:
                errors.append(error)
                continue
            header = response.headers.get("WWW-Authenticate", "")
            discard(response)
            # "Client sent an HTTP request to an HTTPS server" comes with 400.
            if response.status_code == 400 and candidate.scheme == "http":
                strange = strange or candidate
                continue
            if response.status_code == 401:
                self._auth.learn(candidate.registry, challenge.parse(header))
            return candidate
        if strange is not None:
            return strange
        # The first way's error tells most, unless it only says that the other scheme is spoken there.
        telling = [error for error in errors if error.code not in ("tls", "lost")]
        raise telling[0] if telling else errors[0]

    def _is_transient(self, error: RegistryError, registry: str) -> bool:
        if error.status or error.code not in problem.NETWORK_CODES:
            return False
        if error.code in ("refused", "unreachable") or (error.code == "dns" and "temporary" not in error.message):
            # A registry that we never spoke to will hardly begin to exist within seconds: say so at once.
            with self._lock:
                return registry in self._met
        return True

    def _problem(self, request: Request, answer: Answer, sent: str | None) -> RegistryError:
        if answer.status == 401 and sent is not None:
            source = self._auth.source(self._subject(request)) if sent else ""
            return problem.refused_login(
                answer,
                method=request.method,
                registry=request.registry,
                repository=request.repository,
                source=source,
                pushing=request.pushing,
            )
        anonymous = sent == ""
        return problem.problem(
            answer, method=request.method, registry=request.registry, what=request.what, anonymous=anonymous
        )

    def _subject(self, request: Request) -> Subject:
        plain = self.endpoint(request.registry).scheme == "http"
        return Subject(request.registry, request.repository, request.scopes, plain)

    def _authorized(self, request: Request) -> "tuple[Response, str | None]":
        """The answer, and the Authorization that was sent for it; None when it is another host's."""
        endpoint = self.endpoint(request.registry)
        subject = self._subject(request)
        url = self._url(endpoint, request.target)
        for attempt in range(_MAX_LOGINS):
            sent = self._auth.header(subject) if _origin(url) == _origin(endpoint.base) else ""
            response = self._follow(request.method, url, request.headers, request.body, endpoint, sent)
            if _origin(response.url or url) != _origin(endpoint.base):
                return response, None  # somebody else's refusal says nothing about our credentials
            challenges = challenge.parse(response.headers.get("WWW-Authenticate", ""))
            widen = any(item.parameters.get("error") == "insufficient_scope" for item in challenges)
            if response.status_code != 401 and not (response.status_code == 403 and widen):
                return response, sent
            if not challenges and not self._auth.knows(request.registry):
                challenges = self._ping(endpoint)
            if attempt == _MAX_LOGINS - 1 or not self._auth.challenged(subject, challenges, sent):
                return response, sent
            discard(response)
        raise AssertionError("unreachable")

    def _ping(self, endpoint: Endpoint) -> tuple[challenge.Challenge, ...]:
        """The challenges of /v2/ (N01), for registries that refuse without saying what they want."""
        response = self._follow("GET", f"{endpoint.base}/v2/", {}, None, endpoint, "")
        found = challenge.parse(response.headers.get("WWW-Authenticate", ""))
        discard(response)
        return found

    def _url(self, endpoint: Endpoint, target: str) -> str:
        url = self._join(endpoint, endpoint.base + "/", target)  # N35: Locations may be relative
        parts, home = urlsplit(url), urlsplit(endpoint.base)
        if parts.scheme == "http" and home.scheme == "https" and parts.hostname == home.hostname:
            # Registries behind a TLS proxy that do not know it name themselves http://.
            return endpoint.base + url.partition("://")[2].removeprefix(parts.netloc)
        return url

    def _join(self, endpoint: Endpoint, base: str, target: str) -> str:
        try:
            return http.join(base, target)
        except ValueError as error:
            shown = http.redact(target)[:200]
            raise RegistryError(f"{endpoint.registry} gave an invalid URL {shown!r}", url=http.redact(base)) from error

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | BodyFactory | None,
        endpoint: Endpoint,
        authorization: str,
    ) -> "Response":
        home = _origin(endpoint.base)
        for _ in range(_MAX_REDIRECTS):
            own = {**headers}
            if authorization and _origin(url) == home:
                own["Authorization"] = authorization
            response = self._send(method, url, own, body, verify=self._verify(url, endpoint))
            with self._lock:
                self._met.add(endpoint.registry)
            status, location = response.status_code, response.headers.get("Location", "")
            keeps = (307, 308) if method not in ("GET", "HEAD") else (301, 302, 303, 307, 308)
            if status not in keeps or not location:
                return response
            discard(response)
            target = self._join(endpoint, url, location)
            if urlsplit(target).scheme == "http" and urlsplit(url).scheme == "https":
                raise RegistryError(
                    f"{endpoint.registry} redirects to {http.redact(target)[:200]}, which is not HTTPS",
                    method=method,
                    url=http.redact(url),
                )
            url = target
        raise RegistryError(f"{endpoint.registry} redirects in circles", method=method, url=http.redact(url))

    def _verify(self, url: str, endpoint: Endpoint) -> bool:
        if _origin(url) == _origin(endpoint.base):
            return endpoint.verify
        return self.hosts.candidates(urlsplit(url).netloc.rpartition("@")[2])[0].verify

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | BodyFactory | None,
        *,
        verify: bool,
    ) -> "Response":
        import requests
        import urllib3

        timeouts = self.hosts.timeouts
        data = body() if callable(body) else body
        own = http.headers_for(headers, self._user_agent)
        try:
            prepared = requests.Request(method, url, headers=own, data=data).prepare()
            response = self._adapter(self.hosts.trust(urlsplit(url).netloc.rpartition("@")[2], verify=verify)).send(
                prepared,
                stream=True,
                timeout=(timeouts.connect, timeouts.read),
                proxies=self.hosts.proxies.choose(url),
            )
        except KpyError:
            raise  # from the body's source
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, UnicodeError) as error:
            raise RegistryError(f"invalid URL or header for {http.redact(url)[:200]}", method=method) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if self._sockets.aborted:
                raise InterruptedBuildError("interrupted") from error
            raise problem.unreachable(*http.classify(error), method=method, url=url) from error
        return response

    def _adapter(self, trust: Trust) -> "HTTPAdapter":
        with self._lock:
            found = self._adapters.get(trust)
            if found is None:
                try:
                    found = http.adapter(
                        trust, pool_size=max(8, 2 * self.hosts.concurrency), sockets=self._sockets, pace=self.hosts.timeouts.pace
                    )
                except OSError as error:  # ssl.SSLError is one
                    raise RegistryError(
                        f"cannot use the CA or client certificate: {error.strerror or error}",
                        hint="they must be PEM files",
                    ) from error
                self._adapters[trust] = found
        return found

    def _whole(self, response: "Response", limit: int) -> Answer:
        return Answer(response.status_code, response.headers, read_all(response, limit), response.url or "")

    def _error_answer(self, response: "Response") -> Answer:
        try:
            body = read_some(response, 64 << 10)
        except RegistryError:
            body = b""  # the status matters more
        finally:
            response.close()
        return Answer(response.status_code, response.headers, body, response.url or "")

    def _exchange_plain(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """Ask a token server: `headers` carry what it may know, the redirects only what all may."""
        parts = urlsplit(url)
        server = Endpoint(parts.netloc, parts.scheme, parts.netloc, self.hosts.candidates(parts.netloc)[0].verify)
        own = {key: value for key, value in headers.items() if key != "Authorization"}
        pauses = self.pauses()
        while True:
            try:
                response = self._follow(method, url, own, body, server, headers.get("Authorization", ""))
                after = response.headers.get("Retry-After", "")
                if response.status_code in problem.RETRIED:
                    answer = self._error_answer(response)
                    if pauses.pause(after):
                        continue
                    return answer
                return self._whole(response, MAX_SMALL)
            except RegistryError as error:
                if not self._is_transient(error, server.registry) or not pauses.pause():
                    raise


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)  # went through http.join
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
