"""RemoteRepository against the fake registry: reading, with everything that breaks on the way."""

import contextlib
import json
import socket
import threading

import pytest

from kpy.errors import ContentError, DigestMismatchError, ImageNotFoundError, RegistryError
from kpy.oci import mediatype
from kpy.oci.content import Repository
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.reference import Reference
from kpy.registry.body import stated_size
from kpy.registry.hosts import Hosts
from kpy.registry.repository import RemoteRepository
from kpy.util.http import Timeouts
from kpy.util.pace import Pace
from kpy.util.retry import Retry
from tests.registry.served import add_image
from tests.registry_server import (
    Corrupt,
    Cut,
    Drop,
    Headers,
    Longer,
    Redirect,
    RegistryServer,
    Status,
    closed_port,
    digest_of,
)

_: type[Repository] = RemoteRepository
BLOB = bytes(range(256)) * 4096  # 1 MiB


def blob(server, data=BLOB, algorithm="sha256"):
    digest = server.add_blob("app", data, algorithm)
    return Descriptor(mediatype.OCI_LAYER_GZIP, Digest.parse(digest), len(data))


def read(repo, descriptor):
    with repo.open(descriptor) as stream:
        return stream.read()


def test_a_tag_is_resolved_by_one_head(server, repo):
    entry = add_image(server, "app", "1")
    found = repo.resolve("1")
    assert (str(found.digest), found.size, found.media_type) == (entry["digest"], entry["size"], entry["mediaType"])
    assert server.lines == ["GET /v2/", "HEAD /v2/app/manifests/1"]
    accept = server.requests[-1].headers["Accept"]
    assert all(kind in accept for kind in mediatype.ACCEPT)  # N22
    assert server.requests[-1].headers["User-Agent"].startswith("kpy/")


def test_without_a_digest_header_the_manifest_is_fetched_and_hashed(server, repo):
    server.digest_header = False
    entry = add_image(server, "app", "1")
    assert str(repo.resolve("1").digest) == entry["digest"]
    assert str(repo.resolve(entry["digest"]).digest) == entry["digest"]


@pytest.mark.parametrize("status", [400, 405, 501])
def test_a_registry_that_dislikes_head_is_asked_by_get(server, repo, status):
    entry = add_image(server, "app", "1")
    server.fault(Status(status), method="HEAD", times=9)
    assert str(repo.resolve("1").digest) == entry["digest"]


def test_what_is_not_there_is_none(server, repo):
    assert repo.resolve("nosuch") is None
    assert repo.stat(Digest.of(b"nosuch")) is None
    with pytest.raises(ImageNotFoundError, match="BLOB_UNKNOWN"):
        read(repo, Descriptor(mediatype.OCI_LAYER, Digest.of(b"nosuch"), 3))


def test_stat_gives_the_size(server, repo):
    assert repo.stat(blob(server).digest) == len(BLOB)
    server.fault(Headers({"Content-Length": ""}), method="HEAD")
    assert repo.stat(blob(server).digest) in (len(BLOB), 0)


def test_blobs_and_manifests_have_their_own_paths(server, repo):
    entry = add_image(server, "app", "1")
    raw = read(repo, repo.resolve("1"))
    assert digest_of(raw) == entry["digest"]
    assert read(repo, blob(server)) == BLOB
    assert server.count(r"GET /v2/app/manifests/sha256:") == 1
    assert server.count(r"GET /v2/app/blobs/sha256:") == 1


def test_sha512_is_verified_too(server, repo):  # N26
    descriptor = blob(server, algorithm="sha512")
    assert read(repo, descriptor) == BLOB
    server.fault(Corrupt(), path="/blobs/")
    with pytest.raises(DigestMismatchError):
        read(repo, descriptor)


@pytest.mark.parametrize("fault", [Corrupt(), Longer(), Headers({"Content-Length": "5"})])
def test_a_wrong_blob_is_an_error(server, repo, fault):  # N26
    server.fault(fault, path="/blobs/", times=9)
    with pytest.raises(DigestMismatchError):
        read(repo, blob(server))


def test_a_longer_blob_without_a_length_is_an_error(server, repo):
    server.fault(Longer(), path="/blobs/")
    small = blob(server, b"small")
    with pytest.raises(DigestMismatchError, match="15 bytes|longer"):
        read(repo, small)


def test_a_lying_manifest_digest_is_an_error(server, repo):  # N26
    add_image(server, "app", "1")
    server.fault(Status(405), method="HEAD")
    server.fault(Headers({"Docker-Content-Digest": str(Digest.of(b"other"))}), path="/manifests/")
    with pytest.raises(DigestMismatchError, match="does not match"):
        repo.resolve("1")
    server.fault(Headers({"Docker-Content-Digest": str(Digest.of(b"other"))}), method="HEAD")
    with pytest.raises(DigestMismatchError, match="was offered"):
        repo.resolve(server.repo("app").tags["1"])


def test_a_huge_manifest_is_not_read(server, repo):
    server.add_manifest("app", b'{"a":"' + b"x" * (5 << 20) + b'"}', mediatype.OCI_MANIFEST, "big")
    server.digest_header = False
    with pytest.raises(RegistryError, match="larger than 4 MiB"):
        repo.resolve("big")
    with pytest.raises(RegistryError, match="larger than 4 MiB"):
        repo.open(Descriptor(mediatype.OCI_MANIFEST, Digest.of(b""), 5 << 20))


def test_a_broken_download_goes_on_where_it_was(server, repo, clock):  # N14
    for after in (1000, 300_000, 0):
        server.fault(Cut(after), path="/blobs/")
    assert read(repo, blob(server)) == BLOB
    ranges = [item.headers.get("Range") for item in server.requests if "/blobs/" in item.path]
    assert ranges[0] is None
    assert ranges[1] == "bytes=1000-"
    assert ranges[2:] == ["bytes=301000-", "bytes=301000-"]
    assert clock.slept == [0.5, 1.5, 4.5]


def test_a_reset_download_goes_on(server, repo):
    server.fault(Cut(500_000, reset=True), path="/blobs/")
    assert read(repo, blob(server)) == BLOB


def test_resuming_works_without_ranges(server, repo):  # N14
    server.ranges = False
    server.fault(Cut(700_000), path="/blobs/")
    assert read(repo, blob(server)) == BLOB


def test_a_registry_that_resumes_elsewhere_is_not_believed(server, repo):
    server.fault(Cut(1000), path="/blobs/")
    server.fault(Headers({"Content-Range": "bytes 7-9/10"}), path="/blobs/")
    with pytest.raises(RegistryError, match="resumes at '7'"):
        read(repo, blob(server))


def test_downloads_that_always_break_end(server, repo, clock):
    server.fault(Cut(10), path="/blobs/", times=99)
    with pytest.raises(RegistryError):
        read(repo, blob(server))
    assert len(clock.slept) == 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_troubles_are_waited_for(server, repo, clock, status):  # N16
    add_image(server, "app", "1")
    server.fault(Status(status), path="/manifests/", times=2)
    assert repo.resolve("1")
    assert clock.slept == [0.5, 1.5]


def test_retry_after_is_honoured(server, repo, clock):  # N15
    add_image(server, "app", "1")
    server.fault(Status(429, headers={"Retry-After": "7"}), path="/manifests/")
    assert repo.resolve("1")
    assert clock.slept == [7.5]


def test_a_registry_that_wants_an_hour_gets_no_second_try(server, repo, clock):  # N15
    server.fault(Status(429, headers={"Retry-After": "3600"}), path="/manifests/", times=2)
    with pytest.raises(RegistryError, match="HTTP 429") as caught:
        repo.resolve("1")
    assert clock.slept == []
    assert "docker login" in caught.value.hint


def test_the_budget_ends(server, connect, clock):
    server.fault(Status(503, b"<html>"), path="/manifests/", times=99)
    client = connect(retry=Retry(attempts=2))
    with pytest.raises(RegistryError, match=r"cannot find .*/app:1: 127.0.0.1:\d+ answered HTTP 503$"):
        client.repository(Reference.parse(f"{server.host}/app:1")).resolve("1")
    assert server.count("manifests") == 3  # HEAD twice, then GET for the reason


def test_dropped_connections_are_tried_again(server, repo):  # N16
    add_image(server, "app", "1")
    server.fault(Drop(), path="/manifests/", times=2)
    assert repo.resolve("1")


def test_the_reason_is_shown(server, repo):  # N33
    body = json.dumps({"errors": [{"code": "DENIED", "message": "quota\x1b[31m exceeded", "detail": "Bearer abcdefghijklmnop"}]})
    server.fault(Status(403, body.encode()), path="/manifests/", times=9)
    with pytest.raises(RegistryError, match=r"quota \[31m exceeded: \(secret\) \(DENIED, HTTP 403\)"):
        repo.resolve("1")


def test_nobody_there(connect):
    with closed_port() as port:
        repo = connect().repository(Reference.parse(f"127.0.0.1:{port}/app"))
        with pytest.raises(RegistryError, match=rf"cannot connect to 127.0.0.1:{port}: connection refused") as caught:
            repo.resolve("latest")
    assert caught.value.hint == "is the registry running there?"  # plain HTTP was tried: it is on loopback
    assert caught.value.code == "refused"


def test_a_registry_that_went_away_is_waited_for(server, repo, clock):
    add_image(server, "app", "1")
    assert repo.resolve("1")
    server.stop()
    with pytest.raises(RegistryError, match="connection refused"):
        repo.resolve("1")
    assert clock.slept == [0.5, 1.5, 4.5]
    server.start()
    assert repo.resolve("1")


def test_silence_ends(connect):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        client = connect(Hosts(timeouts=Timeouts(0.2, 0.2)), retry=Retry(attempts=1))
        repo = client.repository(Reference.parse(f"127.0.0.1:{silent.getsockname()[1]}/app"))
        with pytest.raises(RegistryError, match="did not answer in time"):
            repo.resolve("1")


class Trickle:
    """Answers /v2/ at once, and anything else with `answer`, of which the bytes from `quick` on come one by one."""

    def __init__(self, answer, quick):
        self._answer, self._quick = answer, quick
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._socket.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=[self._socket.accept()[0]], daemon=True).start()

    def _serve(self, peer):
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(1 << 16):
                if data.startswith(b"GET /v2/ "):
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    continue
                peer.sendall(self._answer[: self._quick])
                for byte in self._answer[self._quick :]:
                    if self._ended.wait(0.02):
                        return
                    peer.sendall(bytes([byte]))


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000, "-1", "1_0"])
def test_a_length_that_is_no_number_is_not_believed(server, repo, length):
    """isdigit takes a superscript two; int takes it as little as 5,000 digits."""
    descriptor = add_image(server, "app", "1")
    server.fault(Headers({"Content-Length": length}), method="HEAD", times=2)
    assert str(repo.resolve("1").digest) == descriptor["digest"]
    assert repo.stat(blob(server).digest) in (len(BLOB), None)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("12", 12), ("9" * 18, 10**18 - 1), ("9" * 19, None), ("", None), ("\xb2", None), ("+1", None)]
)
def test_sizes_in_headers(text, size):
    assert stated_size(text) == size


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_registry_that_sends_byte_by_byte_ends_in_an_error(connect, where):
    head = b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 3000 + b"\r\nContent-Length: 100000\r\n\r\n"
    with Trickle(head + bytes(100000), len(head) if where == "body" else 20) as trickle:
        timeouts = Timeouts(5, 5, Pace(seconds=0.3))
        repo = connect(Hosts(timeouts=timeouts), retry=Retry(attempts=2)).repository(Reference.parse(f"{trickle.host}/app"))
        wanted = Descriptor("x/y", Digest.of(bytes(100000)), 100000)
        with pytest.raises(RegistryError, match=f"{trickle.host} is too slow: less than 1024 bytes came in 0.3 seconds"):
            repo.open(wanted).read()


def test_no_such_host(connect):
    repo = connect(retry=Retry(attempts=1)).repository(Reference.parse("registry.invalid/app"))
    with pytest.raises(RegistryError) as caught:
        repo.resolve("1")
    assert "cannot find the registry registry.invalid" in caught.value.message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_blobs_may_be_elsewhere_and_authorization_stays_here(server, connect, status):  # N09
    from tests.registry_server import Basic

    server.auth = Basic("me", "secret")
    with RegistryServer() as storage:
        descriptor = blob(server)
        storage.add_blob("app", BLOB)
        repo = connect(config={"auths": {server.host: {"username": "me", "password": "secret"}}}).repository(
            Reference.parse(f"{server.host}/app:1")
        )
        server.fault(Redirect(storage.url + "{path}?X-Amz-Signature=s", status), path="/blobs/")
        assert read(repo, descriptor) == BLOB
        assert all("Authorization" not in item.headers for item in storage.requests)
        assert "Authorization" in server.requests[-1].headers


def test_a_redirected_download_resumes_through_the_registry(server, repo):  # N14: signed URLs end
    with RegistryServer() as storage:
        descriptor = blob(server)
        storage.add_blob("app", BLOB)
        server.fault(Redirect(storage.url + "{path}"), path="/blobs/", times=2)
        storage.fault(Cut(5000), path="/blobs/")
        assert read(repo, descriptor) == BLOB
        assert server.count("/blobs/") == 2


@pytest.mark.parametrize("where", ["{path}", "file:///etc/passwd", "gopher://x/", "http://[bad", "//"])
def test_senseless_redirects_end(server, repo, where):
    server.fault(Redirect(where), path="/manifests/", times=99)
    with pytest.raises(RegistryError):
        repo.resolve("1")


def test_tags_come_page_by_page(server, repo):  # N30
    for number in range(7):
        add_image(server, "app", f"t{number}")
    server.page_size = 3
    assert repo.tags() == [f"t{number}" for number in range(7)]
    assert server.count("tags/list") == 3


def test_tags_of_an_unknown_repository(server, connect):
    with pytest.raises(ImageNotFoundError, match="NAME_UNKNOWN"):
        connect().repository(Reference.parse(f"{server.host}/nosuch")).tags()


def test_pages_in_circles_end(server, repo):
    server.fault(Headers({"Link": '</v2/app/tags/list?n=1000>; rel="next"'}), path="tags/list", times=9999)
    with pytest.raises(RegistryError, match="does not end"):
        repo.tags()


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"tags":{"a":1}}', b'{"tags":[1]}', b"[" * 100_000])
def test_hostile_lists(server, repo, body):
    server.fault(Status(200, body), path="tags/list")
    with pytest.raises(ContentError):
        repo.tags()


def test_many_threads_share_a_client(server, connect):  # N36
    descriptors = [blob(server, bytes([number]) * 200_000) for number in range(24)]
    repo = connect().repository(Reference.parse(f"{server.host}/app:1"))
    found: dict[int, bytes] = {}

    def fetch(worker):
        for number in range(worker, 24, 6):
            found[number] = read(repo, descriptors[number])

    threads = [threading.Thread(target=fetch, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] == bytes([number]) * 200_000 for number in range(24))
    assert server.connections <= 8  # kept alive
    assert server.count("GET /v2/$") == 1  # probed once


def test_connections_are_kept(server, repo):
    descriptor = blob(server)
    for _ in range(5):
        repo.resolve("nosuch")
        read(repo, descriptor)
        repo.stat(descriptor.digest)
    assert server.connections == 1
