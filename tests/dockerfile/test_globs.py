"""Patterns of Go's filepath.Match (C04) and of moby/patternmatcher (G05)."""

import pytest

from kpy.dockerfile.forms import FormError
from kpy.dockerfile.globs import Glob, PathPattern, match


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("abc", "abc", True), ("*", "abc", True), ("*c", "abc", True), ("a*", "a", True), ("a*", "ab/c", False),
        ("a*/b", "abc/b", True), ("a*/b", "a/c/b", False), ("a*b*c*d*e*/f", "axbxcxdxe/f", True),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False), ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("a*b?c*x", "abxbbxdbxebxczzy", False), ("ab[c]", "abc", True), ("ab[b-d]", "abc", True), ("ab[^c]", "abc", False),
        ("ab[^e-g]", "abc", True), ("a\\*b", "a*b", True), ("a\\*b", "ab", False), ("a?b", "a☺b", True),
        ("a[^a]b", "a☺b", True), ("a???b", "a☺b", False), ("[a-ζ]*", "α", True), ("*[a-ζ]", "A", False), ("a?b", "a/b", False),
        ("[\\]a]", "]", True), ("[\\-]", "-", True), ("[x\\-]", "z", False), ("[\\-x]", "x", True), ("*x", "xxx", True),
        ("[z-a]", "b", False), ("", "", True), ("", "a", False), ("**", "ab", True), ("[a.]x", ".x", True), ("a.c", "abc", False),
    ],
)  # fmt: skip
def test_match(pattern: str, name: str, expected: bool) -> None:
    assert match(pattern, name) is expected


@pytest.mark.parametrize("pattern", ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\", "[a-]"])
def test_bad_patterns(pattern: str) -> None:
    with pytest.raises(FormError, match="invalid pattern"):
        Glob.parse(pattern)
    with pytest.raises(FormError, match="invalid pattern"):
        PathPattern.parse(pattern)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("**", "a/b", True), ("**/", "a", False), ("**/a", "a", True), ("**/a", "x/y/a", True), ("**/a", "xa", False),
        ("**a", "xa", True), ("a/**", "a/b/c", True), ("a/**", "a", False), ("a**", "ab/c", True),
        ("**/*.go", "x.go", True), ("**/*.go", "a/b/x.go", True), ("*.go", "a/x.go", False), ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True), ("a/**/b", "a/xb", False), ("**/foo.txt", "a/fooxtxt", False), ("?.txt", "/.txt", False),
        ("a\\*b", "a*b", True), ("a\\*b/**", "a*b/c", True), ("[a-c]/x", "b/x", True), ("a**b", "a/x/b", True), ("a**b", "axb", False),
        ("**/**/**/x", "a/x", True), ("file.txt", "file.txt", True), ("a+b(c)", "a+b(c)", True), ("**foo*", "barfoox", False),
    ],
)  # fmt: skip
def test_path_patterns(pattern: str, path: str, expected: bool) -> None:
    assert PathPattern.parse(pattern).matches(path) is expected


def test_stars_take_no_exponential_time() -> None:
    assert not match("*a" * 40 + "b", "a" * 5000)
    assert not PathPattern.parse("**/" * 40 + "b*").matches("a/" * 2000 + "c")
