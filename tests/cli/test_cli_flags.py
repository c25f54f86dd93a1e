"""Flags as pflag reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.cli.flags import Flag, Parsed, boolean, parse, usage
from kpy.errors import UsageError

FLAGS = (
    Flag("file", "value", "a file", "f", "FILE"),
    Flag("tag", "list", "a tag", "t", "NAME"),
    Flag("push", "switch", "push it"),
    Flag("quiet", "switch", "say less", "q"),
    Flag("ssh", "refused", "use --secret", takes=True),
    Flag("sbom", "refused", "", takes=True, accepted=("false",)),
    Flag("rm", "refused", "", accepted=("true",)),
)


def read(*argv: str) -> Parsed:
    return parse(FLAGS, argv, "build")


@pytest.mark.parametrize(
    ("argv", "values", "arguments"),
    [
        ((), {}, ()),
        (("--file", "a", "."), {"file": ["a"]}, (".",)),
        (("--file=a=b", "."), {"file": ["a=b"]}, (".",)),
        ((".", "-f", "a"), {"file": ["a"]}, (".",)),
        (("-fa",), {"file": ["a"]}, ()),
        (("-f=a",), {"file": ["a"]}, ()),
        (("-f", "-"), {"file": ["-"]}, ()),
        (("-",), {}, ("-",)),
        (("-t", "a", "--tag=b"), {"tag": ["a", "b"]}, ()),
        (("-qt", "a"), {"quiet": ["true"], "tag": ["a"]}, ()),
        (("-qta",), {"quiet": ["true"], "tag": ["a"]}, ()),
        (("--push", "."), {"push": ["true"]}, (".",)),
        (("--push=true",), {"push": ["true"]}, ()),
        (("--push=0",), {"push": ["false"]}, ()),
        (("-q=false",), {"quiet": ["false"]}, ()),
        (("--push", "--push=false"), {"push": ["false"]}, ()),
        (("--file=",), {"file": [""]}, ()),
        (("--", "--push"), {}, ("--push",)),
        (("--file", "--", "x"), {"file": ["--"]}, ("x",)),
        (("--sbom=false", "--sbom", "false", "--rm", "--rm=true", "x"), {}, ("x",)),
    ],
)
def test_reads(argv: tuple[str, ...], values: dict[str, list[str]], arguments: tuple[str, ...]) -> None:
    assert read(*argv) == Parsed(values, arguments)


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (("--fil", "x"), "unknown flag: --fil", 'did you mean "--file"?'),
        (("--fil=x",), "unknown flag: --fil", 'did you mean "--file"?'),
        (("--zzz",), "unknown flag: --zzz", "`kpy build --help` lists the flags"),
        (("-x",), "unknown flag: -x", "`kpy build --help` lists the flags"),
        (("-qx",), "unknown flag: -x in -qx", "`kpy build --help` lists the flags"),
        (("--file",), "flag --file needs a value", ""),
        (("-f",), "flag -f needs a value", ""),
        (("--push=always",), "invalid value 'always' for --push: it takes true or false", ""),
        (("--push=",), "invalid value '' for --push: it takes true or false", ""),
        (("--ssh", "default"), "--ssh is not supported yet: 'default'", "use --secret"),
        (("--ssh=default",), "--ssh is not supported yet: 'default'", "use --secret"),
        (("--sbom=true",), "--sbom is not supported yet: 'true'", ""),
        (("--rm=false",), "--rm is not supported yet: 'false'", ""),
        (("---push",), "unknown flag: ---push", 'did you mean "--push"?'),
    ],
)
def test_refuses(argv: tuple[str, ...], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*argv)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_the_last_value_wins_and_lists_collect() -> None:
    parsed = read("-f", "a", "-f", "b", "-t", "x", "-t", "y")
    assert (parsed.one("file"), parsed.all("tag"), parsed.one("none", "d"), parsed.on("push")) == (
        "b",
        ("x", "y"),
        "d",
        False,
    )


def test_booleans_are_those_of_strconv() -> None:
    assert [boolean(word, "x") for word in ("1", "t", "T", "TRUE", "True", "true")] == [True] * 6
    assert [boolean(word, "x") for word in ("0", "f", "F", "FALSE", "False", "false")] == [False] * 6


def test_help_shows_what_we_have_only() -> None:
    assert usage(FLAGS) == (
        "  -f, --file FILE  a file\n  -t, --tag NAME   a tag\n      --push       push it\n  -q, --quiet      say less"
    )


@given(st.lists(st.text()))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    try:
        read(*words)
    except UsageError:
        pass
