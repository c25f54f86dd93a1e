"""Stubs of mounts: made inside the root only, gone without a trace (R07)."""

import os

import pytest

from kpy.sandbox.stubs import open_target, remove


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "root"
    (path / "etc").mkdir(parents=True)
    for directory in (path / "etc", path):
        os.utime(directory, ns=(10**18, 10**18))
    return path


def make(root, *targets, directory=True):
    made = []
    descriptor = os.open(root, os.O_PATH)
    for target in targets:
        os.close(open_target(descriptor, target.encode(), directory=directory, made=made))
    os.close(descriptor)
    return made


def clean(root, made):
    descriptor = os.open(root, os.O_RDONLY)
    remove(descriptor, made)
    os.close(descriptor)


def test_made_and_removed_with_the_times_of_parents(root):
    made = make(root, "/etc/a/b/c", "/etc/a/d", "/x//./y/") + make(root, "/etc/file", directory=False)
    assert (root / "etc/a/b/c").is_dir()
    assert (root / "etc/file").is_file()
    clean(root, made)
    assert sorted(os.listdir(root)) == ["etc"]
    assert os.listdir(root / "etc") == []
    assert os.stat(root).st_mtime_ns == os.stat(root / "etc").st_mtime_ns == 10**18


def test_what_is_there_is_no_stub(root):
    assert make(root, "/etc", "/") == []


def test_what_was_put_into_a_stub_stays(root):
    made = make(root, "/new/in/it") + make(root, "/new/file", directory=False)
    (root / "new/other").write_text("x")
    os.utime(root / "new", ns=(5, 5))
    (root / "new/file").write_text("content")
    clean(root, made)
    assert sorted(os.listdir(root / "new")) == ["file", "other"]
    assert os.stat(root / "new").st_mtime_ns == 5


def test_a_stub_that_became_something_else(root):
    made = make(root, "/a/b", "/c") + make(root, "/d", directory=False)
    os.rmdir(root / "a/b")
    os.symlink("/etc", root / "a/b")
    os.rmdir(root / "c")
    os.unlink(root / "d")
    os.mkdir(root / "d")
    clean(root, made)
    assert os.readlink(root / "a/b") == "/etc"
    assert not (root / "c").exists()


@pytest.mark.parametrize("link", ["/var/deep", "var/deep", "../../var/deep", "/l2"])
def test_dangling_links_are_followed_inside(root, link):
    os.symlink(link, root / "l")
    os.symlink("var/deep", root / "l2")
    made = make(root, "/l/x")
    assert (root / "var/deep/x").is_dir()
    assert not (root.parent / "var").exists()
    clean(root, made)
    assert sorted(os.listdir(root)) == ["etc", "l", "l2"]


def test_loops_and_files_in_the_way_are_errors(root):
    os.symlink("loop", root / "loop")
    (root / "file").write_text("")
    with pytest.raises(OSError, match="symbolic"):
        make(root, "/loop/x")
    with pytest.raises(NotADirectoryError):
        make(root, "/file/x")
