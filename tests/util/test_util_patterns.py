"""Every regular expression of kpy, on texts made to be hard for it: the time grows with the length, no faster."""

import importlib
import inspect
import itertools
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import kpy

SMALL, LARGE = 4_000, 16_000
MOST = 9  # times; four for what is linear, sixteen for what is not
QUICK = 0.004  # seconds: too little to measure, and to matter
WAYS = ("fullmatch", "match", "search", "sub", "split", "findall", "finditer")


def patterns() -> Iterator[tuple[str, re.Pattern[Any], frozenset[str]]]:
    """By the module and the name that each has there; and how it is used there."""
    for info in pkgutil.walk_packages(kpy.__path__, "kpy."):
        if info.name in ("kpy.__main__", "kpy.sandbox.child", "kpy.sandbox.supervisor"):
            continue
        module = importlib.import_module(info.name)
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                yield f"{info.name}.{name}", value, frozenset(way for way in WAYS if f"{name}.{way}" in source) or frozenset(WAYS)


def alphabet(pattern: str) -> list[str]:
    """Characters that the expression speaks of, and one of each kind that classes stand for."""
    found = dict.fromkeys(char for char in re.sub(r"\\[a-zA-Z]|[()|*+?{}^]", "", pattern) if char.isprintable())
    return [*list(found)[:10], "a", "0", " ", "\t", "\n", "\r", "_", "-", ".", '"', "\x1b", "["]


def texts(pattern: str) -> Iterator[str]:
    """Units to repeat."""
    letters = list(dict.fromkeys(alphabet(pattern)))
    yield from letters
    yield from ("".join(pair) for pair in itertools.permutations(letters[:9], 2))


def seconds(action: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(2):
        start = time.thread_time()
        action()
        best = min(best, time.thread_time() - start)
    return best


def uses(pattern: re.Pattern[Any], ways: frozenset[str], text: Any) -> Iterator[Callable[[], object]]:
    for ending in ("", "!", "\x00"):
        whole = text + (ending if isinstance(text, str) else ending.encode())
        if "fullmatch" in ways:
            yield partial(pattern.fullmatch, whole)
        if "match" in ways:
            yield partial(pattern.match, whole)
        if ways - {"fullmatch", "match"}:
            yield partial(pattern.split, whole)


@pytest.mark.parametrize(("name", "pattern", "ways"), list(patterns()), ids=lambda value: value if isinstance(value, str) else "")
def test_four_times_the_length_takes_four_times_the_time(name: str, pattern: re.Pattern[Any], ways: frozenset[str]) -> None:
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    for unit in texts(source):
        small, large = (unit * (size // len(unit)) for size in (SMALL, LARGE))
        if not isinstance(pattern.pattern, str):
            small, large = small.encode(), large.encode()  # type: ignore[assignment]
        for one, four in zip(uses(pattern, ways, small), uses(pattern, ways, large), strict=True):
            took = seconds(four)
            assert took < QUICK or took < MOST * seconds(one), (unit, four, took)
