"""The map that spills to disk is a dict with sorted keys, whatever its size and the order that keys come in."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kpy.util.spill import Spill

KEYS = st.text("ab\0\udce9", max_size=4)
STEPS = st.lists(
    st.tuples(st.just("set"), KEYS, st.integers(0, 99)) | st.tuples(st.just("remove"), KEYS, st.just(0)), max_size=60
)


def spill(directory: Path | None, most: int = 4) -> "Spill[int]":
    return Spill(str(directory) if directory else None, lambda value: (value,), lambda _, plain: int(plain[0]), most=most)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, most=st.integers(1, 5))
def test_it_is_a_dict(tmp_path: Path, steps: "list[tuple[str, str, int]]", most: int) -> None:
    model: dict[str, int] = {}
    with spill(tmp_path, most) as tried:
        for what, key, value in steps:
            if what == "set":
                model[key] = value
                tried.set(key, value)
            else:
                model = {name: value for name, value in model.items() if not name.startswith(key)}
                tried.remove_from(key)
            assert tried.get(key) == model.get(key)
        assert list(tried.items()) == sorted(model.items())
        assert list(tried.values()) == [value for _, value in sorted(model.items())]
        for key in ("", "a", "ab", "b\0a", "\udce9"):
            assert tried.get(key) == model.get(key)


@pytest.mark.parametrize("step", [1, 7919])
def test_many_in_order_and_in_disorder(tmp_path: Path, step: int) -> None:
    count = 20_000
    with spill(tmp_path, 100) as tried:
        for number in range(count):
            tried.set(f"{number * step % count:05}", number)
        assert [tried.get(f"{number * step % count:05}") for number in range(0, count, 997)] == list(range(0, count, 997))
        assert tried.get("x") is None
        assert [key for key, _ in tried.items()] == [f"{number:05}" for number in range(count)]
        assert os.listdir(tmp_path) == []


def test_without_a_directory_all_is_in_memory() -> None:
    with spill(None) as tried:
        for number in range(100):
            tried.set(str(number), number)
        assert len(list(tried.items())) == 100


def test_a_full_disk(tmp_path: Path) -> None:
    with spill(tmp_path / "none") as tried, pytest.raises(FileNotFoundError):
        for number in range(4):
            tried.set(str(number), number)
