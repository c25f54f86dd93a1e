"""slots.py: the root of images whose names in `/` are fixed (EXECUTION B4), with a directory for `/`."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_snapshot_directory import Layers

from kpy.errors import SandboxError
from kpy.layer.entry import Entry, Kind, LayerItem
from kpy.linux.ledger import Ledger
from kpy.snapshot import slots
from kpy.snapshot.directory import DirectorySnapshotter
from kpy.snapshot.slots import Slots
from kpy.snapshot.volumes import Volumes

USR_MERGED = [
    LayerItem(Entry("bin", Kind.SYMLINK, link="usr/bin")),
    LayerItem(Entry("etc", Kind.DIR, 0o755, mtime=10**18)),
    LayerItem(Entry("usr", Kind.DIR, 0o755, mtime=10**18)),
    LayerItem(Entry("usr/bin", Kind.DIR, 0o755)),
    LayerItem(Entry("usr/bin/sh", Kind.SYMLINK, link="../lib/sh", uid=3)),
]
ALPINE = [
    LayerItem(Entry("bin", Kind.DIR, 0o755)),
    LayerItem(Entry("bin/sh", Kind.SYMLINK, link="../usr/sh")),
    LayerItem(Entry("etc", Kind.DIR, 0o700, 1, 2)),
    LayerItem(Entry("usr", Kind.DIR, 0o755)),
]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A root with /etc, /usr and /app, and /bin that leads to /kroot."""
    for name in ("kroot", "etc", "usr", "app", "kpy"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin").symlink_to(tmp_path / "kroot/bin")
    return tmp_path


@pytest.fixture
def layers() -> Layers:
    return Layers()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def snapshotter(top: Path, layers: Layers, ledger: Ledger) -> DirectorySnapshotter:
    return DirectorySnapshotter(Slots(ledger, ["kpy"], Volumes(top / "kpy/volumes.json"), str(top)), layers, protected=["kpy"])


def _shown(items: Sequence[LayerItem]) -> list[str]:
    return [f"{item.entry.kind.value} {item.entry.path} {item.entry.mode:o} {item.entry.uid}" for item in items]


def test_bases_of_both_shapes_one_after_the_other(top: Path, layers: Layers, snapshotter: DirectorySnapshotter) -> None:
    merged, alpine = layers.add(USR_MERGED), layers.add(ALPINE)
    for _ in range(2):
        with snapshotter.prepare((merged,), 1) as active:
            assert active.root == str(top)
            assert os.path.realpath(top / "bin") == str(top / "usr/bin")
            assert os.readlink(top / "bin/sh") == "../lib/sh"
            assert list(snapshotter.changes(active)) == []
        with snapshotter.prepare((alpine,), 1) as active:
            assert os.path.realpath(top / "bin/sh") == str(top / "usr/sh")
            assert os.listdir(top / "usr") == []
            assert list(snapshotter.changes(active)) == []
    assert (top / "kpy").is_dir()


def test_changes_are_those_of_the_image_s_root(top: Path, layers: Layers, snapshotter: DirectorySnapshotter) -> None:
    merged = layers.add(USR_MERGED)
    with snapshotter.prepare((merged,), 1) as active:
        (top / "bin/new").write_text("new")
        (top / "etc/f").write_text("f")
        (top / "usr/bin/sh").unlink()
        items = list(snapshotter.changes(active))
        assert _shown(items) == [
            "d etc 755 0", "f etc/f 644 0", "d usr 755 0", "d usr/bin 755 0", "f usr/bin/new 644 0", "w usr/bin/sh 0 0",
        ]  # fmt: skip
        assert items[2].entry.mtime == 10**18


def test_what_the_image_lacks_is_in_no_layer_until_it_is_made(
    top: Path, layers: Layers, snapshotter: DirectorySnapshotter, ledger: Ledger
) -> None:
    merged = layers.add(USR_MERGED)
    with snapshotter.prepare((merged,), 1) as active:
        assert list(snapshotter.changes(active)) == []
        found = (top / "app").stat()
        assert ledger.records[found.st_dev, found.st_ino].mode == 0
        assert ledger.slots[found.st_dev, found.st_ino] == b""
        ledger.records[found.st_dev, found.st_ino].mode = stat.S_IFDIR | 0o711  # by the emulation's mkdir
        assert _shown(list(snapshotter.changes(active))) == ["d app 711 0"]


def test_a_name_that_is_not_there_is_said_at_once(layers: Layers, snapshotter: DirectorySnapshotter) -> None:
    base = layers.add([*ALPINE, LayerItem(Entry("var", Kind.DIR, 0o755))])
    with pytest.raises(SandboxError, match="the image has /var, which uid") as caught, snapshotter.prepare((base,), 1):
        pass
    assert "mount an emptyDir" in caught.value.hint


def test_without_a_place_for_links_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="kroot cannot be opened") as caught:
        Slots(Ledger(), [], Volumes(tmp_path / "volumes.json"), str(tmp_path))
    assert "emptyDir" in caught.value.hint


def test_a_directory_that_no_layer_says_anything_of(top: Path, layers: Layers, snapshotter: DirectorySnapshotter, ledger: Ledger) -> None:
    """It has the mode that every unpacker gives it, and not the slot's (C15)."""
    (top / "app").chmod(0o777)
    implied = layers.add([LayerItem(Entry("app/file", Kind.FIFO))])
    with snapshotter.prepare((implied,), 1):
        place = (top / "app").stat()
        assert stat.S_IMODE(ledger.records[place.st_dev, place.st_ino].mode) == 0o755


@pytest.mark.parametrize("kind", ["link", "directory"])
def test_what_a_run_put_in_the_place_of_a_name_is_neither_read_nor_in_the_way(
    top: Path, layers: Layers, snapshotter: DirectorySnapshotter, kind: str
) -> None:
    """/kroot is the image's, so a RUN can have /kroot/usr lead to the builder's files."""
    (top / "kpy" / "login").write_text("secret")
    merged, alpine = layers.add(USR_MERGED), layers.add(ALPINE)

    with snapshotter.prepare((merged,), 0) as active:
        for name in ("usr", "etc", "app"):
            (top / "kroot" / name).unlink()
            if kind == "link":
                (top / "kroot" / name).symlink_to(top / "kpy")
            else:
                (top / "kroot" / name / "sub").mkdir(parents=True)
        (top / "etc" / "made").touch()
        changes = _shown(list(snapshotter.changes(active)))
    with snapshotter.prepare((alpine,), 0):
        assert [os.readlink(top / "kroot" / name) for name in ("usr", "etc", "app")] == [str(top / name) for name in ("usr", "etc", "app")]

    assert [line.split()[1] for line in changes] == ["etc", "etc/made"]
    assert os.listdir(top / "kpy") == ["login"]


def _mounted_at_app(top: Path, monkeypatch: pytest.MonkeyPatch) -> Slots:
    monkeypatch.setattr(slots, "mount_points", lambda _: [b"app"])
    return Slots(Ledger(), ["kpy"], Volumes(top / "kpy/volumes.json"), str(top))


def test_a_volume_that_an_earlier_build_used_is_emptied(top: Path, layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    _mounted_at_app(top, monkeypatch)
    (top / "app/left").write_text("by a RUN")

    snapshotter = DirectorySnapshotter(_mounted_at_app(top, monkeypatch), layers, protected=["kpy"])

    with snapshotter.prepare((layers.add(USR_MERGED),), 1):
        assert os.listdir(top / "app") == []


def test_a_volume_is_not_ours_because_an_attribute_says_so(
    top: Path, layers: Layers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has our uid can set it: a RUN can."""
    (top / "app/mine").write_text("mine")
    os.setxattr(top / "app", "user.kpy.root", b"1")

    snapshotter = DirectorySnapshotter(_mounted_at_app(top, monkeypatch), layers, protected=["kpy"])

    with snapshotter.prepare((layers.add(USR_MERGED),), 1):
        assert os.listdir(top / "app") == ["mine"]


def test_a_volume_with_files_is_no_directory_of_an_image(
    top: Path, layers: Layers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who put them there? An earlier build, say: they would be in this one's root."""
    (top / "app/.profile").write_text("evil")
    snapshotter = DirectorySnapshotter(_mounted_at_app(top, monkeypatch), layers, protected=["kpy"])
    base = layers.add([*USR_MERGED, LayerItem(Entry("app", Kind.DIR, 0o755))])

    with pytest.raises(SandboxError, match="/app is a mount that has files already") as caught, snapshotter.prepare((base,), 1):
        pass

    assert "mount an empty volume there for each build" in caught.value.hint
    assert (top / "app/.profile").read_text() == "evil"


def test_an_image_has_no_directory_that_the_builders_logins_are_in(top: Path, layers: Layers) -> None:
    (top / "app/.docker").mkdir()
    place = Slots(Ledger(), ["kpy", "app/.docker"], Volumes(top / "kpy/v"), str(top), private=["/app/.docker/config.json"])
    snapshotter = DirectorySnapshotter(place, layers, protected=["kpy", "app/.docker"])
    base = layers.add([*USR_MERGED, LayerItem(Entry("app", Kind.DIR, 0o755))])

    with pytest.raises(SandboxError, match="the image has /app, and the builder has /app/.docker/config.json there"), snapshotter.prepare((base,), 1):
        pass


def test_another_volume_at_the_same_name_is_not_ours(top: Path, layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    _mounted_at_app(top, monkeypatch)
    (top / "app").rename(top / "kpy/before")
    (top / "app").mkdir()
    (top / "app/mine").write_text("mine")

    snapshotter = DirectorySnapshotter(_mounted_at_app(top, monkeypatch), layers, protected=["kpy"])

    with snapshotter.prepare((layers.add(USR_MERGED),), 1):
        assert os.listdir(top / "app") == ["mine"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"app": 5}'])
def test_half_a_list_of_volumes_is_none(
    top: Path, layers: Layers, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (top / "kpy/volumes.json").write_text(text)
    (top / "app/mine").write_text("mine")

    snapshotter = DirectorySnapshotter(_mounted_at_app(top, monkeypatch), layers, protected=["kpy"])

    with snapshotter.prepare((layers.add(USR_MERGED),), 1):
        assert os.listdir(top / "app") == ["mine"]


def test_a_name_that_a_run_took_is_not_in_the_way(top: Path, layers: Layers, ledger: Ledger) -> None:
    """What cannot be removed stays in a slot: a mount of the container's, say."""
    (top / "etc/.kpy-slot/mounted").mkdir(parents=True)
    place = Slots(ledger, ["kpy"], Volumes(top / "kpy/volumes.json"), str(top))

    assert place.empty({b"etc/.kpy-slot/mounted"}) == []

    assert os.listdir(top / "etc") == [".kpy-slot"]
