"""Layers while a build runs: unpacked and indexed in one pass, each fetched once, never believed."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kpy.errors import ContentError, DigestMismatchError, TooLargeError
from kpy.layer.entry import LayerItem
from kpy.layer.extract import ExtractOptions
from kpy.layer.index import scan_layer
from kpy.layer.limits import LayerLimits
from kpy.oci.config import RuntimeConfig
from kpy.oci.image import Chain, Image, Layer
from kpy.solver.content import Layers
from kpy.store.store import Store
from kpy.util.cancel import Cancel
from tests.fakes import KnownImages, MemoryRepository, RecordingReporter, dir_item, file_item

OPTIONS = ExtractOptions(owners=False)
PASSWD = b"root:x:0:0::/:/bin/sh\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def remote() -> MemoryRepository:
    return MemoryRepository()


def image(remote: MemoryRepository, name: str, *layers: Sequence[LayerItem]) -> Image:
    return KnownImages(remote).add(name, RuntimeConfig(), *layers)


def layers_of(store: Store, *images: Image) -> Layers:
    layers = Layers(store, RecordingReporter(), Cancel())
    for number, one in enumerate(images):
        layers.add_image(one, f"image{number}")
    return layers


def three(remote: MemoryRepository) -> Image:
    return image(
        remote, "three",
        [dir_item("etc"), file_item("etc/passwd", PASSWD)], [file_item("a", b"one"), file_item("b")], [file_item("a", b"two")],
    )  # fmt: skip


def unpack(layers: Layers, chain: Chain, root: Path) -> dict[str, bytes]:
    root.mkdir()
    layers.extract(chain, str(root), OPTIONS)
    return {
        os.path.relpath(os.path.join(directory, name), root): Path(directory, name).read_bytes()
        for directory, _, names in os.walk(root)
        for name in names
    }


def test_unpacking_fetches_each_layer_once_and_knows_it_then(store: Store, remote: MemoryRepository, tmp_path: Path) -> None:
    """N26, N36."""
    found = three(remote)
    layers = layers_of(store, found)
    remote.opened.clear()
    assert unpack(layers, found.chain, tmp_path / "root") == {"etc/passwd": PASSWD, "a": b"two", "b": b""}
    tree = layers.tree(found.chain)
    assert tree.content("etc/passwd") == PASSWD
    entry = tree.lookup("a")
    assert entry is not None and entry.size == 3 and entry.sha256
    assert sorted(map(str, remote.opened)) == sorted(str(layer.descriptor.digest) for layer in found.chain)
    for layer in found.chain:  # the same index as without unpacking
        assert layers.layer_tree(layer) == scan_layer(layers.tar(layer))


def test_what_is_in_the_store_is_not_fetched_again(store: Store, remote: MemoryRepository, tmp_path: Path) -> None:
    found = three(remote)
    layers_of(store, found).tree(found.chain)
    remote.opened.clear()
    layers = layers_of(store, found)
    assert unpack(layers, found.chain, tmp_path / "root")["a"] == b"two"
    assert layers.tree(found.chain).lookup("b") is not None
    assert remote.opened == []


@pytest.mark.parametrize("indexed_before", [False, True])
def test_a_blob_that_claims_the_diff_id_of_another_layer_is_refused(
    store: Store, remote: MemoryRepository, tmp_path: Path, indexed_before: bool
) -> None:
    """L09. An image may pair any blob with any diff_id; unpacked, it would stand for the honest one in later builds."""
    honest = image(remote, "honest", [file_item("bin", b"good")])
    evil = image(remote, "evil", [file_item("bin", b"evil")])
    layers = layers_of(store, honest, evil)
    if indexed_before:
        layers.tree(honest.chain)
        layers.tree(evil.chain)
    lie = Layer(evil.chain[0].descriptor, honest.chain[0].diff_id)
    layers.add_image(replace(evil, chain=(lie,)), "lie")
    with pytest.raises(ContentError, match="does not match its diff_id"):
        unpack(layers, (lie,), tmp_path / "root")
    assert lie.descriptor not in store.get_layers(lie.diff_id)


def test_what_arrives_broken_is_not_stored(store: Store, remote: MemoryRepository, tmp_path: Path) -> None:
    found = three(remote)
    last = found.chain[-1].descriptor
    remote.blobs[last.digest] = remote.blobs[found.chain[1].descriptor.digest][: last.size].ljust(last.size, b"\0")
    layers = layers_of(store, found)
    with pytest.raises((DigestMismatchError, ContentError)):
        unpack(layers, found.chain, tmp_path / "root")
    assert not layers.has_blob(found.chain[-1])
    assert store.open_tree(found.chain[-1].diff_id) is None




@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize(
    ("limits", "flag"), [(LayerLimits(size=1 << 20), "--max-layer-size"), (LayerLimits(size=0, ratio=1), "")]
)
def test_a_layer_of_an_image_that_unpacks_to_more_than_is_allowed(
    store: Store, remote: MemoryRepository, tmp_path: Path, limits: LayerLimits, flag: str, unpacked: bool
) -> None:
    found = image(remote, "bomb", [file_item("zeros", bytes(2 << 20))])
    layers = Layers(store, RecordingReporter(), Cancel(), limits)
    layers.add_image(found, "bomb")
    if not flag:  # one GiB is allowed whatever the ratio
        assert layers.tree(found.chain).lookup("zeros") is not None
        return
    with pytest.raises(TooLargeError, match=f"layer {found.chain[0].descriptor.digest} unpacks to more than 1 MiB") as caught:
        if unpacked:
            unpack(layers, found.chain, tmp_path / "root")
        else:
            layers.tree(found.chain)
    assert flag in caught.value.hint
    assert not layers.has_blob(found.chain[0])


def test_what_a_step_of_ours_made_may_be_as_large_as_it_is(store: Store, remote: MemoryRepository, tmp_path: Path) -> None:
    found = image(remote, "ours", [file_item("zeros", bytes(2 << 20))])
    layers_of(store, found).tree(found.chain)
    layers = Layers(store, RecordingReporter(), Cancel(), LayerLimits(size=1 << 20))
    assert unpack(layers, found.chain, tmp_path / "root")["zeros"] == bytes(2 << 20)


def test_an_image_with_too_many_layers_is_refused_before_anything_is_fetched(store: Store, remote: MemoryRepository) -> None:
    found = three(remote)
    remote.opened.clear()
    layers = Layers(store, RecordingReporter(), Cancel(), LayerLimits(layers=2))
    with pytest.raises(ContentError, match="three has 3 layers, more than the 2 that are allowed"):
        layers.add_image(found, "three")
    assert remote.opened == []
