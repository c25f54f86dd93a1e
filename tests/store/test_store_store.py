"""The state directory: what it keeps, who may share it, what garbage collection takes."""

import io
import os
import threading
from pathlib import Path

import pytest

from kpy.errors import StoreError
from kpy.oci import mediatype
from kpy.oci.config import ImageConfig
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Layer
from kpy.oci.manifest import build_index, build_manifest
from kpy.oci.platform import Platform
from kpy.store.gc import collect
from kpy.store.store import Store
from kpy.store.usage import usage

A, B = Digest.of(b"a"), Digest.of(b"b")


def put(store: Store, data: bytes, media_type: str = "x/y") -> Descriptor:
    return store.images.put(io.BytesIO(data), Descriptor(media_type, Digest.of(data), len(data)))


def put_image(store: Store, text: bytes, tag: str = "", diff_id: Digest = A) -> Descriptor:
    config = put(store, ImageConfig(Platform("linux", "amd64"), diff_ids=(diff_id,)).encode(), mediatype.OCI_CONFIG)
    built = build_manifest(config, [put(store, text, mediatype.OCI_LAYER_GZIP)])
    return store.images.put_manifest(built.raw, built.media_type, tag=tag)


def put_tree(store: Store, diff_id: Digest, data: bytes) -> None:
    with store.tree_writer() as writer:
        writer.stream.write(data)
        writer.commit(diff_id)


def test_directories_are_private_and_opening_again_works(tmp_path: Path) -> None:
    Store(tmp_path / "a" / "b")
    Store(tmp_path / "a" / "b")
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "a/b").iterdir() if p.name != "images" and p.is_dir()} == {0o700}
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a/b/version").read_text() == "1\n"


def test_another_format_is_refused(tmp_path: Path) -> None:
    Store(tmp_path)
    (tmp_path / "version").write_text("7\n")
    with pytest.raises(StoreError, match="'7'") as caught:
        Store(tmp_path)
    assert caught.value.hint


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    for path in (tmp_path / "state", tmp_path / "state" / "below"):
        with pytest.raises(StoreError, match="cannot make the state directory"):
            Store(path)


def test_trees_and_layer_records(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.open_tree(A) is None
    put_tree(store, A, b"tree\0\xff")
    stream = store.open_tree(A)
    assert stream is not None
    with stream:
        assert stream.read() == b"tree\0\xff"
    with store.tree_writer() as writer:
        writer.stream.write(b"never committed")
    assert os.listdir(tmp_path / "trees") == [A.hex]
    assert store.get_layers(A) == ()
    here, there = put(store, b"blob", mediatype.OCI_LAYER_GZIP), Descriptor("x/z", B, 9)
    store.put_layer(Layer(there, A))
    assert store.find_layer(A) is None
    for _ in range(2):
        store.put_layer(Layer(here, A))
    assert store.get_layers(A) == (there, here)
    assert store.find_layer(A) == Layer(here, A)
    assert list(store.diff_ids()) == [A]


@pytest.mark.parametrize("text", [b"", b"{", b"{}", b"[1]", b'[{"digest":"x"}]', b"[" * 100_000])
def test_broken_layer_record_is_no_record(tmp_path: Path, text: bytes) -> None:
    store = Store(tmp_path)
    (tmp_path / "layers" / f"{A.hex}.json").write_bytes(text)
    assert store.get_layers(A) == ()
    store.put_layer(Layer(Descriptor("x/z", B, 9), A))
    assert len(store.get_layers(A)) == 1


def test_scratch_directories_go(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "tmp" / "left").mkdir()
    (tmp_path / "tmp" / "left" / "deep").mkdir(mode=0)
    with store.temporary_directory() as path:
        (path / "x").write_text("x")
        store.remove_stale()
        assert os.listdir(path) == ["x"]
        assert not (tmp_path / "tmp" / "left").exists()
    assert os.listdir(tmp_path / "tmp") == []


def test_collect_keeps_what_names_lead_to(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = put_image(store, b"kept", "v1")
    child = put_image(store, b"child", diff_id=B)
    index = build_index([child])
    store.images.put_manifest(index.raw, index.media_type, tag="docker.io/library/all:1")
    gone = put_image(store, b"gone")
    cached = Layer(put(store, b"cached"), Digest.of(b"diff"))
    for diff_id in (A, B, cached.diff_id, Digest.of(b"unused")):
        put_tree(store, diff_id, b"tree")
    before = {digest for digest, _ in store.images.blobs.digests()}
    dry = collect(store, lambda: [cached], dry_run=True)
    assert {digest for digest, _ in store.images.blobs.digests()} == before
    done = collect(store, lambda: [cached])
    assert (dry.blobs, done.blobs, done.trees) == (2, 2, 1)
    after = {digest for digest, _ in store.images.blobs.digests()}
    assert before - after == {gone.digest, Digest.of(b"gone")}
    assert {kept.digest, index.descriptor.digest, Digest.of(b"child"), cached.descriptor.digest} <= after
    assert list(store.diff_ids()) == sorted([A, B, cached.diff_id], key=lambda d: d.hex)
    assert collect(store, lambda: [cached]).blobs == 0


def test_signatures_go_with_their_subject(tmp_path: Path) -> None:
    store = Store(tmp_path)
    empty = put(store, b"{}", mediatype.OCI_EMPTY)
    for name in ("stays", "goes"):
        subject = put_image(store, name.encode(), name)
        first = build_manifest(empty, [put(store, b"sig " + name.encode())], subject=subject, artifact_type="x/sig")
        store.images.put_manifest(first.raw, first.media_type)
        second = build_manifest(empty, [empty], subject=first.descriptor, artifact_type="x/sig-of-sig")
        store.images.put_manifest(second.raw, second.media_type)
    store.images.untag("goes")
    collect(store, list)
    assert store.images.stat(Digest.of(b"sig stays"))
    assert store.images.stat(Digest.of(b"sig goes")) is None
    # what is listed but gone does no harm
    assert collect(store, list).blobs == 0
    assert [d.digest for d in store.images.referrers(store.images.resolve("stays").digest)]


def test_collect_waits_for_builds_and_gives_up(tmp_path: Path) -> None:
    store = Store(tmp_path)
    blob = put(store, b"just written, not yet named")
    with store.session(), Store(tmp_path).session():
        with pytest.raises(StoreError, match="locked"):
            collect(Store(tmp_path), list, timeout=0.05)
        assert store.images.stat(blob.digest)
    assert collect(store, list, timeout=5).blobs == 1


def test_kept_layers_are_asked_when_no_build_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    layers: list[Layer] = []
    started = threading.Event()

    def prune() -> None:
        started.set()
        collect(Store(tmp_path), lambda: layers)

    with store.session():
        thread = threading.Thread(target=prune)
        thread.start()
        started.wait()
        layers.append(Layer(put(store, b"fresh"), A))
    thread.join()
    assert store.images.stat(Digest.of(b"fresh"))


def test_usage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put_image(store, b"kept", "v1")
    put(store, b"x" * 1000)
    put_tree(store, A, b"tree")
    found = {item.kind: item for item in usage(store)}
    assert found["blobs"].count == 4
    assert found["blobs"].reclaimable == 1000
    assert found["trees"].count == 1
