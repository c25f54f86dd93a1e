"""chroot.py: what can be told without the right to chroot."""

import os
import stat
from pathlib import Path

import pytest

from kpy.errors import SandboxError
from kpy.sandbox.base import Identity, Mount, Process, Sandbox
from kpy.sandbox.chroot import ChrootSandbox
from kpy.util.cancel import Cancel

_: type[Sandbox] = ChrootSandbox


def _run(root: Path, **more: object) -> int:
    process = Process(("/bin/sh",), ("HOME=/",), "/", Identity(os.getuid(), os.getgid()), **more)
    with Cancel() as cancel:
        return ChrootSandbox(str(root.parent / "state")).run(
            process, str(root), (), lambda data: None, cancel
        )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def _try(root: Path) -> None:
    if os.getuid() == 0:
        assert _run(root) == 127  # the root is empty
    else:
        with pytest.raises(SandboxError, match=r"cannot (change the root|put a mount)"):
            _run(root)


def test_dev_is_made_anew_and_never_through_a_symlink(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (root / "dev").symlink_to(tmp_path / "outside")
    (root / "proc").mkdir()
    (root / "proc" / "left").touch()

    _try(root)

    assert os.listdir(tmp_path / "outside") == ["file"]
    assert not (root / "dev").is_symlink()
    assert sorted(os.listdir(root / "dev")) == sorted(
        ["null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "stdout", "stderr", "shm", "pts"]
    )
    assert os.listdir(root / "proc") == []
    if os.getuid() == 0:
        assert stat.S_ISCHR((root / "dev" / "null").stat().st_mode)


def test_files_of_the_network_are_gone_afterwards(root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc" / "resolv.conf").symlink_to("/run/none")

    _try(root)

    assert os.readlink(root / "etc" / "resolv.conf") == "/run/none"
    assert os.listdir(root / "etc") == ["resolv.conf"]
    assert sorted(os.listdir(root)) == ["dev", "etc", "proc", "sys"]


@pytest.mark.parametrize("target", ["/proc/x", "/sys", "/dev"])
def test_nothing_is_mounted_over_the_kernel_s(root: Path, target: str) -> None:
    with pytest.raises(SandboxError, match="nothing can be mounted there"):
        ChrootSandbox(str(root)).check(Process(("true",), ()), [Mount("tmpfs", target)])


def test_never_in_the_machine_s_own_root(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(SandboxError, match="does not run in /"), Cancel() as cancel:
        ChrootSandbox(str(tmp_path)).run(
            Process(("true",), ()), str(tmp_path / "link"), (), lambda data: None, cancel
        )
