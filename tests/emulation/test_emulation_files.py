"""files.py, identities.py, memory.py: what is kept, and where."""

import ctypes
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kpy.emulation.credentials import of_user
from kpy.emulation.files import File, Files
from kpy.emulation.identities import Identities
from kpy.emulation.memory import Memory
from kpy.emulation.paths import Place
from kpy.layer.device import PRIVATE_XATTRS
from kpy.linux.ledger import Ledger
from kpy.linux.syscalls import native


class Kept:
    """A ledger and who writes it."""

    def __init__(self) -> None:
        arch = native()
        assert arch is not None
        self.ledger = Ledger()
        self.files = Files(self.ledger, arch)

    def look(self, path: Path) -> File:
        return self.files.look(Place(os.fsencode(path)), follow=False)


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_a_file_is_what_was_said_of_it(kept: Kept, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch(0o644)
    assert (kept.look(path).uid, kept.look(path).gid) == (0, 0)
    before = path.stat().st_ctime_ns
    kept.files.change(kept.look(path), mode=stat.S_IFREG | 0o4050, uid=7, gid=8, xattrs={"security.x": b"1"})
    file = kept.look(path)
    assert (file.mode, file.uid, file.gid) == (stat.S_IFREG | 0o4050, 7, 8)
    assert stat.S_IMODE(path.stat().st_mode) & 0o777 == 0o650
    assert path.stat().st_ctime_ns >= before
    path.rename(tmp_path / "b")
    os.link(tmp_path / "b", tmp_path / "c")
    assert kept.look(tmp_path / "c").uid == 7


def test_attributes_that_are_recorded_have_others_on_disk(kept: Kept, tmp_path: Path) -> None:
    """Whose names are longer: the kernel says how much room all names take."""
    path = tmp_path / "a"
    path.touch(0o444)
    assert not kept.files.has_attributes
    kept.files.change(kept.look(path), xattrs={"security.capability": b"1", "trusted.x": b"2"})
    assert kept.files.has_attributes
    names = os.listxattr(path)
    assert len(names) == 2
    assert all(name.startswith(PRIVATE_XATTRS) for name in names)
    assert sum(map(len, names)) >= len("security.capability") + len("trusted.x")
    kept.files.change(kept.look(path), xattrs={"trusted.x": b"2"})
    assert len(os.listxattr(path)) == 1
    kept.files.change(kept.look(path), xattrs={})
    assert os.listxattr(path) == []


def test_what_the_disk_says_is_not_kept(kept: Kept, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch(0o644)
    kept.files.change(kept.look(path), uid=7)
    assert len(kept.ledger.records) == 1
    kept.files.change(kept.look(path), uid=0)
    assert kept.ledger.records == {}


def test_an_inode_that_was_given_to_another_file(kept: Kept, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    kept.files.change(kept.look(path), uid=7)
    (record,) = kept.ledger.records.values()
    assert record.born, "the file system of the tests must have times of birth"
    record.born -= 1  # as a file born later would differ
    assert kept.look(path).uid == 0
    assert kept.ledger.records == {}


def test_symlinks_and_devices(kept: Kept, tmp_path: Path) -> None:
    link = tmp_path / "l"
    link.symlink_to("nowhere")
    kept.files.change(kept.look(link), uid=7)
    assert (kept.look(link).uid, link.readlink()) == (7, Path("nowhere"))
    device = tmp_path / "n"
    device.touch()
    kept.files.change(kept.look(device), mode=stat.S_IFCHR | 0o600, rdev=os.makedev(1, 3))
    assert (kept.look(device).mode, kept.look(device).rdev) == (stat.S_IFCHR | 0o600, os.makedev(1, 3))


def test_opened_up_for_root(kept: Kept, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch(0o444)
    kept.files.open_up(kept.look(path))
    assert (path.stat().st_mode & 0o777, kept.look(path).mode & 0o777) == (0o644, 0o444)


def test_the_kernel_keeps_who_a_process_is() -> None:
    identities = Identities(of_user(0, 0))
    code = "import os; os.read(0, 1); os.fork(); os.execv('/bin/cat', ['cat'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert identities.of(child.pid) == of_user(0, 0)
        identities.become(child.pid, of_user(33, 44))
        child.stdin.write(b"xy")
        child.stdin.flush()
        child.stdout.read(1)  # by now it is another program, or its child is
        own = [int(pid) for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
        assert {identities.of(pid) for pid in (child.pid, *own)} == {of_user(33, 44)}
        child.stdin.close()
    with pytest.raises(ProcessLookupError):
        Identities(of_user(0, 0)).of(child.pid)


def test_identities_are_bounded() -> None:
    identities = Identities(of_user(0, 0))
    own, seen = os.getpid(), 0
    before = resource.getrlimit(10)
    try:
        with pytest.raises(BlockingIOError):
            for seen in range(1, 100_000):
                identities.become(own, of_user(seen, 0))
        assert seen == 1 << 16
    finally:
        resource.setrlimit(10, before)


def test_memory() -> None:
    memory = Memory(lambda: True)
    text = ctypes.create_string_buffer(b"/some/path\0rest", 64)
    address, own = ctypes.addressof(text), os.getpid()
    assert memory.path(own, address) == b"/some/path"
    memory.write(own, address, b"/other")
    assert text.raw[:10] == b"/otherpath"
    long = ctypes.create_string_buffer(b"x" * 5000)
    with pytest.raises(OSError, match="too long"):
        memory.path(own, ctypes.addressof(long))
    for wild in (0, 8, 1 << 62, (1 << 64) - 1):
        with pytest.raises(OSError, match="Bad address"):
            memory.path(own, wild)
        with pytest.raises(OSError, match="Bad address"):
            memory.write(own, wild, b"x")
    memory.close()
    gone = Memory(lambda: False)
    with pytest.raises(ProcessLookupError):
        gone.path(own, address)
