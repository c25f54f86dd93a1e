"""Credentials from docker's and podman's files and their helper programs (N05, N06, N08).

Knows the format of config.json, not where the files are: the app says which, in which order. Secrets
stay out of `repr`, of errors and of argv (helpers get the server's name on stdin).
"""

import base64
import binascii
import json
import re
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kpy.errors import AuthenticationError, UsageError
from kpy.oci.reference import DOCKER_HUB
from kpy.util import waiting

HUB_KEY = "https://index.docker.io/v1/"  # docker login writes this for docker.io
TOKEN_USER = "<token>"  # docker-credential-helpers: then the secret is an identity token
MAX_FILE = 4 << 20
HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}")
_HUB_NAMES = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
_NOT_FOUND = "credentials not found"


@dataclass(frozen=True, slots=True)
class Credential:
    """What a registry gets to know us by; `source` says, for messages, where it is from."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    source: str = field(default="", compare=False)

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.identity_token or self.registry_token)

    @property
    def basic(self) -> str:
        """The value of an Authorization header, empty without user and password."""
        if not self.username or not self.password:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


@dataclass(frozen=True, slots=True)
class _File:
    source: str
    auths: Mapping[str, Credential] = field(repr=False)
    helpers: Mapping[str, str]
    store: str


class HelperMissingError(AuthenticationError):
    """The helper program that a file names is not installed."""


def run_helper(name: str, server: str) -> tuple[str, str] | None:
    """Ask docker-credential-NAME for (user, secret); None when it has none for the server."""
    if not HELPER_NAME.fullmatch(name):
        raise AuthenticationError(f"invalid credential helper name {name[:80]!r}")
    program = f"docker-credential-{name}"
    try:
        done = waiting.run([program, "get"], 60, server.encode())
    except FileNotFoundError as error:
        raise HelperMissingError(f"the credential helper {program} is not installed") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AuthenticationError(f"the credential helper {program} failed: {type(error).__name__}") from error
    if done.returncode:
        # Helpers write their errors to stdout (docker-credential-helpers, client/client.go).
        said = (done.stdout + done.stderr)[:400].decode("utf-8", "replace").strip().partition("\n")[0]
        if _NOT_FOUND in said.lower():
            return None
        raise AuthenticationError(f"the credential helper {program} failed for {server}: {said or done.returncode}")
    try:
        answer = json.loads(done.stdout)
        return str(answer.get("Username") or ""), str(answer.get("Secret") or "")
    except (ValueError, AttributeError, RecursionError) as error:
        raise AuthenticationError(f"the credential helper {program} gave no JSON object") from error


class Credentials:
    """The credentials of several files, merged: the first file that has something for a registry wins (N08)."""

    def __init__(
        self,
        files: Sequence[tuple[str, bytes]] = (),
        *,
        helper: Callable[[str, str], tuple[str, str] | None] = run_helper,
    ) -> None:
        """`files` are (name for messages, content). Raises UsageError for content that is not a config.json."""
        self._files = tuple(_parse(source, raw) for source, raw in files)
        self._helper = helper
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Credentials({[item.source for item in self._files]})"

    @staticmethod
    def load(
        paths: Sequence[Path] = (),
        texts: Sequence[tuple[str, str]] = (),
        *,
        helper: Callable[[str, str], tuple[str, str] | None] = run_helper,
    ) -> "Credentials":
        """Read `texts` (name, JSON) first, then the files; a file that is not there is no error."""
        files = [(name, text.encode()) for name, text in texts if text.strip()]
        for path in paths:
            try:
                with path.open("rb") as stream:
                    raw = stream.read(MAX_FILE + 1)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise UsageError(f"cannot read the credentials in {path}: {error.strerror}") from error
            if len(raw) > MAX_FILE:
                raise UsageError(f"the credentials file {path} is larger than {MAX_FILE >> 20} MiB")
            if raw.strip():  # podman makes empty ones
                files.append((str(path), raw))
        return Credentials(files, helper=helper)

    def find(self, registry: str, repository: str = "") -> Credential | None:
        """What to say to this registry about this repository; None: be anonymous. May run a helper.

        Most specific first, as containers-auth.json(5): registry/namespace/name, …, registry.
        """
        keys = _keys(registry, repository)
        for item in self._files:
            found = self._explicit(item, keys) or self._stored(item, keys[-1])
            if found:
                return found
        return None

    def _explicit(self, item: _File, keys: list[str]) -> Credential | None:
        for key in keys:
            if key in item.helpers:
                found = self._ask(item, item.helpers[key], key)
            else:
                found = item.auths.get(key)
            if found:
                return found
        return None

    def _stored(self, item: _File, registry: str) -> Credential | None:
        if not item.store:
            return None
        try:
            return self._ask(item, item.store, registry)
        except HelperMissingError:
            # A config.json of a desktop, mounted into a container: public images must still work.
            return None

    def _ask(self, item: _File, helper: str, key: str) -> Credential | None:
        server = HUB_KEY if key == DOCKER_HUB else key
        with self._lock:  # helpers may ask the user, or lock their key chain
            answer = self._helper(helper, server)
        if answer is None or not answer[1]:
            return None
        username, secret = answer
        source = f"{item.source} (credential helper {helper})"
        if username == TOKEN_USER:
            return Credential(identity_token=secret, source=source)
        return Credential(username, secret, source=source)


def _keys(registry: str, repository: str) -> list[str]:
    registry = DOCKER_HUB if registry in _HUB_NAMES else registry.lower()
    parts = repository.split("/") if repository else []
    return [f"{registry}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1)] + [registry]


def normalise_key(key: str) -> str:
    """A key of `auths` in one spelling; empty for what is no registry (docker desktop's token entries)."""
    had_scheme = key.startswith(("http://", "https://"))
    host, _, path = key.removeprefix("http://").removeprefix("https://").partition("/")
    path = path.strip("/")
    if host.lower() in _HUB_NAMES:
        if path in ("", "v1", "v2"):
            return DOCKER_HUB
        return "" if had_scheme else f"{DOCKER_HUB}/{path}"
    # docker compares host names only when a key has a scheme (cli, registry.ConvertToHostname).
    return host.lower() if had_scheme or path in ("", "v1", "v2") else f"{host.lower()}/{path}"


def _parse(source: str, raw: bytes) -> _File:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the credentials in {source} are not JSON") from error  # quoting might show a secret
    if not isinstance(data, dict):
        raise UsageError(f"the credentials in {source} are not a JSON object")
    auths = data.get("auths")
    if auths is None and not data.keys() & {"credHelpers", "credsStore"}:
        auths = {key: value for key, value in data.items() if isinstance(value, dict) and "auth" in value}  # .dockercfg
    found: dict[str, Credential] = {}
    for key, entry in sorted((auths or {}).items()) if isinstance(auths, dict) else ():
        name = normalise_key(key)
        credential = _entry(source, key, entry)
        if name and credential and (name not in found or key == name):
            found[name] = credential
    helpers = data.get("credHelpers")
    store = data.get("credsStore")
    return _File(
        source,
        found,
        {normalise_key(key): str(value) for key, value in helpers.items()} if isinstance(helpers, dict) else {},
        store if isinstance(store, str) else "",
    )


def _entry(source: str, key: str, entry: Any) -> Credential | None:
    if not isinstance(entry, dict):
        return None

    def text(name: str) -> str:
        value = entry.get(name)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if text("auth"):
        username, password = decode_auth(source, key, text("auth"))
    return Credential(username, password, text("identitytoken"), text("registrytoken"), source)


def decode_auth(source: str, key: str, auth: str) -> tuple[str, str]:
    """(user, password) of an `auth` field; the password may hold colons, the user not."""
    try:
        plain = base64.b64decode(auth + "=" * (-len(auth) % 4), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise UsageError(f"the credentials for {key} in {source} are not valid base64") from error
    username, colon, password = plain.rstrip("\0").partition(":")
    if not colon or "\n" in plain or "\r" in plain:
        raise UsageError(f"the credentials for {key} in {source} are not of the form user:password")
    return username, password
