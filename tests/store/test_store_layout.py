"""The image layout: names, locks, crashes, full disks, hostile directories (N34)."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from kpy.errors import ContentError, DigestMismatchError, ImageNotFoundError, StoreError
from kpy.oci import mediatype
from kpy.oci.content import Repository
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.manifest import build_manifest
from kpy.store.layout import IMAGE_NAME, REF_NAME, LayoutRepository

_: type[Repository] = LayoutRepository
ROOT = Path(__file__).parents[2]


def make(directory: Path, text: bytes = b"layer") -> tuple[LayoutRepository, bytes]:
    layout = LayoutRepository(directory)
    config = layout.put(io.BytesIO(b'{"architecture":"amd64","os":"linux"}'))
    return layout, build_manifest(config, [layout.put(io.BytesIO(text))]).raw


def index_of(layout: LayoutRepository) -> list[dict]:
    return json.loads((layout.directory / "index.json").read_bytes())["manifests"]


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_the_directory_is_an_image_layout_and_nothing_else(tmp_path: Path) -> None:
    layout, raw = make(tmp_path / "l")
    found = layout.put_manifest(raw, mediatype.OCI_MANIFEST, tag="v1")
    names = files(layout.directory)
    assert {name for name in names if "/" not in name} == {"index.json", "oci-layout"}
    assert json.loads((layout.directory / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert f"blobs/sha256/{found.digest.hex}" in names
    assert {p.stat().st_mode & 0o777 for p in (layout.directory / "blobs/sha256").iterdir()} == {0o644}


def test_modes_do_not_depend_on_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        layout, raw = make(tmp_path / "l")
        layout.put_manifest(raw, mediatype.OCI_MANIFEST, tag="v1")
    finally:
        os.umask(old)
    assert {p.stat().st_mode & 0o777 for p in tmp_path.rglob("*") if p.is_file()} == {0o644}


def test_a_whole_reference_has_both_annotations(tmp_path: Path) -> None:
    layout, raw = make(tmp_path / "l")
    layout.put_manifest(raw, mediatype.OCI_MANIFEST, tag="docker.io/library/app:v1")
    [entry] = index_of(layout)
    assert entry["annotations"] == {IMAGE_NAME: "docker.io/library/app:v1", REF_NAME: "v1"}
    for name in ("docker.io/library/app:v1", "v1"):
        assert layout.resolve(name)
    assert layout.tags() == ["docker.io/library/app:v1"]


def test_a_registry_port_is_not_a_tag(tmp_path: Path) -> None:
    layout, raw = make(tmp_path / "l")
    layout.put_manifest(raw, mediatype.OCI_MANIFEST, tag="localhost:5000/app:v1")
    assert layout.resolve("v1")
    layout.put_manifest(raw, mediatype.OCI_MANIFEST, tag="localhost:5000/app")
    assert layout.resolve("localhost:5000/app")
    assert layout.resolve("5000/app") is None


def test_a_short_tag_belongs_to_who_took_it_last(tmp_path: Path) -> None:
    layout, first = make(tmp_path / "l", b"1")
    _, second = make(tmp_path / "l", b"2")
    layout.put_manifest(first, mediatype.OCI_MANIFEST, tag="example.com/one:v1")
    layout.put_manifest(second, mediatype.OCI_MANIFEST, tag="example.com/two:v1")
    assert [entry["annotations"].get(REF_NAME) for entry in index_of(layout)] == [None, "v1"]
    assert layout.resolve("v1").digest == Digest.of(second)
    assert layout.resolve("example.com/one:v1").digest == Digest.of(first)


def test_unknown_fields_and_entries_of_others_survive(tmp_path: Path) -> None:
    layout, raw = make(tmp_path / "l")
    other = {"mediaType": "x/y", "digest": "sha256:" + "1" * 64, "size": 3, "futureField": {"a": 1}}
    (layout.directory / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "manifests": [other], "annotations": {"a": "b"}, "more": True})
    )
    layout.put_manifest(raw, mediatype.OCI_MANIFEST, tag="v1")
    data = json.loads((layout.directory / "index.json").read_bytes())
    assert data["manifests"][0] == other
    assert (data["annotations"], data["more"]) == ({"a": "b"}, True)


def test_untag_by_name_and_by_digest(tmp_path: Path) -> None:
    layout, raw = make(tmp_path / "l")
    for tag in ("a", "b", "example.com/c:d"):
        layout.put_manifest(raw, mediatype.OCI_MANIFEST, tag=tag)
    assert layout.untag("a")
    assert not layout.untag("a")
    assert layout.tags() == ["b", "example.com/c:d"]
    assert layout.untag(str(Digest.of(raw)))
    assert layout.tags() == []
    assert layout.resolve(str(Digest.of(raw))) is not None


def test_tagging_an_unnamed_entry_names_it(tmp_path: Path) -> None:
    layout, raw = make(tmp_path / "l")
    found = layout.put_manifest(raw, mediatype.OCI_MANIFEST)
    layout.list_untagged(found)
    layout.list_untagged(found)
    layout.tag(found, "v1")
    assert len(index_of(layout)) == 1


def test_reading_what_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="not an oci image layout"):
        LayoutRepository(tmp_path / "nothing").resolve("v1")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"manifests": {}}', '{"manifests": [1]}', "[" * 100_000])
def test_hostile_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ContentError):
        LayoutRepository(tmp_path).resolve("v1")


def test_hostile_entries_are_content_errors(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(
        json.dumps({"manifests": [{"digest": "sha256:../../x", "size": 1, "annotations": {REF_NAME: "v1"}}]})
    )
    with pytest.raises(ContentError):
        LayoutRepository(tmp_path).resolve("v1")


def test_changed_blob_is_noticed_and_short_one_replaced(tmp_path: Path) -> None:
    layout = LayoutRepository(tmp_path)
    found = layout.put(io.BytesIO(b"hello"))
    path = Path(layout.blobs.path(found.digest))
    path.write_bytes(b"hellO")
    with pytest.raises(DigestMismatchError, match=str(path)):
        layout.open(found).read()
    path.write_bytes(b"")  # what a power loss may leave
    with pytest.raises(DigestMismatchError, match="0 bytes"):
        layout.open(found)
    layout.put(io.BytesIO(b"hello"), found)
    assert layout.open(found).read() == b"hello"


def test_a_fifo_or_directory_for_a_blob_neither_blocks_nor_works(tmp_path: Path) -> None:
    layout = LayoutRepository(tmp_path)
    layout.create()
    digest = Digest.of(b"x")
    os.mkfifo(layout.blobs.path(digest))
    assert layout.stat(digest) is None
    with pytest.raises(ContentError, match="not a regular file"):
        layout.open(Descriptor("x/y", digest, 0))


def test_writer_without_commit_leaves_nothing(tmp_path: Path) -> None:
    layout = LayoutRepository(tmp_path)
    with layout.writer() as writer:
        writer.write(b"hello")
    with pytest.raises(RuntimeError), layout.writer() as writer:
        writer.write(b"hello")
        raise RuntimeError
    assert files(tmp_path / "blobs") == set()
    with layout.writer() as writer:
        writer.write(b"hel")
        writer.write(memoryview(b"lo"))
        found = writer.commit(mediatype.OCI_LAYER)
    assert found == Descriptor(mediatype.OCI_LAYER, Digest.of(b"hello"), 5)


def test_sha512(tmp_path: Path) -> None:
    import hashlib

    expected = Descriptor("x/y", Digest("sha512", hashlib.sha512(b"hello").hexdigest()), 5)
    layout = LayoutRepository(tmp_path)
    assert layout.put(io.BytesIO(b"hello"), expected) == expected
    assert layout.open(expected).read() == b"hello"


def test_an_endless_stream_ends_at_the_expected_size(tmp_path: Path) -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return b"x" * size

    stream = Endless()
    with pytest.raises(DigestMismatchError, match="longer than"):
        LayoutRepository(tmp_path).put(stream, Descriptor("x/y", Digest.of(b"x"), 1))
    assert stream.given <= 4 << 20
    assert files(tmp_path / "blobs") == set()


def test_full_disk_is_a_store_error_with_path_and_hint(tmp_path: Path) -> None:
    layout = LayoutRepository(tmp_path)
    layout.create()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # EFBIG, as near to ENOSPC as we get
    try:
        with pytest.raises(StoreError, match=str(tmp_path)):
            layout.put(io.BytesIO(b"x" * 1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert files(tmp_path / "blobs") == set()
    layout.put(io.BytesIO(b"x" * 1_000_000))


def test_errors_of_the_stream_are_not_ours(tmp_path: Path) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ConnectionResetError("peer")

    with pytest.raises(ConnectionResetError):
        LayoutRepository(tmp_path).put(Broken())
    assert files(tmp_path / "blobs") == set()


def test_a_killed_writer_leaves_only_what_remove_stale_removes(tmp_path: Path) -> None:
    layout, raw = make(tmp_path / "l")
    code = """
        import os, pathlib, signal, sys
        from kpy.store.layout import LayoutRepository
        with LayoutRepository(pathlib.Path(sys.argv[1])).writer() as writer:
            writer.write(b"x" * 1000000)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    before = files(layout.directory)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(layout.directory)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    [left] = files(layout.directory) - before
    assert left.endswith(".tmp")
    with layout.writer() as writer:  # one that is still being written stays
        writer.write(b"y")
        layout.remove_stale()
        writer.commit()
    assert files(layout.directory) - before == {f"blobs/sha256/{Digest.of(b'y').hex}"}


def test_two_processes_tag_at_once(tmp_path: Path) -> None:
    layout, raw = make(tmp_path / "l")
    code = """
        import pathlib, sys
        from kpy.oci import mediatype
        from kpy.store.layout import LayoutRepository
        layout = LayoutRepository(pathlib.Path(sys.argv[1]))
        for i in range(30):
            layout.put_manifest(sys.argv[2].encode(), mediatype.OCI_MANIFEST, tag=f"{sys.argv[3]}-{i}")
    """
    running = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(layout.directory), raw.decode(), name], cwd=ROOT)
        for name in ("a", "b")
    ]
    assert [process.wait() for process in running] == [0, 0]
    assert len(layout.tags()) == 60
    assert {name for name in files(layout.directory) if "/" not in name} == {"index.json", "oci-layout"}


def test_put_that_is_there_is_not_read(tmp_path: Path) -> None:
    layout = LayoutRepository(tmp_path)
    found = layout.put(io.BytesIO(b"hello"))
    stream = io.BytesIO(b"hello")
    layout.put(stream, found)
    assert stream.tell() == 0


def test_missing_blob_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFoundError, match=str(tmp_path)):
        LayoutRepository(tmp_path).open(Descriptor("x/y", Digest.of(b"x"), 1))


def test_an_index_that_is_a_fifo_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    """A layout may come from somebody else (--build-context NAME=oci-layout://PATH)."""
    os.mkfifo(tmp_path / "index.json")
    with pytest.raises(ContentError, match="is not a regular file"):
        LayoutRepository(tmp_path).resolve("v1")
