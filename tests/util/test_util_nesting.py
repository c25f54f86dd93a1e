"""nesting.py: deep trees of a RUN, wherever they are walked."""

import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kpy.linux.beneath import Beneath
from kpy.linux.copytree import copy
from kpy.snapshot.scan import scan
from kpy.snapshot.upper import changes
from kpy.util import erase, fs
from kpy.util.nesting import LONGEST, Paths, TooDeepError

NAME = "n" * 250


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """1,000 directories in each other: with all their paths in memory, 125 MB."""
    top = tmp_path / "deep"
    top.mkdir()
    (tmp_path / "lower").mkdir()
    held = os.open(top, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir(NAME, dir_fd=held)
        inner = os.open(NAME, os.O_RDONLY, dir_fd=held)
        os.close(held)
        held = inner
    os.close(held)
    yield top
    for name in os.listdir(tmp_path):
        erase.remove(str(tmp_path / name))


def _copy(top: Path) -> None:
    place = os.open(top.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        copy((place, b"deep"), (place, b"copied"))
    finally:
        os.close(place)


def _directories(top: Path) -> None:
    with Beneath(str(top)) as tree:
        for _ in tree.directories():
            pass


WALKS: dict[str, Callable[[Path], object]] = {
    "scan": lambda top: scan(str(top)),
    "changes": lambda top: list(changes(str(top), str(top.parent / "lower"))),
    "copy": _copy,
    "directories": _directories,
}


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_what_is_too_deep_is_an_error_and_takes_no_memory(deep: Path, walk: Callable[[Path], object]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TooDeepError) as caught:
            walk(deep)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    text = f"directories are nested too deep: a path has more than {LONGEST - 1} bytes, 'nnnn"
    assert fs.reason(caught.value).startswith(text)
    assert len(fs.reason(caught.value)) < 300


def test_all_paths_together() -> None:
    paths = Paths(together=1 << 20)
    with pytest.raises(TooDeepError, match="too many files: their paths have more than 1 MiB, up to 'd/100041xxx"):
        for number in range(10**6):
            paths.add(b"d/%05d" % (99_000 + number) + b"x" * 1000)


def test_what_a_layer_can_be_read_with_is_no_error() -> None:
    from kpy.layer.tarread import DEFAULT_LIMITS

    assert DEFAULT_LIMITS.path_bytes == LONGEST
    assert Paths().add(b"x" * (LONGEST - 1))
