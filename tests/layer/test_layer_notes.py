"""extract.py with notes: what the disk of an ordinary user cannot hold is told to somebody (EXECUTION B6)."""

import io
import os
import stat

import pytest
from layerkit import item, tar_of

from kpy.errors import ContentError
from kpy.layer.entry import Kind
from kpy.layer.extract import ExtractOptions, extract
from kpy.linux.ledger import Ledger
from kpy.snapshot.recorder import Recorder


class Heard:
    """Notes that are only listened to."""

    def __init__(self):
        self.of = {}

    def permissions(self, mode, *, directory):
        return mode | (0o700 if directory else 0o600)

    def note(self, place, name, entry):
        found = os.stat(name, dir_fd=place, follow_symlinks=False) if name else os.fstat(place)
        self.of[entry.path] = (entry.uid, entry.gid, oct(entry.mode), stat.S_IFMT(found.st_mode))


def _extracted(root, *items, **more):
    heard = Heard()
    extract(io.BytesIO(tar_of(*items)), str(root), options=ExtractOptions(notes=heard, **more))
    return heard.of


def test_owners_modes_and_devices_are_told_and_not_given(tmp_path):
    heard = _extracted(
        tmp_path,
        item("d", Kind.DIR, mode=0o050, uid=1, gid=2),
        item("d/f", content=b"x", mode=0o4000, uid=3, gid=4),
        item("d/l", Kind.SYMLINK, link="f", uid=5, gid=6),
        item("d/null", Kind.CHAR, device=(1, 3), mode=0o666),
        item("d/p", Kind.FIFO, mode=0o111),
    )
    assert heard == {
        "d": (1, 2, "0o50", stat.S_IFDIR),
        "d/f": (3, 4, "0o4000", stat.S_IFREG),
        "d/l": (5, 6, "0o644", stat.S_IFLNK),
        "d/null": (0, 0, "0o666", stat.S_IFREG),
        "d/p": (0, 0, "0o111", stat.S_IFIFO),
    }
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "d/f").stat().st_mode) == 0o4600
    assert (tmp_path / "d/f").stat().st_uid == os.getuid()
    assert stat.S_IMODE((tmp_path / "d/p").stat().st_mode) == 0o711


def test_capabilities_are_not_tried_on_the_disk(tmp_path):
    heard = Heard()
    tar = tar_of(item("f", content=b"x", xattrs={"security.capability": b"\1\0\0\2" + bytes(16)}))
    assert extract(io.BytesIO(tar), str(tmp_path), options=ExtractOptions(notes=heard)).lost == ()
    assert "security.capability" not in os.listxattr(tmp_path / "f")


def test_of_what_the_disk_says_nothing_is_recorded(tmp_path):
    """A record makes each stat of a directory in RUN three times as long, and all that is made in it twice."""
    ledger = Ledger()
    tar = tar_of(
        item("d", Kind.DIR, mode=0o755), item("d/f", content=b"x", mode=0o644), item("d/closed", Kind.DIR, mode=0o500),
        item("d/below", Kind.DIR, mode=0o700), item("d/l", Kind.SYMLINK, link="f"),
    )  # fmt: skip
    extract(io.BytesIO(tar), str(tmp_path), options=ExtractOptions(notes=Recorder(ledger)))
    assert [oct(record.mode) for record in ledger.records.values()] == [oct(stat.S_IFDIR | 0o500)]


@pytest.fixture
def slot(tmp_path):
    """A root whose /etc is elsewhere, for good."""
    (tmp_path / "root").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/old").write_text("old")
    (tmp_path / "root/etc").symlink_to(tmp_path / "etc")
    return {"etc": str(tmp_path / "etc")}


def test_a_slot_is_filled_and_stays(tmp_path, slot):
    inode = (tmp_path / "etc").stat().st_ino
    _extracted(
        tmp_path / "root",
        item("etc", Kind.OPAQUE),
        item("etc", Kind.DIR, mode=0o711),
        item("etc/new", content=b"new"),
        item("l", Kind.SYMLINK, link="/etc"),
        item("l/by-link", content=b"x"),
        slots=slot,
    )
    assert sorted(os.listdir(tmp_path / "etc")) == ["by-link", "new"]
    assert (tmp_path / "etc").stat().st_ino == inode
    assert stat.S_IMODE((tmp_path / "etc").stat().st_mode) == 0o711
    assert (tmp_path / "root/etc").is_symlink()


def test_a_whiteout_empties_a_slot(tmp_path, slot):
    _extracted(tmp_path / "root", item("etc", Kind.WHITEOUT), slots=slot)
    assert os.listdir(tmp_path / "etc") == []
    assert (tmp_path / "root/etc").is_symlink()


@pytest.mark.parametrize(
    "other", [item("etc", content=b"x"), item("etc", Kind.SYMLINK, link="/elsewhere"), item("etc", Kind.FIFO)]
)
def test_nothing_else_can_be_at_a_slot(tmp_path, slot, other):
    with pytest.raises(ContentError, match="/etc, where this root has a directory"):
        _extracted(tmp_path / "root", other, slots=slot)
