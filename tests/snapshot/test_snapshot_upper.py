"""Upper directories as changes, as far as that needs no mount: no marks are here but what files can tell (L01-L05)."""

import io
import os

import pytest

from kpy.layer.entry import Entry, sort_key
from kpy.layer.tarread import read_tar
from kpy.layer.write import write_tar
from kpy.snapshot.upper import changes
from kpy.util import erase

T = 1_600_000_000_000_000_000


@pytest.fixture
def sides(tmp_path):
    for side in ("upper", "lower"):
        (tmp_path / side / "d").mkdir(parents=True)
        write(tmp_path / side / "d/same", "x")
    return tmp_path / "upper", tmp_path / "lower"


def write(path, text, mtime=T):
    path.write_text(text)
    os.utime(path, ns=(mtime, mtime))


def found(upper, lower):
    return [(item.entry.kind.value, item.entry.path, item.entry.link) for item in changes(str(upper), str(lower))]


def test_equal_copies_are_no_change(sides):
    assert found(*sides) == []


def test_content_alone_is_compared(sides):
    write(sides[0] / "d/same", "y")
    assert found(*sides) == [("d", "d", ""), ("f", "d/same", "")]


def test_a_new_name_of_an_old_file_is_a_file(sides):
    upper, lower = sides
    os.link(upper / "d/same", upper / "a")
    assert found(upper, lower) == [("f", "a", "")]


def test_new_names_of_a_new_file_are_links(sides):
    upper, lower = sides
    write(upper / "d/new", "x")
    os.link(upper / "d/new", upper / "z")
    assert found(upper, lower) == [("d", "d", ""), ("f", "d/new", ""), ("h", "z", "d/new")]


def test_link_targets(sides):
    upper, lower = sides
    os.symlink("one", upper / "l")
    os.symlink("two", lower / "l")
    for side in sides:
        os.utime(side / "l", ns=(T, T), follow_symlinks=False)
    assert found(upper, lower) == [("l", "l", "one")]


def test_a_directory_instead_of_a_link_does_not_look_behind_it(sides):
    upper, lower = sides
    os.symlink("d", lower / "e")
    (upper / "e").mkdir()
    write(upper / "e/same", "x")
    assert found(upper, lower) == [("d", "e", ""), ("f", "e/same", "")]


def test_order_is_that_of_layers(sides):
    upper, lower = sides
    for name in ("a.b", "a-b", "b", "é", os.fsdecode(b"\xff"), "z"):
        write(upper / name, "")
    (upper / "a").mkdir()
    write(upper / "a/c", "")
    paths = [path for _, path, _ in found(upper, lower)]
    entries = [Entry(path, None) for path in paths]
    assert paths == [entry.path for entry in sorted(entries, key=sort_key)]


def test_deep_trees(sides):
    upper, lower = sides
    path = upper
    for _ in range(1200):
        path = path / "n"
        os.mkdir(path)
    try:
        assert len(found(upper, lower)) == 1200
    finally:
        erase.remove(str(upper / "n"))  # deeper than pytest can remove


def test_a_path_that_is_longer_than_the_kernel_takes_at_once(sides):
    """As with scan.py: by descriptors, and read back by ours."""
    upper, lower = sides
    for side, text in ((upper, "new"), (lower, "old")):
        nest(side / "d", 5000, text)
    (path,) = [item.entry.path for item in changes(str(upper), str(lower)) if item.entry.kind.value == "f"]
    assert len(path) > 5000
    items = list(changes(str(upper), str(lower)))
    assert [len(item.entry.path) for item in items if item.entry.kind.value == "d"] == [1, *range(202, 5000, 201)]
    with items[-1].open() as stream:
        assert stream.read() == b"new"
    tar = io.BytesIO()
    write_tar(changes(str(upper), str(lower)), tar.write)
    tar.seek(0)
    assert [entry.path for entry, _ in read_tar(tar, layer=True)] == [item.entry.path for item in items]


def nest(top, length, text):
    """A file of this text, so deep that its path below `top` has that many bytes."""
    held = os.open(top, os.O_RDONLY)
    for _ in range(length // 201):
        os.mkdir("n" * 200, dir_fd=held)
        inner = os.open("n" * 200, os.O_RDONLY, dir_fd=held)
        os.close(held)
        held = inner
    name = "f" * 200
    with open(os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=held), "w") as file:
        file.write(text)
    os.utime(name, ns=(T, T), dir_fd=held)
    os.close(held)
