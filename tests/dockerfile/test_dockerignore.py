"""Ignore files (G03-G06)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.forms import FormError
from kpy.errors import DockerfileError


def excluded(data: bytes, *paths: str) -> list[str]:
    ignore = Ignore.parse(data)
    return [path for path in paths if ignore.matches(path)]


def test_syntax() -> None:
    data = b"\xef\xbb\xbf# comment\r\n\n/a\nb/\n  d  \n./e\ng/../c\n #f\n?.txt\n! k.txt\n"
    paths = ["a", "b/x", "d", "e/y/z", "c", "g", "#f", "j.txt", "k.txt", "x/a"]
    assert excluded(data, *paths) == ["a", "b/x", "d", "e/y/z", "c", "#f", "j.txt"]  # G03, G06


def test_last_match_wins_and_parents_count() -> None:
    assert excluded(b"*\n!src\nsrc/*.o", "README", "src", "src/a.c", "src/a.o", "src/d/a.o") == ["README", "src/a.o"]  # G04
    assert excluded(b"*.md\n!README*.md\nREADME-secret.md", "x.md", "README.md", "README-secret.md") == [
        "x.md",
        "README-secret.md",
    ]
    assert excluded(b"!a\na", "a", "a/b") == ["a", "a/b"]


def test_exception_below_an_excluded_directory() -> None:
    ignore = Ignore.parse(b"a\n!a/b/keep\n!**/x.txt")
    assert ignore.matches("a")
    assert not ignore.matches("a/b/keep/file")
    assert ignore.matches("a/b/other")
    assert ignore.may_include_below("a")
    assert Ignore.parse(b"a\nc\n!a/b/keep\n!d*/x").may_include_below("a/b")
    assert not Ignore.parse(b"a\nc\n!a/b/keep\n!d*/x").may_include_below("c")
    assert Ignore.parse(b"*\n!d*/x").may_include_below("dir")
    assert not Ignore.parse(b"*").may_include_below("dir")


def test_the_decisive_pattern() -> None:
    """G10: the line to look at when something is in the context, or is not."""
    ignore = Ignore.parse(b"# all\n*\n!src\n\nsrc/*.o\n!src\n", "x.dockerignore")
    found = {path: ignore.decisive(path) for path in ("a", "a/b", "src", "src/a.c", "src/a.o", "src/d/e")}
    assert {path: (rule.line, rule.text) for path, rule in found.items() if rule} == {
        "a": (2, "*"), "a/b": (2, "*"), "src": (3, "!src"), "src/a.c": (3, "!src"), "src/a.o": (5, "src/*.o"),
        "src/d/e": (3, "!src"),
    }  # fmt: skip
    assert ignore.name == "x.dockerignore"
    assert Ignore.parse(b"!a\nb").decisive("a") is None


@given(
    st.lists(st.sampled_from(["a", "!a", "a/b", "!a/b", "*", "!*", "**/c", "!**/c", "*/b", "!a/*", "b*"]), max_size=5),
    st.sampled_from(["a", "b", "c", "a/b", "a/c", "b/b", "a/b/c", "b/a/c"]),
)
def test_the_decisive_pattern_is_what_the_answer_follows(patterns: list[str], path: str) -> None:
    ignore = Ignore.parse("\n".join(patterns).encode())
    rule = ignore.decisive(path)
    assert ignore.matches(path) is (rule is not None and not rule.keep)


def test_walk_gives_what_matches_gives() -> None:
    ignore = Ignore.parse(b"a\n!a/b\na/b/*.o\n**/tmp\n!x/tmp/keep")
    for path in ("a/q", "a/b/x.c", "a/b/x.o", "x/tmp/keep", "x/tmp/no", "y/tmp/z"):
        state, answer, parts = (), False, path.split("/")
        for end in range(1, len(parts) + 1):
            answer, state = ignore.excluded("/".join(parts[:end]), state)
        assert answer is ignore.matches(path), path


@pytest.mark.parametrize(("data", "line"), [(b"a\n\n!\n", 3), (b"x\n[", 2), (b"!  ", 1), (b"a\\", 1)])
def test_errors_name_file_and_line(data: bytes, line: int) -> None:
    with pytest.raises(DockerfileError, match="illegal exclusion pattern|invalid pattern") as caught:
        Ignore.parse(data, "x.dockerignore")
    assert (caught.value.file, caught.value.first_line) == ("x.dockerignore", line)
    assert ">>>" in caught.value.excerpt


def test_exclude_patterns_of_copy() -> None:
    ignore = Ignore.of(["*.md", "!keep.md", " "])
    assert ignore.matches("a.md")
    assert not ignore.matches("keep.md")
    with pytest.raises(FormError):
        Ignore.of(["["])


def test_limits_and_odd_bytes() -> None:
    with pytest.raises(DockerfileError, match="larger"):
        Ignore.parse(b"a\n" * (3 << 20))
    name = b"caf\xe9".decode("utf-8", "surrogateescape")  # as os.listdir gives it
    assert Ignore.parse(b"caf\xe9").matches(name)
    assert not Ignore.parse(b"").matches("a")
