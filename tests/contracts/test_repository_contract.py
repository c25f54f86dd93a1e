"""What every oci.content.Repository must do: one suite, several implementations.

To add one, write a fixture that yields a fresh empty Repository and name it in REPOSITORIES.
"""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from kpy.errors import DigestMismatchError, ImageNotFoundError
from kpy.oci import mediatype
from kpy.oci.content import Repository
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.manifest import build_index, build_manifest
from kpy.oci.reference import Reference
from kpy.registry.client import RegistryClient
from kpy.store.layout import LayoutRepository
from tests.fakes import MemoryRepository
from tests.registry_server import RegistryServer

Make = Callable[[Path], AbstractContextManager[Repository]]


@contextmanager
def memory(_: Path) -> Iterator[Repository]:
    yield MemoryRepository()


@contextmanager
def layout(directory: Path) -> Iterator[Repository]:
    found = LayoutRepository(directory / "layout")
    found.create()
    yield found


@contextmanager
def registry(_: Path) -> Iterator[Repository]:
    with RegistryServer() as server, RegistryClient() as client:
        yield client.repository(Reference.parse(f"{server.host}/app"))


REPOSITORIES: dict[str, Make] = {"memory": memory, "layout": layout, "registry": registry}


@pytest.fixture(params=list(REPOSITORIES))
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repository]:
    with REPOSITORIES[request.param](tmp_path) as found:
        yield found


def describe(data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
    return Descriptor(media_type, Digest.of(data), len(data))


def store(repository: Repository, data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
    return repository.put(io.BytesIO(data), describe(data, media_type))


def image(repository: Repository, text: bytes = b"layer") -> bytes:
    config = store(repository, b'{"architecture":"amd64","os":"linux"}', mediatype.OCI_CONFIG)
    return build_manifest(config, [store(repository, text, mediatype.OCI_LAYER_GZIP)]).raw


@pytest.mark.parametrize("data", [b"", b"x", b"hello" * 300_000])
def test_what_was_put_can_be_opened(repository: Repository, data: bytes) -> None:
    found = repository.put(io.BytesIO(data), describe(data, mediatype.OCI_LAYER_GZIP))
    assert found == describe(data, mediatype.OCI_LAYER_GZIP)
    assert repository.stat(found.digest) == len(data)
    with repository.open(found) as stream:
        assert stream.read() == data
        assert stream.read(1) == b""


def test_put_without_expectation_computes_the_descriptor(repository: Repository) -> None:
    found = repository.put(io.BytesIO(b"hello"))
    assert (found.digest, found.size) == (Digest.of(b"hello"), 5)


def test_put_is_idempotent(repository: Repository) -> None:
    assert store(repository, b"hello") == store(repository, b"hello")
    with repository.open(describe(b"hello")) as stream:
        assert stream.read() == b"hello"


@pytest.mark.parametrize("wrong", [b"hellO", b"hell", b"hello!", b""])
def test_put_refuses_other_content_and_keeps_none_of_it(repository: Repository, wrong: bytes) -> None:
    with pytest.raises(DigestMismatchError):
        repository.put(io.BytesIO(wrong), describe(b"hello"))
    assert repository.stat(Digest.of(b"hello")) is None
    with pytest.raises(ImageNotFoundError):
        repository.open(describe(b"hello")).read()


def test_missing_blob(repository: Repository) -> None:
    assert repository.stat(Digest.of(b"nothing")) is None
    with pytest.raises(ImageNotFoundError):
        repository.open(describe(b"nothing")).read()


def test_a_descriptor_of_another_size_is_noticed(repository: Repository) -> None:
    store(repository, b"hello")
    for size in (4, 6):
        with pytest.raises(DigestMismatchError):
            repository.open(Descriptor("x/y", Digest.of(b"hello"), size)).read()


def test_manifest_by_digest_and_by_tag(repository: Repository) -> None:
    raw = image(repository)
    found = repository.put_manifest(raw, mediatype.OCI_MANIFEST)
    assert found == Descriptor(mediatype.OCI_MANIFEST, Digest.of(raw), len(raw))
    assert repository.resolve("v1") is None
    repository.put_manifest(raw, mediatype.OCI_MANIFEST, tag="v1")
    for name in ("v1", str(found.digest)):
        resolved = repository.resolve(name)
        assert resolved is not None
        assert (resolved.media_type, resolved.digest, resolved.size) == (found.media_type, found.digest, found.size)
    with repository.open(found) as stream:
        assert stream.read() == raw
    assert repository.resolve(str(Digest.of(b"nothing"))) is None


def test_a_tag_moves(repository: Repository) -> None:
    first, second = image(repository, b"1"), image(repository, b"2")
    repository.put_manifest(first, mediatype.OCI_MANIFEST, tag="v1")
    repository.put_manifest(second, mediatype.OCI_MANIFEST, tag="v1")
    resolved = repository.resolve("v1")
    assert resolved is not None
    assert resolved.digest == Digest.of(second)
    assert repository.resolve(str(Digest.of(first))) is not None


def test_index(repository: Repository) -> None:
    child = repository.put_manifest(image(repository), mediatype.OCI_MANIFEST)
    index = build_index([child])
    repository.put_manifest(index.raw, index.media_type, tag="all")
    resolved = repository.resolve("all")
    assert resolved is not None
    assert mediatype.is_index(resolved.media_type)


def test_referrers_are_filtered_by_artifact_type(repository: Repository) -> None:
    subject = repository.put_manifest(image(repository), mediatype.OCI_MANIFEST, tag="v1")
    empty = store(repository, b"{}", mediatype.OCI_EMPTY)
    made = {
        kind: build_manifest(empty, [empty], subject=subject, artifact_type=kind, annotations={"k": kind})
        for kind in ("application/one", "application/two")
    }
    for item in made.values():
        repository.put_manifest(item.raw, item.media_type)
    assert {found.digest for found in repository.referrers(subject.digest)} == {
        item.descriptor.digest for item in made.values()
    }
    [one] = repository.referrers(subject.digest, "application/one")
    assert (one.artifact_type, one.annotations["k"]) == ("application/one", "application/one")
    assert repository.referrers(Digest.of(b"other")) in ([], ())


def test_many_threads_put_the_same_and_different_blobs(repository: Repository) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(10):
                store(repository, b"shared" * 1000)
                store(repository, f"{number}-{i}".encode())
                repository.put_manifest(image(repository, str(i).encode()), mediatype.OCI_MANIFEST, tag=f"t{number}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert all(repository.resolve(f"t{n}") for n in range(4))
