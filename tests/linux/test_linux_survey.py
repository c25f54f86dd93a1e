"""What the survey says agrees with what this process can do itself."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from kpy.linux import probe, survey


def did(action) -> int:
    try:
        action()
    except OSError as error:
        return error.errno
    return 0


def test_devices(tmp_path: Path) -> None:
    made = tmp_path / "device"
    assert survey.can_mknod(str(tmp_path)) == did(lambda: os.mknod(made, 0o20666, os.makedev(1, 3)))
    assert [path.name for path in tmp_path.iterdir()] in ([], ["device"])


def test_top_level(tmp_path: Path) -> None:
    assert survey.can_write_top(str(tmp_path)) == 0
    assert survey.can_write_top(str(tmp_path / "nowhere")) == errno.ENOENT
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_is_the_answer(tmp_path: Path) -> None:
    for ask in (survey.can_mknod, survey.can_set_capability):
        assert ask(str(tmp_path / "nowhere")) == errno.ENOENT
    assert survey.can_set_capability(str(tmp_path)) in (0, errno.EPERM, errno.EOPNOTSUPP)
    assert list(tmp_path.iterdir()) == []


def test_the_forks_leave_this_process_as_it_was() -> None:
    children = _children()
    before = (os.getresuid(), survey.status("Seccomp"), survey.status("NoNewPrivs"), os.stat("/proc/self/ns/net").st_ino)
    answers = [survey.can_setuid(), probe.can_supervise(), survey.can_read_memory(), survey.can_make_network()]
    assert all(0 <= answer < 256 for answer in answers)
    assert before == (os.getresuid(), survey.status("Seccomp"), survey.status("NoNewPrivs"), os.stat("/proc/self/ns/net").st_ino)
    assert _children() == children


def _children() -> set[str]:
    """Of this process: zombies, too."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(path.parent.name)
    return found


@pytest.mark.parametrize(
    ("path", "text", "limit"),
    [
        ("sys/fs/cgroup/memory.max", "1073741824\n", 1 << 30),
        ("sys/fs/cgroup/memory.max", "max\n", 0),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n", 0),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4096\n", 4096),
        ("nothing", "", 0),
    ],
)
def test_memory_limits(tmp_path: Path, path: str, text: str, limit: int) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)
    assert survey.memory_limit(str(tmp_path)) == limit


def test_space_of_a_directory_that_is_yet_to_be(tmp_path: Path) -> None:
    assert survey.space(str(tmp_path / "a" / "b"))[0] > 0
