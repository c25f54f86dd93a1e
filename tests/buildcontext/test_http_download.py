"""Files from URLs: validators, credentials, redirects, names (C24, C25)."""

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from kpy.buildcontext import http as downloads
from kpy.buildcontext.http import Download, HttpSettings, download
from kpy.errors import ContextError, DigestMismatchError, InterruptedBuildError
from kpy.store.blobs import BlobDirectory

MODIFIED = "Mon, 02 Jan 2006 15:04:05 GMT"
WHEN = 1136214245


@dataclass
class Page:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, Page] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        page = self.server.pages.get(self.path, Page(status=404))
        etag = page.headers.get("ETag")
        same = etag and self.headers.get("If-None-Match") == etag
        same = same or (self.headers.get("If-Modified-Since") == page.headers.get("Last-Modified", "-"))
        self.send_response(304 if same else page.status)
        for name, value in page.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in page.headers:
            self.send_header("Content-Length", "0" if same else str(len(page.body)))
        self.end_headers()
        if not same:
            self.wfile.write(page.body)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path) -> HttpSettings:
    return HttpSettings(BlobDirectory(tmp_path / "blobs"), tmp_path / "records")


@pytest.fixture
def get(server: Server, settings: HttpSettings) -> Callable[..., Download]:
    def run(path: str, checksum: str = "", name: str = "", **changes: object) -> Download:
        return download(server.url + path, checksum, name, replace(settings, **changes), lambda _done, _total: None)

    return run


def content(found: Download) -> bytes:
    with found.open_content() as stream:
        return stream.read()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_c24_mode_time_and_name(server, get) -> None:
    server.pages["/a/b.txt"] = Page(b"hello", headers={"Last-Modified": MODIFIED})
    found = get("/a/b.txt", name="b.txt")
    entry = found.lookup("b.txt")
    assert (entry.mode, entry.mtime, entry.size, entry.uid) == (0o600, WHEN * 10**9, 5, 0)
    assert entry.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert found.children("") == ("b.txt",)
    with found.reading([entry]) as opener, opener(entry) as stream:
        assert stream.read() == b"hello"
    server.pages["/bare"] = Page(b"x")
    assert get("/bare", name="bare").lookup("bare").mtime == 0


@pytest.mark.parametrize(
    ("header", "path", "name"),
    [
        ("", "/x/y.tar?z=1", "y.tar"),
        ("", "/", "__unnamed__"),
        ('attachment; filename="a.bin"', "/x", "a.bin"),
        ('attachment; filename="../../etc/passwd"', "/x", "passwd"),
        ('attachment; filename=".."', "/x", "x"),
        ("attachment; filename*=UTF-8''%2e%2e%2fb", "/x", "b"),
        ("nonsense", "/x", "x"),
    ],
)
def test_a_named_context_takes_the_name_that_the_server_gives(server, get, header, path, name) -> None:
    server.pages[path] = Page(b"x", headers={"Content-Disposition": header} if header else {})
    assert get(path).name == name


@pytest.mark.parametrize("validator", [{"ETag": '"one"'}, {"ETag": 'W/"one"'}, {"Last-Modified": MODIFIED}])
def test_c24_what_has_not_changed_is_not_downloaded_again(server, get, validator) -> None:
    server.pages["/a"] = Page(b"hello", headers=validator)
    first = get("/a", name="a")
    again = get("/a", name="a")
    assert content(again) == b"hello"
    assert again.lookup("a") == first.lookup("a")
    assert len([1 for _, headers in server.seen if headers.keys() & {"If-None-Match", "If-Modified-Since"}]) == 1
    server.pages["/a"] = Page(b"changed", headers={"ETag": '"two"'})
    assert content(get("/a", name="a")) == b"changed"


def test_a_cleaned_up_store_downloads_again(server, get, settings) -> None:
    server.pages["/a"] = Page(b"hello", headers={"ETag": '"one"'})
    get("/a", name="a")
    for digest, _ in list(settings.blobs.digests()):
        settings.blobs.delete(digest)
    assert content(get("/a", name="a")) == b"hello"
    (record,) = settings.records.iterdir()
    for broken in (b"{", b"[]", b'{"digest": "x", "size": 1}', b"\xff"):
        record.write_bytes(broken)
        assert content(get("/a", name="a")) == b"hello"


def test_c25_checksums(server, get) -> None:
    server.pages["/a"] = Page(b"hello")
    with pytest.raises(DigestMismatchError, match="digest mismatch for http.*/a: it has sha256:2cf2"):
        get("/a", sha256(b"other"))
    assert content(get("/a", sha256(b"hello"))) == b"hello"
    asked = len(server.seen)
    assert content(get("/a", sha256(b"hello"))) == b"hello"
    assert len(server.seen) == asked  # the checksum says it all


def test_c24_credentials_do_not_follow_to_another_host(server, get) -> None:
    with Server() as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.pages["/a"] = Page(status=302, headers={"Location": "/b"})
        server.pages["/b"] = Page(status=307, headers={"Location": other.url + "/c"})
        other.pages["/c"] = Page(b"hello")
        assert content(get("/a", authorization=lambda _: "Bearer t")) == b"hello"
        other.shutdown()
        thread.join()
    assert [headers.get("Authorization") for _, headers in server.seen] == ["Bearer t", "Bearer t"]
    assert [headers.get("Authorization") for _, headers in other.seen] == [None]


def test_credentials_of_the_url_are_sent_and_not_shown(server, get, settings) -> None:
    server.pages["/a"] = Page(status=403)
    url = server.url.replace("//", "//user:s3cret@") + "/a?sig=s3cret"
    with pytest.raises(ContextError) as caught:
        download(url, "", "a", settings, lambda _done, _total: None)
    assert "s3cret" not in caught.value.message + caught.value.hint
    server.pages["/a?sig=s3cret"] = Page(b"x")
    download(url, "", "a", settings, lambda _done, _total: None)
    assert server.seen[-1][1]["Authorization"] == "Basic dXNlcjpzM2NyZXQ="
    assert not [path for path in settings.records.iterdir() if b"s3cret" in path.read_bytes()]


def test_failures_say_what_happened(server, get, settings, monkeypatch) -> None:
    server.pages["/401"] = Page(status=401)
    server.pages["/loop"] = Page(status=302, headers={"Location": "/loop"})
    server.pages["/file"] = Page(status=302, headers={"Location": "file:///etc/passwd"})
    server.pages["/short"] = Page(b"abc", headers={"Content-Length": "10"})
    server.pages["/big"] = Page(b"x" * 100)
    for path, message in [
        ("/none", "status 404"), ("/401", "status 401"), ("/loop", "more than 10 redirects"), ("/file", "redirects to file:"),
        ("/short", "ended after 3 of 10 bytes|connection was lost"),
    ]:  # fmt: skip
        with pytest.raises(ContextError, match=message):
            get(path)
    with pytest.raises(ContextError) as caught:
        get("/401")
    assert "HTTP_AUTH_TOKEN_127.0.0.1" in caught.value.hint
    monkeypatch.setattr(downloads, "MAX_DOWNLOAD", 10)
    with pytest.raises(ContextError, match="it is larger than"):
        get("/big")
    with pytest.raises(ContextError, match="connection refused"):
        download("http://127.0.0.1:1/", "", "", settings, lambda _done, _total: None)
    with pytest.raises(ContextError, match="line break"):
        get("/big", authorization=lambda _: "a\nb: c")
    for url in ("http://[", "http:///x", "http://h:x/"):
        with pytest.raises(ContextError, match="invalid URL"):
            download(url, "", "", settings, lambda _done, _total: None)
    assert not list(settings.blobs.digests())


def test_progress_can_end_it(server, settings) -> None:
    server.pages["/a"] = Page(b"x" * 100)

    def stop(done: int, total: int) -> None:
        assert total == 100
        raise InterruptedBuildError("interrupted")

    with pytest.raises(InterruptedBuildError):
        download(server.url + "/a", "", "", settings, stop)
