"""Patterns and texts of whoever: the time to match them grows with their length, no faster."""

import contextlib
import re
import time
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.buildcontext.gitcli import is_ssh
from kpy.cli.failure import harmless
from kpy.dockerfile import parser
from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.globs import Glob, PathPattern, _path_tokens, tokens
from kpy.dockerfile.linear import Automaton
from kpy.errors import KpyError
from kpy.oci.reference import Reference
from kpy.registry import challenge

PATTERNS = [
    "**/*a*a*a*a*a*a*b", "*a*a*a*a*a*a*a*b", "**a*a*a*a*a*a**", "a**a**a**a**a**a**b", "**/a/**/a/**/a/**/a/**/b?", "**/**/*?*?*?*b",
    "*a**/b*", "**/[ab]*[ab]*[ab]*[ab]*b", "**/*[^b]*[^b]*[^b]*[^b]*/b", "**/*a*", "*a*b", "**/?*b", "**/*b**", "[^b]**[^b]**[^b]**b*",
]  # fmt: skip
TEXTS: dict[str, Callable[[int], str]] = {
    "one long name": lambda size: "a" * size,
    "many names": lambda size: "a/" * (size // 2),
    "slashes": lambda size: "a" + "/" * (size - 1),
    "two halves": lambda size: "a/" * (size // 4) + "a" * (size // 2),
}


def seconds(action: Callable[[], object]) -> float:
    """CPU time of this thread alone, of the quickest of five."""
    best = float("inf")
    for _ in range(5):
        start = time.thread_time()
        action()
        best = min(best, time.thread_time() - start)
    return best


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_eight_times_the_length_takes_no_sixty_times_the_time(pattern: str, text: str) -> None:
    kinds: list[Glob | PathPattern] = [Glob.parse(pattern), PathPattern.parse(pattern)]
    for kind in kinds:
        short, long = (seconds(partial(kind.matches, TEXTS[text](size))) for size in (2_000, 16_000))
        assert long < 0.005 or long < 30 * short


def test_the_ignore_file_of_the_report() -> None:
    ignore = Ignore.parse(b"**/*a*a*a*a*a*a*b\n!**/*a*a*a*a*a*a*c\n")
    start = time.thread_time()
    for size in (50, 255, 4095):
        assert not ignore.matches("a" * size)
        assert ignore.matches("a" * size + "b")
    assert time.thread_time() - start < 2


EXPRESSIONS: dict[str, tuple[Callable[[str], object], Callable[[int], str]]] = {
    "blanks in a directive": (lambda text: parser.parse(text.encode()), lambda size: f"#syntax=x{' ' * size}y\nFROM a"),
    "at signs in a URL": (is_ssh, lambda size: "a" + "@a" * size),
    "parameters of a challenge": (challenge.parse, lambda size: 'Bearer a="' + "\\" * size),
    "colons in a host": (lambda text: Reference.parse(text), lambda size: "a." * size + "!/b"),
    "escape sequences": (harmless, lambda size: "\x1b[0" + " " * size),
    "apt with options": (lambda text: parser.parse(text.encode()), lambda size: "FROM a\nRUN " + "apt -a " * (size // 7)),
}


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_expressions_that_meet_foreign_text_do_not_go_back(where: str) -> None:
    function, text = EXPRESSIONS[where]

    def once(given: str) -> None:
        with contextlib.suppress(KpyError):
            function(given)

    short, long = (seconds(partial(once, text(size))) for size in (2_000, 16_000))
    assert long < 0.005 or long < 30 * short


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("git@host:a/b", True), ("a@b@host:x", True), ("a@-b@host:x", True), ("@@b:x", True), ("ssh://host/x", True), ("git@host", False),
        ("git@-oProxyCommand=x:y", False), ("-a@host:x", False), ("@host:x", False), ("git@:x", False), ("a b@host:x", False),
        ("a/b@host:x", False), ("https://a@b:1/x", False), (":a@b:", False),
    ],
)  # fmt: skip
def test_urls_of_ssh(url: str, expected: bool) -> None:
    assert is_ssh(url) is expected


def test_a_pattern_of_a_megabyte() -> None:
    start = time.thread_time()
    for pattern in ("*a" * 500_000 + "b", "**/" * 300_000 + "b*", "a**b" * 250_000):
        assert not PathPattern.parse(pattern).matches("a" * 4000)
    assert time.thread_time() - start < 30


@given(st.text(alphabet="aab/**?[]^-\\é", min_size=1, max_size=14), st.text(alphabet="aab/é\n", max_size=14))
def test_an_automaton_and_a_regular_expression_agree(pattern: str, path: str) -> None:
    try:
        parts = _path_tokens(tokens(pattern))
    except FormError:
        return
    wanted = re.fullmatch("".join(parts), path, re.DOTALL) is not None
    assert Automaton(parts).matches(path) == wanted


@given(
    st.lists(st.sampled_from(["**", "*", "**/", "a", "b", "/", "?", "[ab]", "[^a]", "ab"]), min_size=1, max_size=9).map("".join),
    st.text(alphabet="ab/", max_size=12),
)
def test_path_patterns_match_as_the_expression_does(pattern: str, path: str) -> None:
    found = PathPattern.parse(pattern)
    if found._compiled is not None:
        wanted = re.fullmatch("".join(_path_tokens(tokens(pattern))), path, re.DOTALL) is not None
        assert found.matches(path) == wanted
