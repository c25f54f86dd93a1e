"""Digests of the files of a context: remembered by what the disk says of them, for the next build (C33)."""

import hashlib
import os
from pathlib import Path

import pytest

from kpy.buildcontext.directory import DirectoryContext
from kpy.layer.entry import Entry
from kpy.solver.hashing import RACY, ContentHashes

LATER = 1 << 62  # a build long after the files were written


class Watched(DirectoryContext):
    """A context that tells what was read."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.read: list[str] = []

    def open(self, entry: Entry, /) -> "object":  # type: ignore[override]
        self.read.append(entry.path)
        return super().open(entry)


def build(root: Path, place: Path, *names: str, now: int = LATER) -> "tuple[list[str], list[str]]":
    """The digests of some files, and which were read for that."""
    hashes, context = ContentHashes(place, now, str(root.parent)), Watched(str(root))
    entries = [context.lookup(name) for name in names]
    digests = [hashes.sha256(context, entry) for entry in entries if entry is not None]
    hashes.save()
    return digests, context.read


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    root.mkdir()
    for number in range(1000):
        (root / f"f{number}").write_bytes(b"content %d" % number)
    return root


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_c33_a_file_is_read_once(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "hashes" / "x"
    names = [f"f{number}" for number in range(1000)]
    digests, read = build(root, place, *names)
    assert digests == [sha256(b"content %d" % number) for number in range(1000)]
    assert read == names
    assert build(root, place, *names) == (digests, [])
    assert build(root, place, *reversed(names)) == (digests[::-1], [])


def test_c33_what_changed_is_read_again(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "hashes" / "x"
    build(root, place, "f1", "f2")
    found = (root / "f1").stat()
    (root / "f1").write_bytes(b"CONTENT 1")
    os.utime(root / "f1", ns=(found.st_atime_ns, found.st_mtime_ns))  # size and mtime as before
    assert build(root, place, "f1", "f2") == ([sha256(b"CONTENT 1"), sha256(b"content 2")], ["f1"])
    assert build(root, place, "f1", "f2")[1] == []


def test_only_what_the_build_used_stays(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "hashes" / "x"
    build(root, place, "f1", "f2")
    build(root, place, "f2", "f3")
    assert build(root, place, "f1", "f2", "f3")[1] == ["f1"]


def test_c33_a_file_that_was_just_written_is_not_remembered(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "hashes" / "x"
    written = (root / "f1").stat().st_ctime_ns
    build(root, place, "f1", now=written + RACY)
    assert build(root, place, "f1", now=written + RACY)[1] == ["f1"]
    assert not place.exists()


@pytest.mark.parametrize("data", [b"", b"{}", b"kpyhash\x01", b"kpyhash\x01\0\0\0\x02" + bytes(12) + b"x", b"kpyhash\x01" + b"\xff" * 40])
def test_a_broken_file_is_none(root: Path, tmp_path: Path, data: bytes) -> None:
    place = tmp_path / "hashes" / "x"
    place.parent.mkdir()
    place.write_bytes(data)
    assert build(root, place, "f1") == ([sha256(b"content 1")], ["f1"])
    assert build(root, place, "f1")[1] == []


def test_a_store_does_not_remember_all_contexts_for_ever(root: Path, tmp_path: Path) -> None:
    for number in range(40):
        build(root, tmp_path / "hashes" / str(number), "f1")
    assert len(list((tmp_path / "hashes").iterdir())) == 32
    assert build(root, tmp_path / "hashes" / "39", "f1")[1] == []
