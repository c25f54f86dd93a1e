"""directory.py: one directory, several chains, without root (EXECUTION D, L01)."""

import hashlib
import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from kpy.errors import SandboxError
from kpy.layer.entry import Entry, Kind, LayerItem, sort_key
from kpy.layer.extract import ExtractOptions, extract
from kpy.layer.index import LayerTree
from kpy.layer.write import write_tar
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Chain, Layer
from kpy.snapshot.base import Snapshot, Snapshotter
from kpy.snapshot.directory import DirectorySnapshotter
from kpy.snapshot.ground import Directory

_: type[Snapshotter] = DirectorySnapshotter


class Layers:
    """A LayerContent of layers made here. Remembers what was asked for."""

    def __init__(self) -> None:
        self.tars: dict[Layer, bytes] = {}
        self.trees: dict[Layer, LayerTree] = {}
        self.read: list[Layer] = []

    def add(self, items: Sequence[LayerItem]) -> Layer:
        parts: list[bytes] = []
        tree = LayerTree(write_tar(items, parts.append))
        tar = b"".join(parts)
        digest = Digest.of(tar)
        layer = Layer(Descriptor("application/vnd.oci.image.layer.v1.tar", digest, len(tar)), digest)
        self.tars[layer] = tar
        self.trees[layer] = tree
        return layer

    def files(self, **files: str | None) -> Layer:
        items = []
        for name, content in files.items():
            path = name.replace("__", "/").replace("_dot_", ".")
            if content is None:
                items.append(LayerItem(Entry(path, Kind.WHITEOUT)))
            else:
                items.append(_file(path, content.encode()))
        return self.add(sorted(items, key=lambda item: sort_key(item.entry)))

    def extract(self, layers: Chain, root: str, options: ExtractOptions, /) -> list[LayerTree]:
        self.read += layers
        return [extract(io.BytesIO(self.tars[layer]), root, options=options).tree for layer in layers]

    def layer_tree(self, layer: Layer, /) -> LayerTree:
        return self.trees[layer]


def _file(path: str, content: bytes) -> LayerItem:
    entry = Entry(path, Kind.FILE, 0o644, os.getuid(), os.getgid(), len(content), 1_000_000_000)
    return LayerItem(entry, lambda: io.BytesIO(content))


@pytest.fixture
def layers() -> Layers:
    return Layers()


def _snapshotter(layers: Layers, root: Path) -> DirectorySnapshotter:
    root.mkdir(exist_ok=True)
    return DirectorySnapshotter(Directory(str(root), owners=False), layers, protected=["dev", "proc", "etc/hosts"])


def _commit(snapshotter: DirectorySnapshotter, active: Snapshot, layers: Layers) -> tuple[Layer, list[str]]:
    items = list(snapshotter.changes(active))
    layer = layers.add(items)
    snapshotter.commit(active, layer)
    return layer, [f"{item.entry.kind.value} {item.entry.path}" for item in items]


def _files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()
    }


def test_a_chain_is_unpacked_and_its_changes_become_a_layer(layers: Layers, tmp_path: Path) -> None:
    base = layers.files(a="1", etc__b="2")
    snapshotter = _snapshotter(layers, tmp_path / "root")

    with snapshotter.prepare((base,), 1) as active:
        assert active.root == str(tmp_path / "root")
        (tmp_path / "root" / "new").write_text("3")
        (tmp_path / "root" / "etc" / "b").unlink()
        layer, changes = _commit(snapshotter, active, layers)

    assert changes == ["d etc", "w etc/b", "f new"]
    assert layers.read == [base]
    with snapshotter.prepare((base, layer), 1) as active:
        assert _files(tmp_path / "root") == {"a": "1", "new": "3"}
        assert list(snapshotter.changes(active)) == []
    assert layers.read == [base]


def test_only_missing_layers_are_unpacked(layers: Layers, tmp_path: Path) -> None:
    base, copied = layers.files(a="1", b="2"), layers.files(c="3", a=None)
    snapshotter = _snapshotter(layers, tmp_path / "root")
    with snapshotter.prepare((base,), 1) as active:
        (tmp_path / "root" / "run").write_text("r")
        run, _changes = _commit(snapshotter, active, layers)

    with snapshotter.prepare((base, run, copied), 1) as active:
        assert _files(tmp_path / "root") == {"b": "2", "c": "3", "run": "r"}
        assert list(snapshotter.changes(active)) == []

    assert layers.read == [base, copied]


def test_what_was_not_committed_is_dropped(layers: Layers, tmp_path: Path) -> None:
    base = layers.files(a="1")
    snapshotter = _snapshotter(layers, tmp_path / "root")
    with pytest.raises(ZeroDivisionError), snapshotter.prepare((base,), 1):
        (tmp_path / "root" / "half").write_text("x")
        (tmp_path / "root" / "a").write_text("x")
        raise ZeroDivisionError

    with snapshotter.prepare((base,), 1) as active:
        assert _files(tmp_path / "root") == {"a": "1"}
        assert list(snapshotter.changes(active)) == []


def test_leftovers_of_an_earlier_build_go_and_protected_paths_stay(layers: Layers, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("old/deep/file", "proc/1/stat", "etc/hosts", "etc/old"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("left")
    base = layers.files(a="1", etc__hosts="image's", proc__2="image's", etc__new="2")
    snapshotter = _snapshotter(layers, root)

    with snapshotter.prepare((base,), 1) as active:
        assert _files(root) == {"a": "1", "etc/hosts": "left", "etc/new": "2", "proc/1/stat": "left"}
        (root / "etc" / "hosts").write_text("by RUN")
        (root / "proc" / "x").write_text("by RUN")
        assert list(snapshotter.changes(active)) == []


def test_another_chain_begins_anew(layers: Layers, tmp_path: Path) -> None:
    one, two = layers.files(a="1"), layers.files(b="2")
    snapshotter = _snapshotter(layers, tmp_path / "root")
    for chain, expected in (
        ((one,), {"a": "1"}),
        ((two,), {"b": "2"}),
        ((), {}),
        ((one, two), {"a": "1", "b": "2"}),
    ):
        with snapshotter.prepare(chain, 1) as active:
            assert _files(tmp_path / "root") == expected
            _commit(snapshotter, active, layers)


def test_a_touched_but_equal_file_is_no_change(layers: Layers, tmp_path: Path) -> None:
    base = layers.files(a="1", b="2")
    snapshotter = _snapshotter(layers, tmp_path / "root")

    with snapshotter.prepare((base,), 1) as active:
        for name, content in (("a", "1"), ("b", "3")):
            file = tmp_path / "root" / name
            file.write_text(content)
            os.utime(file, ns=(1, 1_000_000_000))
        _layer, changes = _commit(snapshotter, active, layers)

    assert changes == ["f b"]


def test_view_only_of_exactly_what_is_there(layers: Layers, tmp_path: Path) -> None:
    base = layers.files(a="1")
    snapshotter = _snapshotter(layers, tmp_path / "root")
    with snapshotter.view((base,)) as path:
        assert path is None
    with snapshotter.prepare((base,), 1) as active:
        with snapshotter.view((base,)) as path:
            assert path is None
        layer, _changes = _commit(snapshotter, active, layers)

    with snapshotter.view((base,)) as path:
        assert path is None
    with snapshotter.view((base, layer)) as path:
        assert path == str(tmp_path / "root")
        with pytest.raises(SandboxError, match="in use"), snapshotter.prepare((base,), 1):
            pass


def test_a_second_caller_waits(layers: Layers, tmp_path: Path) -> None:
    one, two = layers.files(a="1"), layers.files(b="2")
    snapshotter = _snapshotter(layers, tmp_path / "root")
    seen: list[dict[str, str]] = []

    def other() -> None:
        with snapshotter.prepare((two,), 1):
            seen.append(_files(tmp_path / "root"))

    with snapshotter.prepare((one,), 1):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert _files(tmp_path / "root") == {"a": "1"}
    thread.join()

    assert seen == [{"b": "2"}]


def test_a_device_placeholder_becomes_a_device_again(layers: Layers, tmp_path: Path) -> None:
    snapshotter = _snapshotter(layers, tmp_path / "root")

    with snapshotter.prepare((), 0) as active:
        (tmp_path / "root" / "null").touch()
        os.setxattr(tmp_path / "root" / "null", "user.kpy.device", b"c:1:3")
        (item,) = snapshotter.changes(active)

    assert (item.entry.kind, item.entry.device, item.entry.xattrs) == (Kind.CHAR, (1, 3), {})


def test_content_is_what_is_on_disk(layers: Layers, tmp_path: Path) -> None:
    snapshotter = _snapshotter(layers, tmp_path / "root")
    content = os.urandom(2_000_000)

    with snapshotter.prepare((), 0) as active:
        (tmp_path / "root" / "big").write_bytes(content)
        (item,) = snapshotter.changes(active)
        assert item.open
        with item.open() as file:
            assert hashlib.sha256(file.read()).digest() == hashlib.sha256(content).digest()


def test_a_file_of_an_earlier_run_is_no_change_when_its_ctime_alone_moves(layers: Layers, tmp_path: Path) -> None:
    """A second name for it, a mode there and back (L05)."""
    root = tmp_path / "root"
    snapshotter = _snapshotter(layers, root)
    with snapshotter.prepare((), 0) as active:
        (root / "one").write_text("x")
        first, _ = _commit(snapshotter, active, layers)

    with snapshotter.prepare((first,), 0) as active:
        (root / "one").chmod(0o600)
        (root / "one").chmod(0o644)
        os.link(root / "one", root / "two")
        _, changes = _commit(snapshotter, active, layers)

    assert changes == ["f two"]


def test_the_root_itself_is_in_no_layer(layers: Layers, tmp_path: Path) -> None:
    """As in BuildKit's layers."""
    root = tmp_path / "root"
    snapshotter = _snapshotter(layers, root)
    with snapshotter.prepare((), 0) as active:
        root.chmod(0o700)
        _, changes = _commit(snapshotter, active, layers)
        root.chmod(0o755)

    assert changes == []


def test_an_image_with_files_where_the_root_keeps_something_is_refused(layers: Layers, tmp_path: Path) -> None:
    """They would be missing, and what a RUN does to them lost. /dev and the network's files are no image's anywhere."""
    root = tmp_path / "root"
    (root / "work" / "context").mkdir(parents=True)
    (root / "work" / "context" / "Dockerfile").write_text("FROM scratch")
    protected = ["dev", "etc/hosts", "work/context"]
    snapshotter = DirectorySnapshotter(Directory(str(root), owners=False), layers, protected=protected)
    fine = layers.files(dev__x="1", etc__hosts="2", work__other="3")

    with snapshotter.prepare((fine,), 1):
        assert _files(root) == {"work/context/Dockerfile": "FROM scratch", "work/other": "3"}
    with (
        pytest.raises(SandboxError, match="the image has files in /work/context"),
        snapshotter.prepare((fine, layers.files(work__context__main="4")), 1),
    ):
        pass
