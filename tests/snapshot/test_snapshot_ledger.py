"""scan.py and diff.py with a ledger: a layer has what is said there (EXECUTION B6, D 5). No test is root's."""

import os
import stat
from pathlib import Path

import pytest

from kpy.layer.entry import Entry, Kind, LayerItem
from kpy.linux import libc
from kpy.linux.birth import identify
from kpy.linux.ledger import Ledger, Record
from kpy.snapshot.diff import differences
from kpy.snapshot.recorder import Recorder
from kpy.snapshot.scan import MODE, RDEV, UID, scan


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    (path / "file").write_text("text")
    (path / "file").chmod(0o644)
    return path


def _say(ledger: Ledger, path: Path, mode: int, uid: int = 0, gid: int = 0, **more: object) -> None:
    key, born = identify(libc.AT_FDCWD, os.fsencode(path))
    ledger.records[key] = Record(mode, uid, gid, born=born, **more)  # type: ignore[arg-type]


def _changes(root: Path, ledger: Ledger, change: object, known: Entry | None = None) -> list[LayerItem]:
    before = scan(str(root), ledger=ledger)
    change()  # type: ignore[operator]
    after = scan(str(root), ledger=ledger)
    return list(differences(str(root), before, after, lambda _: known, ledger))


def test_what_nothing_is_said_of_is_root_s(root: Path) -> None:
    index = scan(str(root), ledger=Ledger())
    assert index[b"file"][UID : UID + 2] == (0, 0)
    assert stat.S_IMODE(index[b"file"][MODE]) == 0o644


def test_a_change_of_owner_alone_is_found(root: Path) -> None:
    ledger = Ledger()
    (item,) = _changes(root, ledger, lambda: _say(ledger, root / "file", stat.S_IFREG | 0o400, 7, 8))
    assert (item.entry.path, item.entry.uid, item.entry.gid, item.entry.mode) == ("file", 7, 8, 0o400)
    assert item.open is not None
    with item.open() as file:
        assert file.read() == b"text"


def test_what_was_said_before_is_no_change(root: Path) -> None:
    ledger = Ledger()
    _say(ledger, root / "file", stat.S_IFREG | 0o400, 7, 8)
    assert _changes(root, ledger, lambda: None) == []


def test_a_device_is_one(root: Path) -> None:
    ledger = Ledger()

    def make() -> None:
        (root / "null").touch(0o600)
        _say(ledger, root / "null", stat.S_IFCHR | 0o666, rdev=os.makedev(1, 3))

    (item,) = _changes(root, ledger, make)
    assert (item.entry.kind, item.entry.device, item.entry.mode, item.open) == (Kind.CHAR, (1, 3), 0o666, None)


def test_capabilities_are_in_the_layer(root: Path) -> None:
    ledger = Ledger()

    def give() -> None:
        os.utime(root / "file")  # the emulation moves the ctime
        _say(ledger, root / "file", stat.S_IFREG | 0o644, xattrs={"security.capability": b"c", "trusted.x": b"t"})

    (item,) = _changes(root, ledger, give)
    assert item.entry.xattrs == {"security.capability": b"c"}


def test_of_an_inode_that_was_given_to_another_file_nothing_is_known(root: Path) -> None:
    ledger = Ledger()
    _say(ledger, root / "file", stat.S_IFREG | 0o400, 7, 8)
    ((_, record),) = ledger.records.items()
    if not record.born:
        pytest.fail("this file system keeps no time of birth")
    record.born -= 1

    assert scan(str(root), ledger=ledger)[b"file"][UID] == 0
    assert ledger.records == {}


def test_all_names_of_a_file_are_as_it_is_said(root: Path) -> None:
    ledger = Ledger()
    os.link(root / "file", root / "link")
    _say(ledger, root / "link", stat.S_IFREG | 0o600, 3, 4)
    index = scan(str(root), ledger=ledger)
    assert index[b"file"][UID:RDEV] == index[b"link"][UID:RDEV] == (3, 4)


def test_the_recorder_says_only_what_the_disk_does_not(root: Path) -> None:
    ledger = Ledger()
    recorder = Recorder(ledger)
    place = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for mode, uid, expected in ((0o644, 0, False), (0o444, 0, True), (0o4755, 0, True), (0o644, 1, True)):
            ledger.records.clear()
            recorder.note(place, "file", Entry("file", Kind.FILE, mode, uid))
            assert bool(ledger.records) is expected, (oct(mode), uid)
        recorder.note(place, "", Entry("", Kind.DIR, 0o500))
        recorder.note(place, "", Entry("", Kind.DIR, 0o755))  # a layer above says otherwise
        assert [stat.S_IFMT(record.mode) for record in ledger.records.values()] == [stat.S_IFREG]
    finally:
        os.close(place)
