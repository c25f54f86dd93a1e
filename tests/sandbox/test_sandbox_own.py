"""What a container lends to RUNs comes back as it was (R06, R08)."""

import os
from pathlib import Path

import pytest

from kpy.errors import SandboxError
from kpy.sandbox import own
from kpy.sandbox.base import Process


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root whose files are mounts, as far as the table of mounts says."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "dev" / "shm").mkdir(parents=True)
    for name in own.FILES:
        (tmp_path / name).write_text("the container's\n")
    (tmp_path / own.SHM / "before").write_text("x")
    points = [b"proc", *(os.fsencode(name) for name in (*own.FILES, own.SHM))]
    monkeypatch.setattr(own, "mount_points", lambda root: points)
    return tmp_path


def test_what_a_run_changed_is_as_it_was(root: Path) -> None:
    inode = (root / "etc/hosts").stat().st_ino
    with own.lent(str(root)):
        with open(root / "etc/hosts", "a") as file:
            file.write("10.0.0.1 mine\n")
        (root / "etc/resolv.conf").write_text("")
        (root / own.SHM / "left").mkdir()
        (root / own.SHM / "left" / "file").write_text("x")
        (root / own.SHM / "link").symlink_to(root / "etc")
    assert [(root / name).read_text() for name in own.FILES] == ["the container's\n"] * 3
    assert (root / "etc/hosts").stat().st_ino == inode
    assert os.listdir(root / own.SHM) == ["before"]


def test_it_comes_back_after_an_error(root: Path) -> None:
    with pytest.raises(RuntimeError), own.lent(str(root)):
        (root / "etc/hosts").write_text("mine")
        raise RuntimeError
    assert (root / "etc/hosts").read_text() == "the container's\n"


def test_files_that_are_no_mounts_are_the_image_s(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "mount_points", lambda root: [])
    with own.lent(str(root)):
        (root / "etc/hosts").write_text("mine")
        (root / own.SHM / "left").write_text("x")
    assert (root / "etc/hosts").read_text() == "mine"
    assert sorted(os.listdir(root / own.SHM)) == ["before", "left"]


def test_a_link_in_the_place_of_a_file_is_not_followed(root: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep")
    (root / "etc/hosts").unlink()
    (root / "etc/hosts").symlink_to(victim)
    with own.lent(str(root)):
        victim.write_text("changed")
    assert victim.read_text() == "changed"


def test_what_only_namespaces_could_give_is_refused(tmp_path: Path) -> None:
    own.check_lent(Process(("true",), ()))
    own.check_lent(Process(("true",), (), hostname=os.uname().nodename))
    own.check_lent(Process(("true",), (), shm_size=4096), shm=str(tmp_path))
    own.check_lent(Process(("true",), (), shm_size=1 << 60), shm=str(tmp_path / "nowhere"))
    with pytest.raises(SandboxError, match="BUILDKIT_SANDBOX_HOSTNAME=mine"):
        own.check_lent(Process(("true",), (), hostname="mine"))
    with pytest.raises(SandboxError, match="--shm-size=1152921504606846976: /dev/shm of this container has"):
        own.check_lent(Process(("true",), (), shm_size=1 << 60), shm=str(tmp_path))
