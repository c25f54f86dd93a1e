"""The wrappers: errors name call and path; nothing resolves out of a root."""

import errno
import os

import pytest

from kpy.linux import capabilities, libc
from kpy.linux.overlay import is_whiteout
from kpy.linux.probe import attempted, can_chown, can_overlay, in_container, probe


def test_errors_name_call_and_path(tmp_path):
    with pytest.raises(OSError, match="mount: .*'/does/not/exist'"):
        libc.mount(b"none", b"/does/not/exist", b"tmpfs", 0)
    with pytest.raises(FileNotFoundError, match="openat2"):
        libc.open_in_root(os.open(tmp_path, os.O_PATH), b"/x", os.O_RDONLY)


@pytest.mark.parametrize("link", ["/etc", "../../../../../../../etc", "/proc/self/root/etc"])
def test_open_in_root_never_leaves(tmp_path, link):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("inside")
    (tmp_path / "l").symlink_to(link)
    root = os.open(tmp_path, os.O_PATH)
    try:
        with os.fdopen(libc.open_in_root(root, b"/l/passwd", os.O_RDONLY)) as file:
            assert file.read() == "inside"
    except FileNotFoundError:
        assert "proc" in link
    finally:
        os.close(root)


def test_default_capabilities_are_containerds():
    assert f"{capabilities.DEFAULT:016x}" == "00000000a80425fb"  # R09, as docker shows it
    assert capabilities.effective() | capabilities.permitted() == capabilities.permitted()


def test_whiteouts(tmp_path):
    os.mkfifo(tmp_path / "p")
    assert not is_whiteout(os.lstat(tmp_path / "p"))
    assert not is_whiteout(os.lstat("/dev/null"))


def test_attempts_give_the_errno():
    def fails():
        raise OSError(errno.EXDEV, "x")

    assert attempted(fails) == errno.EXDEV
    assert attempted(lambda: None) == 0
    assert attempted(lambda: os._exit(3)) == 3


def test_probe_answers_and_leaves_nothing(tmp_path):
    host = probe(str(tmp_path))
    assert host.uid == os.geteuid()
    assert isinstance(host.overlay, int)
    assert list(tmp_path.iterdir()) == []
    assert can_overlay(str(tmp_path / "missing")) == errno.ENOENT
    assert can_chown(str(tmp_path / "missing")) == errno.ENOENT


def test_containers_are_recognised():
    assert in_container("/nowhere", lambda path: path == "/nowhere/.dockerenv")
    assert not in_container("/nowhere", lambda path: False)
