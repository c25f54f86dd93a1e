"""An OCI registry in this process, with scripted faults: what tests of registry clients run against.

Speaks distribution-spec 1.1 over real sockets: blobs, uploads (POST, PATCH, PUT, status, DELETE), mounts,
manifests, tags, referrers, HEAD, Range, pages, Basic and Bearer authentication with a token server. Every
request is recorded. Faults are values, taken in order by the requests that they match:

    with RegistryServer() as server:
        server.fault(Status(503), method="GET", path="/blobs/", times=2)
        server.fault(Cut(1000), path="/blobs/")
"""

import base64
import hashlib
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

OCI_INDEX = "application/vnd.oci.image.index.v1+json"


# -- faults ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status:
    """Answer this instead."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """Answer rightly, but drop the connection after so many bytes of the body; `reset`: with a TCP reset."""

    after: int
    reset: bool = False


@dataclass(frozen=True)
class CutRequest:
    """Drop the connection after reading (and keeping, for uploads) so many bytes of the request's body."""

    after: int


@dataclass(frozen=True)
class Corrupt:
    """Answer with the right length, but one bit of the body flipped."""


@dataclass(frozen=True)
class Longer:
    """Answer with more bytes than there are."""

    by: int = 10


@dataclass(frozen=True)
class Drop:
    """Close the connection instead of answering."""


@dataclass(frozen=True)
class Delay:
    """Wait before answering rightly."""

    seconds: float


@dataclass(frozen=True)
class Redirect:
    """Send elsewhere: a URL, `{path}` in it stands for path and query."""

    location: str
    status: int = 307


@dataclass(frozen=True)
class Headers:
    """Answer rightly, with these headers changed; an empty value takes one away."""

    headers: Mapping[str, str]


Fault = Status | Cut | CutRequest | Corrupt | Longer | Drop | Delay | Redirect | Headers


@dataclass
class _Script:
    fault: Fault
    method: str
    path: re.Pattern[str]
    left: int


@dataclass(frozen=True)
class Recorded:
    """A request as it came. `sent` is what followed the body's headers, in bytes."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    sent: int

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}" + (f"?{self.query}" if self.query else "")


# -- authentication -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Basic:
    """Everything wants this user and password."""

    user: str = "user"
    password: str = "pass:word"


@dataclass(frozen=True)
class Bearer:
    """Tokens, of our own token server. Without `anonymous` it wants user and password, or the identity token."""

    user: str = "user"
    password: str = "pass:word"
    identity_token: str = ""
    anonymous_pull: bool = False
    expires_in: int | None = 300
    post_only: bool = False
    get_only: bool = False
    challenge_prefix: str = ""  # other challenges before ours


@dataclass
class Repo:
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


class RegistryServer:
    """The registry. Its fields may be changed while it runs; `repos` is what it holds."""

    def __init__(
        self,
        *,
        auth: Basic | Bearer | None = None,
        tls: ssl.SSLContext | None = None,
        referrers: bool = True,
        monolithic: bool = True,
        mounts: bool = True,
        relative_locations: bool = False,
        chunk_min: int = 0,
        page_size: int = 0,
        digest_header: bool = True,
        ranges: bool = True,
        upload_status: bool = True,
    ) -> None:
        self.auth, self.referrers, self.monolithic, self.mounts = auth, referrers, monolithic, mounts
        self.relative_locations, self.chunk_min, self.page_size = relative_locations, chunk_min, page_size
        self.digest_header, self.ranges, self.upload_status = digest_header, ranges, upload_status
        self.repos: dict[str, Repo] = {}
        self.uploads: dict[str, bytearray] = {}
        self.requests: list[Recorded] = []
        self.tokens: dict[str, tuple[frozenset[str], float]] = {}
        self.lock = threading.RLock()
        self.connections = 0
        self._scripts: list[_Script] = []
        self._tls = tls
        self._server: _Server | None = None
        self._port = 0
        self._serial = 0

    # -- life ---------------------------------------------------------------------------------------

    def __enter__(self) -> "RegistryServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; on the same port as before after a `stop`."""
        self._server = _Server(("127.0.0.1", self._port), self, self._tls)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}"

    # -- content ------------------------------------------------------------------------------------

    def repo(self, name: str) -> Repo:
        return self.repos.setdefault(name, Repo())

    def add_blob(self, name: str, data: bytes, algorithm: str = "sha256") -> str:
        digest = digest_of(data, algorithm)
        self.repo(name).blobs[digest] = data
        return digest

    def add_manifest(self, name: str, manifest: Any, media_type: str, tag: str = "") -> str:
        raw = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        digest = digest_of(raw)
        self.repo(name).manifests[digest] = (media_type, raw)
        if tag:
            self.repo(name).tags[tag] = digest
        return digest

    def next_id(self) -> int:
        with self.lock:
            self._serial += 1
            return self._serial

    # -- scripts and record ---------------------------------------------------------------------------

    def fault(self, fault: Fault, *, method: str = "", path: str = "", times: int = 1) -> None:
        """The next `times` requests of this method whose path and query contain the pattern get the fault."""
        with self.lock:
            self._scripts.append(_Script(fault, method, re.compile(path), times))

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for script in self._scripts:
                if script.left and script.method in ("", method) and script.path.search(path):
                    script.left -= 1
                    return script.fault
        return None

    @property
    def lines(self) -> list[str]:
        """The requests so far, one line each."""
        with self.lock:
            return [item.line for item in self.requests]

    def count(self, pattern: str) -> int:
        """How many request lines contain the pattern."""
        return sum(1 for line in self.lines if re.search(pattern, line))

    # -- tokens -----------------------------------------------------------------------------------

    def revoke_tokens(self) -> None:
        self.tokens.clear()

    def grant(self, scopes: list[str], *, full: bool) -> dict[str, Any]:
        granted = set()
        for text in " ".join(scopes).split():
            kind, _, rest = text.partition(":")
            name, _, actions = rest.rpartition(":")
            granted |= {f"{kind}:{name}:{action}" for action in actions.split(",") if full or action == "pull"}
        token = f"token-{self.next_id()}"
        assert isinstance(self.auth, Bearer)
        self.tokens[token] = (frozenset(granted), time.monotonic() + (self.auth.expires_in or 60))
        answer: dict[str, Any] = {"token": token}
        if self.auth.expires_in is not None:
            answer["expires_in"] = self.auth.expires_in
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], registry: RegistryServer, tls: ssl.SSLContext | None) -> None:
        self.registry, self.tls = registry, tls
        self.open_sockets: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[Any, Any]:
        sock, address = super().get_request()
        self.registry.connections += 1
        self.open_sockets.add(sock)
        return sock, address

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            if self.tls:
                request.settimeout(10)
                request = self.tls.wrap_socket(request, server_side=True)
                self.open_sockets.add(request)
        except OSError:
            self.shutdown_request(request)
            return
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients under test hang up as they like

    def shutdown_request(self, request: Any) -> None:
        self.open_sockets.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for sock in list(self.open_sockets):  # a stopped registry also ends kept-alive connections
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()


class _Gone(Exception):
    """The connection is to be dropped."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.registry = self.server.registry

    def handle(self) -> None:
        try:
            super().handle()
        except (_Gone, OSError, ValueError):
            self.close_connection = True

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.fault = self.registry.take_fault(self.command, self.path)
        self.body_left = int(self.headers.get("Content-Length") or 0)
        record = Recorded(self.command, parts.path, parts.query, dict(self.headers.items()), self.body_left)
        with self.registry.lock:
            self.registry.requests.append(record)
        self.query = {key: values for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        match self.fault:
            case Delay(seconds):
                time.sleep(seconds)
            case Drop():
                raise _Gone
            case Status(status, body, headers):
                self.read_body()
                return self.answer(status, body, headers)
            case Redirect(location, status):
                self.read_body()
                return self.answer(status, b"", {"Location": location.format(path=self.path)})
        self.route(parts.path)
        self.read_body()  # what a handler did not want

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def read_body(self) -> bytes:
        if isinstance(self.fault, CutRequest):
            data = self.rfile.read(min(self.fault.after, self.body_left))
            self.partial(data)
            raise _Gone
        data = self.rfile.read(self.body_left)
        self.body_left = 0
        return data

    def partial(self, data: bytes) -> None:
        match = re.search(r"/blobs/uploads/(\w+)", self.path)
        if match and match[1] in self.registry.uploads:
            self.registry.uploads[match[1]] += data

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, length: int = -1) -> None:
        fields = {"Content-Length": str(len(body) if length < 0 else length), **(headers or {})}
        match self.fault:
            case Headers(changed):
                fields = {key: value for key, value in {**fields, **changed}.items() if value}
            case Corrupt() if body:
                body = bytes([body[0] ^ 1]) + body[1:]
            case Longer(by):
                body += b"x" * by
                fields["Content-Length"] = str(len(body))
        self.send_response(status)
        for key, value in fields.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD" or status in (204, 304):
            return
        if isinstance(self.fault, Cut):
            self.wfile.write(body[: self.fault.after])
            self.wfile.flush()
            if self.fault.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise _Gone
        self.wfile.write(body)

    def error(self, status: int, code: str, message: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.read_body()
        body = json.dumps({"errors": [{"code": code, "message": message or code.lower().replace("_", " ")}]}).encode()
        self.answer(status, body, {"Content-Type": "application/json", **(headers or {})})

    # -- routes ---------------------------------------------------------------------------------------

    def route(self, path: str) -> None:
        if path == "/token":
            return self.token()
        if path == "/v2/":
            return self.answer(200, b"{}") if self.allowed("", "") else None
        for pattern, handler in _ROUTES:
            match = pattern.fullmatch(path)
            if match:
                action = "pull" if self.command in ("GET", "HEAD") else "push"
                if self.allowed(match["name"], action):
                    handler(self, **match.groupdict())
                return None
        return self.error(404, "NOT_FOUND")

    def allowed(self, name: str, action: str) -> bool:
        auth, sent = self.registry.auth, self.headers.get("Authorization", "")
        match auth:
            case None:
                return True
            case Basic(user, password):
                if sent == "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode():
                    return True
                self.error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": 'Basic realm="fake"'})
                return False
        scopes, ends = self.registry.tokens.get(sent.removeprefix("Bearer "), (frozenset(), 0.0))
        wanted = f"repository:{name}:{action}" if name else ""
        known = sent.startswith("Bearer ") and time.monotonic() < ends
        if known and (not wanted or wanted in scopes):
            return True
        header = f'{auth.challenge_prefix}Bearer realm="{self.registry.url}/token",service="fake"'
        if wanted:
            actions = "pull" if action == "pull" else "pull,push"
            header += f',scope="repository:{name}:{actions}"'
        if known:
            header += ',error="insufficient_scope"'
        self.error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": header})
        return False

    def token(self) -> None:
        auth = self.registry.auth
        assert isinstance(auth, Bearer)
        good = "Basic " + base64.b64encode(f"{auth.user}:{auth.password}".encode()).decode()
        if self.command == "POST":
            form = {key: values[0] for key, values in parse_qs(self.read_body().decode()).items()}
            if auth.get_only:
                return self.error(405, "UNSUPPORTED")
            refresh = form.get("grant_type") == "refresh_token" and form.get("refresh_token") == auth.identity_token != ""
            password = (form.get("username"), form.get("password")) == (auth.user, auth.password)
            if not (refresh or password):
                return self.error(401, "UNAUTHORIZED", "bad credentials")
            answer = self.registry.grant([form.get("scope", "")], full=True)
            return self.answer(200, json.dumps({"access_token": answer.pop("token"), **answer}).encode())
        if auth.post_only:
            return self.error(405, "UNSUPPORTED")
        sent = self.headers.get("Authorization", "")
        identity = "Basic " + base64.b64encode(f"<token>:{auth.identity_token}".encode()).decode()
        if sent == good or (auth.identity_token and sent == identity) or (not sent and auth.anonymous_pull):
            return self.answer(200, json.dumps(self.registry.grant(self.query.get("scope", []), full=bool(sent))).encode())
        return self.error(401, "UNAUTHORIZED", "bad credentials")

    def blob(self, name: str, digest: str) -> None:
        data = self.registry.repo(name).blobs.get(digest) if name in self.registry.repos else None
        if data is None:
            return self.error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        headers = {"Docker-Content-Digest": digest, "Content-Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if self.command == "HEAD":
            return self.answer(200, b"", headers, len(data))
        if wanted and self.registry.ranges:
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self.answer(206, data[start:], headers)
        return self.answer(200, data, headers)

    def manifest(self, name: str, what: str) -> None:
        if self.command == "PUT":
            return self.put_manifest(name, what)
        repo = self.registry.repos.get(name)
        if repo is None:
            return self.error(404, "NAME_UNKNOWN", "repository name not known to registry")
        digest = repo.tags.get(what, what)
        if digest not in repo.manifests:
            return self.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, raw = repo.manifests[digest]
        headers = {"Content-Type": media_type}
        if self.registry.digest_header:
            headers["Docker-Content-Digest"] = digest
        return self.answer(200, b"" if self.command == "HEAD" else raw, headers, len(raw))

    def put_manifest(self, name: str, what: str) -> None:
        raw = self.read_body()
        digest = digest_of(raw)
        data = json.loads(raw)
        if ":" in what and what != digest:
            return self.error(400, "DIGEST_INVALID")
        repo = self.registry.repo(name)
        for item in [data.get("config"), *data.get("layers", [])]:
            if item and item["digest"] not in repo.blobs:
                return self.error(400, "MANIFEST_BLOB_UNKNOWN", f"blob {item['digest']} unknown")
        self.registry.add_manifest(name, raw, self.headers["Content-Type"], "" if ":" in what else what)
        headers = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        if self.registry.referrers and data.get("subject"):
            headers["OCI-Subject"] = data["subject"]["digest"]
        return self.answer(201, b"", headers)

    def begin_upload(self, name: str) -> None:
        self.read_body()
        source, digest = self.query.get("from", [""])[0], self.query.get("mount", [""])[0]
        if source and self.registry.mounts and source in self.registry.repos:
            data = self.registry.repos[source].blobs.get(digest)
            if data is not None:
                self.registry.repo(name).blobs[digest] = data
                return self.answer(201, b"", {"Location": f"/v2/{name}/blobs/{digest}"})
        ident = f"u{self.registry.next_id()}"
        self.registry.uploads[ident] = bytearray()
        headers = {"Location": self.location(name, ident), "Range": "0-0"}
        if self.registry.chunk_min:
            headers["OCI-Chunk-Min-Length"] = str(self.registry.chunk_min)
        return self.answer(202, b"", headers)

    def location(self, name: str, ident: str) -> str:
        base = "" if self.registry.relative_locations else self.registry.url
        return f"{base}/v2/{name}/blobs/uploads/{ident}?_state=secret{len(self.registry.uploads[ident])}"

    def upload(self, name: str, ident: str) -> None:
        data = self.registry.uploads.get(ident)
        if data is None:
            return self.error(404, "BLOB_UPLOAD_UNKNOWN")
        headers = {"Location": self.location(name, ident), "Range": f"0-{max(0, len(data) - 1)}"}
        if self.command == "GET":
            if not self.registry.upload_status:
                return self.error(404, "BLOB_UPLOAD_UNKNOWN")
            return self.answer(204, b"", headers)
        if self.command == "DELETE":
            del self.registry.uploads[ident]
            return self.answer(204)
        if self.query.get("_state") != [f"secret{len(data)}"]:
            return self.error(400, "BLOB_UPLOAD_INVALID", "stale location")
        if self.command == "PATCH":
            span = re.fullmatch(r"(\d+)-(\d+)", self.headers.get("Content-Range", ""))
            if span and int(span[1]) != len(data):
                return self.error(416, "RANGE_INVALID", "", headers)
            data += self.read_body()
            end = {"Location": self.location(name, ident), "Range": f"0-{max(0, len(data) - 1)}"}
            return self.answer(202, b"", end)
        if self.body_left and not self.registry.monolithic:
            return self.error(413, "SIZE_INVALID", "request entity too large")
        data += self.read_body()
        digest = self.query.get("digest", [""])[0]
        if digest_of(bytes(data), digest.partition(":")[0]) != digest:
            return self.error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        del self.registry.uploads[ident]
        self.registry.repo(name).blobs[digest] = bytes(data)
        return self.answer(201, b"", {"Docker-Content-Digest": digest})

    def tag_list(self, name: str) -> None:
        if name not in self.registry.repos:
            return self.error(404, "NAME_UNKNOWN", "repository name not known to registry")
        self.paged(sorted(self.registry.repos[name].tags), lambda page: {"name": name, "tags": page}, "application/json")

    def referrer_list(self, name: str, digest: str) -> None:
        if not self.registry.referrers:
            return self.error(404, "NOT_FOUND", "page not found")
        found = []
        for own, (media_type, raw) in self.registry.repo(name).manifests.items():
            data = json.loads(raw)
            if (data.get("subject") or {}).get("digest") == digest:
                kind = data.get("artifactType") or (data.get("config") or {}).get("mediaType", "")
                found.append(
                    {"mediaType": media_type, "digest": own, "size": len(raw), "artifactType": kind,
                     "annotations": data.get("annotations") or {}}
                )  # fmt: skip
        self.paged(found, lambda page: {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page}, OCI_INDEX)

    def paged(self, items: list[Any], wrap: Callable[[list[Any]], Any], media_type: str) -> None:
        start = int(self.query.get("start", ["0"])[0])
        size = self.registry.page_size or len(items) or 1
        headers = {"Content-Type": media_type}
        if start + size < len(items):
            headers["Link"] = f'<{urlsplit(self.path).path}?start={start + size}>; rel="next"'
        self.answer(200, json.dumps(wrap(items[start : start + size])).encode(), headers)


_NAME = r"/v2/(?P<name>.+)"
_ROUTES: list[tuple[re.Pattern[str], Callable[..., None]]] = [
    (re.compile(_NAME + r"/blobs/uploads/"), _Handler.begin_upload),
    (re.compile(_NAME + r"/blobs/uploads/(?P<ident>\w+)"), _Handler.upload),
    (re.compile(_NAME + r"/blobs/(?P<digest>[^/]+)"), _Handler.blob),
    (re.compile(_NAME + r"/manifests/(?P<what>[^/]+)"), _Handler.manifest),
    (re.compile(_NAME + r"/tags/list"), _Handler.tag_list),
    (re.compile(_NAME + r"/referrers/(?P<digest>[^/]+)"), _Handler.referrer_list),
]


@contextmanager
def closed_port() -> Iterator[int]:
    """A port of loopback that refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound, but not listening: nobody else gets it
        yield sock.getsockname()[1]
