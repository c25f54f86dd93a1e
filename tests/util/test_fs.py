"""Whole files, removed trees, locks."""

import os
import threading
import time
from pathlib import Path

import pytest

from kpy.errors import InterruptedBuildError, StoreError
from kpy.util import fs
from kpy.util.cancel import Cancel
from kpy.util.locks import FileLock


def test_write_atomic_replaces_and_leaves_nothing_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "x"
    fs.write_atomic(path, b"one", mode=0o600, durable=True)
    fs.write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    (tmp_path / "dir").mkdir()
    with pytest.raises(OSError):
        fs.write_atomic(tmp_path / "dir", b"three")
    assert sorted(os.listdir(tmp_path)) == ["dir", "x"]


def test_remove_tree_of_a_hostile_depth(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for _ in range(3000):  # deeper than PATH_MAX, and than Python recurses
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    fs.remove_tree(root)
    assert not root.exists()


def test_remove_tree_follows_nothing_and_minds_no_mode(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "f").write_text("x")
    (root / "link").symlink_to(outside)
    (root / "a" / "b").chmod(0)
    (root / "a").chmod(0)
    fs.remove_tree(root)
    assert not root.exists()
    assert (outside / "kept").exists()
    (tmp_path / "l").symlink_to(outside)
    fs.remove_tree(tmp_path / "l")
    assert (outside / "kept").exists()
    fs.remove_tree(tmp_path / "nothing")


def test_error_of_a_full_disk_has_a_hint() -> None:
    with pytest.raises(StoreError, match="cannot write /x: no space left on device") as caught, fs.io_errors("write", "/x"):
        raise OSError(28, "whatever")
    assert "KPY_HOME" in caught.value.hint


def test_shared_locks_share_and_exclusive_ones_exclude(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path, shared=True), FileLock(path, shared=True, timeout=0):
        with pytest.raises(StoreError, match="locked"), FileLock(path, timeout=0.02):
            pass
    with FileLock(path, timeout=0), pytest.raises(StoreError), FileLock(path, shared=True, timeout=0):
        pass


def test_waiting_for_a_lock_can_be_cancelled(tmp_path: Path) -> None:
    with Cancel() as cancel, FileLock(tmp_path / "lock"):
        threading.Timer(0.05, cancel.set).start()
        with pytest.raises(InterruptedBuildError), FileLock(tmp_path / "lock", cancel=cancel):
            pass
        while not cancel.is_set:
            time.sleep(0.01)
        time.sleep(0.02)


def test_transient_locks_still_exclude(tmp_path: Path) -> None:
    inside = 0
    worst = 0

    def work() -> None:
        nonlocal inside, worst
        for _ in range(50):
            with FileLock(tmp_path / "lock", transient=True):
                inside += 1
                worst = max(worst, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == 1
    assert not (tmp_path / "lock").exists()


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot lock"), FileLock(tmp_path / "no" / "lock"):
        pass
