"""From a challenge to an Authorization header: the ladder anonymous, Bearer token, Basic (N01-N04).

Owns the tokens: one for each set of scopes, renewed before they end, never sent to another registry.
Sends nothing itself but through the `exchange` it is given. Thread-safe: threads that want the same
token wait for one request.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlencode, urlsplit

from kpy.errors import RegistryError
from kpy.registry.challenge import Challenge, Scopes, format_scopes, parse_scope
from kpy.registry.credentials import TOKEN_USER, Credential, Credentials
from kpy.registry.problem import Answer, problem, refused_login
from kpy.util.http import join, redact

# (method, url, headers, body) -> answer of any status; retried and redirected by whoever gives it
Exchange: TypeAlias = Callable[[str, str, Mapping[str, str], bytes | None], Answer]

DEFAULT_LIFE = 60.0  # distribution token spec: expires_in defaults to 60 seconds
RENEW_AT = 0.9
FRESH = 5.0
MAX_TOKEN = 64 << 10
_TRY_OTHER = (400, 401, 404, 405)


@dataclass(frozen=True, slots=True)
class _Token:
    header: str = field(repr=False)
    born: float
    ends: float


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is asked for what: the registry of a reference, its repository, and the scopes of one request."""

    registry: str
    repository: str
    scopes: Scopes
    plain: bool = False  # the registry itself is spoken to over plain HTTP


@dataclass(slots=True)
class _State:
    lock: threading.RLock = field(default_factory=threading.RLock)
    challenges: tuple[Challenge, ...] = ()
    only_basic: bool = False
    tokens: dict[tuple[Credential | None, Scopes], _Token] = field(default_factory=dict)
    wider: dict[Scopes, Scopes] = field(default_factory=dict)
    found: dict[str, Credential | None] = field(default_factory=dict)


class Authenticator:
    """The Authorization headers for all registries of one client."""

    def __init__(self, credentials: Credentials, exchange: Exchange, clock: Callable[[], float]) -> None:
        self._credentials = credentials
        self._exchange = exchange
        self._clock = clock
        self._lock = threading.Lock()
        self._states: dict[str, _State] = {}

    def knows(self, registry: str) -> bool:
        """Has this registry challenged us before?"""
        return bool(self._state(registry).challenges)

    def learn(self, registry: str, challenges: tuple[Challenge, ...]) -> None:
        """Remember the challenges of an answer to a request without credentials."""
        state = self._state(registry)
        with state.lock:
            state.challenges = challenges or state.challenges

    def header(self, subject: Subject) -> str:
        """The Authorization header to send, empty for none. May fetch a token."""
        state = self._state(subject.registry)
        with state.lock:
            bearer, basic = _choose(state)
            if bearer is not None:
                return self._bearer(state, subject, bearer).header
            credential = self._credential(state, subject.registry, subject.repository)
            return credential.basic if basic and credential else ""

    def source(self, subject: Subject) -> str:
        """Where the credentials for this are from, empty when we are anonymous."""
        state = self._state(subject.registry)
        with state.lock:
            credential = self._credential(state, subject.registry, subject.repository)
            return (credential.source or "the command line") if credential else ""

    def challenged(self, subject: Subject, challenges: tuple[Challenge, ...], sent: str) -> bool:
        """The registry refused `sent` (empty: nothing). True when another try, with a new header, makes sense."""
        state = self._state(subject.registry)
        with state.lock:
            state.challenges = challenges or state.challenges
            bearer, basic = _choose(state)
            if sent.startswith("Basic ") and bearer is None:
                return self._other_credential(state, subject, sent)
            if sent.startswith("Bearer "):
                again = self._drop(state, subject, sent)
                if bearer and _widen(state, subject.scopes, bearer):
                    return True
                if again:
                    return True
                credential = self._credential(state, subject.registry, subject.repository)
                offered = any(item.scheme == "basic" for item in state.challenges)
                if offered and credential and credential.basic and not state.only_basic:
                    state.only_basic = True
                    return True
                return False
            if bearer is not None:
                _widen(state, subject.scopes, bearer)
                return True
            credential = self._credential(state, subject.registry, subject.repository)
            return basic and credential is not None and bool(credential.basic)

    def _state(self, registry: str) -> _State:
        with self._lock:
            return self._states.setdefault(registry, _State())

    def _credential(self, state: _State, registry: str, repository: str) -> Credential | None:
        if repository not in state.found:
            state.found[repository] = self._credentials.find(registry, repository)
        return state.found[repository]

    def _other_credential(self, state: _State, subject: Subject, sent: str) -> bool:
        # Passwords of helpers end (ECR: after 12 hours): ask again, once for each refusal.
        state.found.pop(subject.repository, None)
        credential = self._credential(state, subject.registry, subject.repository)
        return credential is not None and credential.basic not in ("", sent)

    def _drop(self, state: _State, subject: Subject, sent: str) -> bool:
        """Forget a refused token. True when it was not new, so that a newer one may do."""
        now = self._clock()
        old = [(key, token) for key, token in state.tokens.items() if token.header == sent]
        for key, _ in old:
            del state.tokens[key]
        if not old:
            return True  # another thread has renewed it already
        state.found.pop(subject.repository, None)
        return any(now - token.born > FRESH for _, token in old)

    def _bearer(self, state: _State, subject: Subject, challenge: Challenge) -> _Token:
        credential = self._credential(state, subject.registry, subject.repository)
        if credential and credential.registry_token:
            return _Token(f"Bearer {_token_text(credential.registry_token, subject, '')}", 0, 0)
        wanted = state.wider.get(subject.scopes, subject.scopes)
        now = self._clock()
        for (owner, scopes), token in state.tokens.items():
            if owner == credential and wanted <= scopes and now < token.ends:
                return token
        token = self._fetch(subject, challenge, credential, wanted)
        state.tokens[credential, wanted] = token
        return token

    def _fetch(
        self, subject: Subject, challenge: Challenge, credential: Credential | None, scopes: Scopes
    ) -> _Token:
        realm = challenge.parameters.get("realm", "")
        _check_realm(realm, subject)
        service = challenge.parameters.get("service", "")
        started = self._clock()
        answer = Answer(0, {}, b"", realm)
        for attempt in _ladder(credential, realm, service, format_scopes(scopes)):
            answer = self._exchange(*attempt)
            if answer.status == 200:
                return _read_token(answer, subject, started)
            if answer.status not in _TRY_OTHER:
                break
        if answer.status in (400, 401, 403) and (credential or answer.status != 400):
            raise refused_login(
                answer,
                method="GET",
                registry=subject.registry,
                repository=subject.repository,
                source=(credential.source or "the command line") if credential else "",
                pushing=any(action == "push" for _, _, action in scopes),
            )
        raise problem(answer, method="GET", registry=subject.registry, what=f"get a token from {redact(realm)}")


def _choose(state: _State) -> tuple[Challenge | None, bool]:
    """The Bearer challenge to answer, and whether Basic is the way."""
    basic = any(item.scheme == "basic" for item in state.challenges)
    if state.only_basic:
        return None, True
    bearer = next((c for c in state.challenges if c.scheme == "bearer" and c.parameters.get("realm")), None)
    return bearer, basic and bearer is None


def _widen(state: _State, scopes: Scopes, challenge: Challenge) -> bool:
    """Ask for what the challenge names, too (N04). True when that is more than before."""
    before = state.wider.get(scopes, scopes)
    after = before | parse_scope(challenge.parameters.get("scope", ""))
    if after == before or len(after) > 64:
        return False
    state.wider[scopes] = after
    return True


def _check_realm(realm: str, subject: Subject) -> None:
    try:
        parts = urlsplit(join(realm, ""))
    except ValueError as error:
        shown = redact(realm)[:200]
        raise RegistryError(f"registry {subject.registry} names an invalid token server {shown!r}") from error
    if parts.scheme == "http" and not subject.plain:
        raise RegistryError(
            f"registry {subject.registry} wants credentials sent over plain HTTP to {parts.hostname}",
            hint=f"that is only done for registries given with --insecure-registry {subject.registry}",
        )


def _ladder(
    credential: Credential | None, realm: str, service: str, scopes: list[str]
) -> list[tuple[str, str, dict[str, str], bytes | None]]:
    """The requests for a token to try, in order (N02)."""
    query = [("service", service)] * bool(service) + [("scope", scope) for scope in scopes]
    join = "&" if urlsplit(realm).query else "?"

    def get(basic: str) -> tuple[str, str, dict[str, str], None]:
        account = [("account", credential.username)] if basic and credential and credential.username else []
        text = urlencode(account + query)
        return "GET", realm + (join + text if text else ""), {"Authorization": basic} if basic else {}, None

    def post(**fields: str) -> tuple[str, str, dict[str, str], bytes]:
        form = {**fields, "service": service, "client_id": "kpy", "scope": " ".join(scopes)}
        return "POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(form).encode()

    if credential is None:
        return [get("")]
    if credential.identity_token:
        token = credential.identity_token
        fallback = Credential(credential.username or TOKEN_USER, token)
        return [post(grant_type="refresh_token", refresh_token=token), get(fallback.basic)]
    if not credential.basic:
        return [get("")]
    return [
        get(credential.basic),
        post(grant_type="password", username=credential.username, password=credential.password),
    ]


def _read_token(answer: Answer, subject: Subject, started: float) -> _Token:
    try:
        data = json.loads(answer.body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise RegistryError(f"the token server of {subject.registry} gave no JSON object", url=redact(answer.url))
    text = _token_text(data.get("token") or data.get("access_token"), subject, answer.url)
    life = data.get("expires_in")
    seconds = float(life) if isinstance(life, int | float) and life > 0 else DEFAULT_LIFE
    # docker treats shorter lives than 60 s as 60 (distribution token spec: "must never return less").
    seconds = min(max(seconds, DEFAULT_LIFE), 86400.0)
    return _Token(f"Bearer {text}", started, started + seconds * RENEW_AT)


def _token_text(token: object, subject: Subject, url: str) -> str:
    if isinstance(token, str) and 0 < len(token) <= MAX_TOKEN and token.isascii() and token.isprintable():
        return token
    raise RegistryError(f"the token server of {subject.registry} gave no usable token", url=redact(url))
