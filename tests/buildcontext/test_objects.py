"""s3://, gs://, azblob:// as contexts (1.10): where they are, and a server in this process that checks what it is sent."""

import hashlib
import hmac
import http.server
import io
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import pytest

from kpy.buildcontext.objects import is_object, locate, with_sas
from kpy.cli import build
from kpy.cli.terminal import Terminal
from kpy.errors import ContextError, KpyError, UsageError

KEY, SECRET, TOKEN = "AKIATESTTESTTESTTEST", "sEcReT/sEcReT+sEcReT", "sesSion//token=="
SAS = "sv=2022-11-02&sp=r&sig=s3cRet%2Fsas%3D"
BEARER = "ya29.s3cRet-bearer"
AWS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "eu-north-1"}


# --- where


@pytest.mark.parametrize(
    ("name", "variables", "url"),
    [
        ("s3://b/k.tar.gz", {}, "https://b.s3.us-east-1.amazonaws.com/k.tar.gz"),
        ("s3://b/d/k", {"AWS_REGION": "eu-west-1"}, "https://b.s3.eu-west-1.amazonaws.com/d/k"),
        ("s3://b/k", {"AWS_DEFAULT_REGION": "cn-north-1"}, "https://b.s3.cn-north-1.amazonaws.com.cn/k"),
        ("s3://b.with.dots/k", {}, "https://s3.us-east-1.amazonaws.com/b.with.dots/k"),
        ("s3://b/a b+c&d#é?x", {}, "https://b.s3.us-east-1.amazonaws.com/a%20b%2Bc%26d%23%C3%A9%3Fx"),
        ("s3://b/k", {"AWS_ENDPOINT_URL": "http://minio:9000/"}, "http://minio:9000/b/k"),
        ("s3://b/k", {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "https://c/base"}, "https://c/base/b/k"),
        ("gs://b/d/k", {}, "https://storage.googleapis.com/b/d/k"),
        ("gs://b/k", {"STORAGE_EMULATOR_HOST": "localhost:9023"}, "http://localhost:9023/b/k"),
        ("azblob://c/k", {"AZURE_STORAGE_ACCOUNT": "acc"}, "https://acc.blob.core.windows.net/c/k"),
        ("azblob://c/k", {"AZURE_STORAGE_SERVICE_ENDPOINT": "http://h:1/acc"}, "http://h:1/acc/c/k"),
    ],
)
def test_where(name: str, variables: dict[str, str], url: str) -> None:
    assert is_object(name)
    assert locate(name, variables).url == url


@pytest.mark.parametrize(
    ("name", "variables", "words"),
    [
        ("s3://b", {}, "invalid object"),
        ("s3:///k", {}, "invalid object"),
        ("s3://b/", {}, "invalid object"),
        ("s3://user:pw@b/k", {}, "invalid object"),
        ("s3://b/../k", {}, "cannot be asked for"),
        ("s3://b/a//k", {}, "cannot be asked for"),
        ("s3://b/k\nx", {}, "invalid object"),
        ("s3://b/k", {"AWS_REGION": "evil.example/"}, "is no region"),
        ("s3://b/k", {"AWS_ENDPOINT_URL": "minio:9000"}, "AWS_ENDPOINT_URL is no"),
        ("s3://b/k", {"AWS_ENDPOINT_URL": "http://u:p@minio"}, "AWS_ENDPOINT_URL is no"),
        ("s3://b/k", {"AWS_ACCESS_KEY_ID": KEY}, "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"),
        ("s3://b/k", {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": "a\nb"}, "characters that no key has"),
        ("gs://b/k", {"GS_SECRET_ACCESS_KEY": SECRET}, "GS_SECRET_ACCESS_KEY is set and GS_ACCESS_KEY_ID is not"),
        ("gs://b/k", {"GOOGLE_OAUTH_ACCESS_TOKEN": "a\r\nHost: x"}, "characters that no token has"),
        ("azblob://c/k", {}, "of which storage account"),
        ("azblob://c/k", {"AZURE_STORAGE_ACCOUNT": "evil.example/x"}, "names no storage account"),
        ("azblob://c/k", {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_SAS_TOKEN": "a\r\nb"}, "characters that no token has"),
    ],
)  # fmt: skip
def test_what_cannot_be(name: str, variables: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        locate(name, variables)
    assert SECRET not in str(caught.value) + caught.value.hint


def test_the_token_of_azure_is_for_its_account_only() -> None:
    variables = {"AZURE_STORAGE_ACCOUNT": "acc", "AZURE_STORAGE_SAS_TOKEN": f"?{SAS}"}
    url = "https://acc.blob.core.windows.net/c/k"
    found = with_sas(url, variables)
    assert found is not None
    assert (found.url, found.wire(found.url).url) == (url, f"{url}?{SAS}")
    for other in (
        "https://other.blob.core.windows.net/c/k", "http://acc.blob.core.windows.net/c/k", url + "?own=1",
        "https://acc.blob.core.windows.net.evil.example/c", "https://u@acc.blob.core.windows.net/c",
    ):  # fmt: skip
        assert with_sas(other, variables) is None
    assert with_sas(url, {"AZURE_STORAGE_SAS_TOKEN": SAS}) is None


def test_nothing_secret_is_shown() -> None:
    for name, variables in [
        ("s3://b/k", {**AWS, "AWS_SESSION_TOKEN": TOKEN}),
        ("gs://b/k", {"GOOGLE_OAUTH_ACCESS_TOKEN": BEARER}),
        ("azblob://c/k", {"AZURE_STORAGE_ACCOUNT": "acc", "AZURE_STORAGE_SAS_TOKEN": SAS}),
    ]:
        found = locate(name, variables)
        shown = repr(found) + repr(found.wire(found.url)) + found.hint(403) + found.hint(404)
        assert not [secret for secret in (SECRET, TOKEN, BEARER, "s3cRet") if secret in shown]


# --- a server that checks


def expected_signature(handler: http.server.BaseHTTPRequestHandler, secret: str, token: str) -> str:
    """What the Authorization header must be, from the request as it arrived: the specification once more, by hand."""
    given = handler.headers["Authorization"]
    match = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([A-Z0-9]+)/(\d{8})/([a-z0-9-]+)/s3/aws4_request,SignedHeaders=([a-z0-9;-]+),Signature=[0-9a-f]{64}",
        given,
    )
    assert match, given
    ident, day, region, names = match.groups()
    assert {"host", "x-amz-content-sha256", "x-amz-date"} <= set(names.split(";"))
    assert (handler.headers.get("X-Amz-Security-Token") or "") == token
    assert not token or "x-amz-security-token" in names.split(";")
    path, _, query = handler.path.partition("?")
    lines = [handler.command, path, query]
    for name in names.split(";"):
        lines.append(name + ":" + handler.headers[name].strip())
    lines += ["", names, handler.headers["x-amz-content-sha256"]]
    assert handler.headers["x-amz-content-sha256"] == hashlib.sha256().hexdigest()
    digest = hashlib.sha256("\n".join(lines).encode("latin-1")).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{handler.headers['x-amz-date']}\n{day}/{region}/s3/aws4_request\n{digest}"
    key = hmac.digest(b"AWS4" + secret.encode(), day.encode(), "sha256")
    for part in (region.encode(), b"s3", b"aws4_request"):
        key = hmac.digest(key, part, "sha256")
    value = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return f"AWS4-HMAC-SHA256 Credential={ident}/{day}/{region}/s3/aws4_request,SignedHeaders={names},Signature={value}"


class ObjectServer(http.server.ThreadingHTTPServer):
    """Serves `objects` by decoded path to whom `allowed` lets in; keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.allowed: Callable[[http.server.BaseHTTPRequestHandler], bool] = lambda _: True
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.redirect: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: ObjectServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        path = self.path.partition("?")[0]
        if path in self.server.redirect:
            self.send_response(307)
            self.send_header("Location", self.server.redirect[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = self.server.objects.get(unquote(path))
        etag = f'"{hashlib.md5(data or b"").hexdigest()}"'
        status = 404 if data is None else 200
        if not self.server.allowed(self):
            status, data = 403, None
        elif data is not None and self.headers.get("If-None-Match") == etag:
            status, data = 304, None
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with ObjectServer() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in (("Dockerfile", b"FROM scratch\nCOPY file /\n"), ("file", b"content")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def signed_with(secret: str, token: str = "") -> Callable[[http.server.BaseHTTPRequestHandler], bool]:
    def check(handler: http.server.BaseHTTPRequestHandler) -> bool:
        when = datetime.strptime(handler.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        fresh = abs(datetime.now(UTC) - when) < timedelta(minutes=15)
        return fresh and handler.headers["Authorization"] == expected_signature(handler, secret, token)

    return check


Look = Callable[..., str]


@pytest.fixture
def look(tmp_path: Path, make_terminal: Callable[..., Terminal]) -> Look:
    """What is in the context, and all that was said."""

    def run(context: str, **variables: str) -> str:
        terminal = make_terminal(variables={"KPY_HOME": str(tmp_path / "home"), **variables})
        try:
            assert build.run(["--call=context", "--progress=rawjson", context], terminal) == 0
        except KpyError as error:
            error.args = (*error.args, terminal.stderr.getvalue().decode())  # type: ignore[attr-defined]
            raise
        return (terminal.stdout.getvalue() + terminal.stderr.getvalue()).decode()  # type: ignore[attr-defined]

    return run


@pytest.fixture
def make_terminal(tmp_path: Path) -> Callable[..., Terminal]:
    def make(variables: dict[str, str]) -> Terminal:
        return Terminal(io.BytesIO(), io.BytesIO(), io.BytesIO(), variables, str(tmp_path))

    return make


def test_s3(server: ObjectServer, look: Look) -> None:
    """Signed as the server computes it itself, and never downloaded twice."""
    server.objects["/bucket/dir/my context+1.tar.gz"] = archive()
    server.allowed = signed_with(SECRET, TOKEN)
    variables = {**AWS, "AWS_SESSION_TOKEN": TOKEN, "AWS_ENDPOINT_URL": server.url}
    for _ in range(2):
        shown = look("s3://bucket/dir/my context+1.tar.gz", **variables)
        assert "context s3://bucket/dir/my context+1.tar.gz: 2 files, 32B" in shown
        assert SECRET not in shown
        assert TOKEN not in shown
    assert [path for path, _ in server.asked] == ["/bucket/dir/my%20context%2B1.tar.gz"] * 2
    assert "If-None-Match" in server.asked[1][1]
    assert "/eu-north-1/s3/aws4_request" in server.asked[0][1]["Authorization"]


def test_s3_without_credentials_is_anonymous(server: ObjectServer, look: Look) -> None:
    server.objects["/bucket/k"] = archive()
    assert ": 2 files" in look("s3://bucket/k", AWS_ENDPOINT_URL=server.url)
    assert "Authorization" not in server.asked[0][1]


@pytest.mark.parametrize(
    ("key", "variables", "status", "hint"),
    [
        ("k", {**AWS, "AWS_SECRET_ACCESS_KEY": "wrong"}, 403, "AKIATESTTESTTESTTEST may not read it, or the clock"),
        ("k", {}, 403, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("none", AWS, 404, "no such bucket or key"),
    ],
)
def test_s3_refuses(server: ObjectServer, look: Look, key: str, variables: dict[str, str], status: int, hint: str) -> None:
    server.objects["/bucket/k"] = archive()
    server.allowed = lambda handler: "Authorization" in handler.headers and signed_with(SECRET)(handler)
    with pytest.raises(ContextError, match=f"status {status}") as caught:
        look(f"s3://bucket/{key}", AWS_ENDPOINT_URL=server.url, **variables)
    assert hint in caught.value.hint
    assert SECRET not in repr(caught.value.args)


def test_a_redirect_is_signed_anew_and_only_for_the_same_server(server: ObjectServer, look: Look) -> None:
    with ObjectServer() as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        other.objects["/elsewhere"] = archive()
        server.redirect = {"/bucket/k": "/bucket/l", "/bucket/l": f"{other.url}/elsewhere"}
        server.allowed = signed_with(SECRET)
        assert ": 2 files" in look("s3://bucket/k", AWS_ENDPOINT_URL=server.url, **AWS)
        other.shutdown()
        thread.join()
    assert len({headers["Authorization"] for _, headers in server.asked}) == 2
    assert not [name for _, headers in other.asked for name in headers if name.lower().startswith(("auth", "x-amz"))]


def test_google_with_a_token(server: ObjectServer, look: Look) -> None:
    server.objects["/bucket/k"] = archive()
    server.allowed = lambda handler: handler.headers.get("Authorization") == f"Bearer {BEARER}"
    host = server.url.removeprefix("http://")
    shown = look("gs://bucket/k", STORAGE_EMULATOR_HOST=host, GOOGLE_OAUTH_ACCESS_TOKEN=BEARER)
    assert ": 2 files" in shown
    assert BEARER not in shown
    with pytest.raises(ContextError) as caught:
        look("gs://bucket/k", STORAGE_EMULATOR_HOST=host)
    assert "set GOOGLE_OAUTH_ACCESS_TOKEN, or GS_ACCESS_KEY_ID" in caught.value.hint


def test_google_with_an_hmac_key(server: ObjectServer, look: Look) -> None:
    server.objects["/bucket/k"] = archive()
    server.allowed = signed_with(SECRET)
    variables = {"GS_ACCESS_KEY_ID": "GOOG1EXAMPLE", "GS_SECRET_ACCESS_KEY": SECRET, "STORAGE_EMULATOR_HOST": server.url}
    assert ": 2 files" in look("gs://bucket/k", **variables)
    assert "Credential=GOOG1EXAMPLE/" in server.asked[0][1]["Authorization"]
    assert "/auto/s3/aws4_request" in server.asked[0][1]["Authorization"]


def test_azure(server: ObjectServer, look: Look) -> None:
    """The token is in the query, of which nothing is shown or kept."""
    server.objects["/acc/container/k"] = archive()
    server.allowed = lambda handler: handler.path.partition("?")[2] == SAS
    endpoint = {"AZURE_STORAGE_SERVICE_ENDPOINT": f"{server.url}/acc"}
    shown = look("azblob://container/k", AZURE_STORAGE_SAS_TOKEN=SAS, **endpoint)
    assert ": 2 files" in shown
    assert "s3cRet" not in shown
    with pytest.raises(ContextError, match="status 403") as caught:
        look("azblob://container/k", AZURE_STORAGE_SAS_TOKEN=SAS.replace("s3cRet", "s3cRet2"), **endpoint)
    assert "has expired" in caught.value.hint
    assert "s3cRet" not in repr(caught.value.args) + caught.value.message


def test_a_sas_in_the_url_is_not_shown(server: ObjectServer, look: Look) -> None:
    """As `az storage blob generate-sas --full-uri` prints it: a plain URL."""
    server.objects["/container/k"] = archive()
    server.allowed = lambda handler: handler.path.partition("?")[2] == SAS
    shown = look(f"{server.url}/container/k?{SAS}")
    assert ": 2 files" in shown
    assert "s3cRet" not in shown


def test_nothing_secret_is_kept(server: ObjectServer, look: Look, tmp_path: Path) -> None:
    server.objects["/acc/container/k"] = archive()
    server.objects["/bucket/k"] = archive()
    look("azblob://container/k", AZURE_STORAGE_SAS_TOKEN=SAS, AZURE_STORAGE_SERVICE_ENDPOINT=f"{server.url}/acc")
    look("s3://bucket/k", **AWS, AWS_SESSION_TOKEN=TOKEN, AWS_ENDPOINT_URL=server.url)
    for path in (tmp_path / "home").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [secret for secret in (SECRET, TOKEN, "s3cRet") if secret.encode() in data], path
