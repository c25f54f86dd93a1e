"""cachemounts.py: what builds that were killed left beside a cache."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kpy.plan.model import MountOp
from kpy.solver.cachemounts import open_caches
from kpy.solver.values import Services
from tests.solver.building import Builder


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    builder = Builder(tmp_path / "b")
    yield builder.services()
    builder.close()


def _opened(services: Services, sharing: str) -> Path:
    """The cache, with something in it, closed again."""
    item = MountOp("cache", "/c", id="c", sharing=sharing)
    with ExitStack() as stack:
        return Path(open_caches([item], (), services, stack)[item].path)


@pytest.mark.parametrize("sharing", ["shared", "locked", "private"])
def test_leftovers_are_removed_at_the_next_use(services: Services, sharing: str) -> None:
    cache = _opened(services, sharing)
    (cache / "kept").touch()
    left = cache.with_name("data.0123456789abcdef")
    (left / "deep" / "er").mkdir(parents=True)
    (left / "deep").chmod(0)

    assert _opened(services, sharing) == cache

    assert os.listdir(cache.parent) == ["data"]
    assert os.listdir(cache) == ["kept"]


def test_what_another_build_brings_back_stays(services: Services) -> None:
    item = MountOp("cache", "/c", id="c")
    with ExitStack() as stack:
        cache = Path(open_caches([item], (), services, stack)[item].path)
        theirs = cache.with_name("data.0123456789abcdef")
        theirs.mkdir()

        assert _opened(services, "shared") == cache

        assert theirs.is_dir()
