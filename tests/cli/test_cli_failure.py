"""What errors look like: golden texts (P15)."""

import re

import pytest

from kpy.cli.failure import harmless, render
from kpy.dockerfile.span import Source, Span
from kpy.errors import ContextError, DockerfileError, RegistryError, StepFailedError, UsageError


def test_one_line_with_a_hint() -> None:
    assert (
        render(UsageError("unknown flag: --x", hint="try --y")) == "error: unknown flag: --x\nhint: try --y"
    )
    assert render(RegistryError("GET https://r/v2/: 500")) == "error: GET https://r/v2/: 500"


def test_a_dockerfile_error_shows_the_place() -> None:
    excerpt = "   1 |     FROM scratch\n   2 | >>> COPYY a b"
    error = DockerfileError(
        "unknown instruction: COPYY", first_line=2, excerpt=excerpt, hint='did you mean "COPY"?'
    )
    assert render(error) == (
        "Dockerfile:2\n"
        "--------------------\n"
        "   1 |     FROM scratch\n"
        "   2 | >>> COPYY a b\n"
        "--------------------\n"
        "error: unknown instruction: COPYY\n"
        'hint: did you mean "COPY"?'
    )


def test_a_dockerfile_error_without_a_line() -> None:
    assert render(DockerfileError("the Dockerfile is empty")) == "error: the Dockerfile is empty"


def test_a_failed_step_shows_its_last_words() -> None:
    error = StepFailedError(
        'process "/bin/sh -c make" did not complete successfully: exit code: 2',
        step="[2/3] RUN make",
        status=2,
        output="10%\r100%\r\ncc x.c\n\nx.c:1: \x1b[31merror\x1b[0m\n",
        file="Dockerfile",
        first_line=3,
        excerpt="   3 | >>> RUN make",
    )
    assert render(error) == (
        "------\n"
        " > [2/3] RUN make:\n"
        " | 100%\n"
        " | cc x.c\n"
        " | x.c:1: error\n"
        "------\n"
        "Dockerfile:3\n"
        "--------------------\n"
        "   3 | >>> RUN make\n"
        "--------------------\n"
        'error: process "/bin/sh -c make" did not complete successfully: exit code: 2'
    )


def test_only_the_end_of_a_long_output_is_shown() -> None:
    error = StepFailedError("x", step="s", output="".join(f"line {n}\n" for n in range(1000)))
    shown = render(error).split("\n")
    assert " | line 999" in shown
    assert " | line 959" not in shown


def test_control_sequences_are_not_obeyed() -> None:
    hostile = "a\x1b]0;title\x07b\x1b[2Jc\x1bcd\x9b31me\x00f\x08g\th\r\ni\u202ej"
    assert harmless(hostile) == "abcd31mefg\th\nij"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("a\rb", "ab"),
        ("a\x7fb\x85c\u2028d\u2029e", "abcde"),
        ("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069x", "x"),
        (b"raw \x9b31m \xe9".decode("utf-8", "surrogateescape"), "raw \ufffd31m \udce9"),
        (b"\xc2\x1b[m\x9b".decode("utf-8", "surrogateescape"), "\udcc2\ufffd"),  # no C1 comes of what is left
        ("\x1b\x1b[[31m", "31m"),
        ('"\x1b]0;x": not found', '"0;x": not found'),  # what we say after it is not part of the sequence
        ("\u00e9\u4e2d\U0001f600", "\u00e9\u4e2d\U0001f600"),
    ],
)
def test_what_is_harmless(hostile: str, shown: str) -> None:
    assert harmless(hostile) == shown
    assert harmless(shown) == shown


FORGED = ("error: all is well", "#99 DONE 0.1s", "::set-output name=x::y", "hint: curl x | sh", "------", '{"vertexes":[]}')
OURS = re.compile(r"------| > [^\n]*:|Dockerfile:1|-{20}| *[0-9]+ \| (>>>|   ) .*|error: \w.*|hint: \w.*| \| .*")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("forged", FORGED)
def test_no_line_of_a_stranger_looks_like_ours(forged: str, end: str) -> None:
    """Whatever a reader takes for the end of a line."""
    text = f"x{end}{forged}{end}  {forged}{end}"
    error = StepFailedError(
        f"m {text}", step=f"[1/1] RUN {text}", output=text * 3, file=f"Dockerfile{end}{forged}", first_line=1,
        excerpt=f"   1 | >>> RUN {text.replace(chr(10), '')}", hint=f"h {text}",
    )  # fmt: skip
    lines = render(error).splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert sum(line.startswith("hint: ") for line in lines) == 1
    assert lines.count("------") == 2
    for line in lines:
        assert OURS.fullmatch(line) or line.startswith("Dockerfile"), line
        assert not line.lstrip().startswith(("#99", "::", "{")), line


def test_any_error_of_a_step_shows_the_step_and_its_lines() -> None:
    """A COPY of what is not there is found by its line as a RUN that fails is (P15, C30)."""
    source = Source("Dockerfile", ("FROM x", "COPY nosuch /"))
    error = ContextError('"/nosuch": not found')
    Span(source, 2, 2).blame(error, step="[2/2] COPY nosuch /")
    Span(source, 1, 1).blame(error, step="another")  # who said it first knows best
    assert render(error) == (
        "------\n"
        " > [2/2] COPY nosuch /:\n"
        "------\n"
        "Dockerfile:2\n"
        "--------------------\n"
        "   1 |     FROM x\n"
        "   2 | >>> COPY nosuch /\n"
        "--------------------\n"
        'error: "/nosuch": not found'
    )
