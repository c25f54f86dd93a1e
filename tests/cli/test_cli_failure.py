"""What errors look like: golden texts (P15)."""

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
        "100%\n"
        "cc x.c\n"
        "x.c:1: error\n"
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
    assert "line 999" in shown
    assert "line 959" not in shown


def test_control_sequences_are_not_obeyed() -> None:
    hostile = "a\x1b]0;title\x07b\x1b[2Jc\x1bcd\x9b31me\x00f\x08g\th\r\ni\u202ej"
    assert harmless(hostile) == "abcd31mefg\th\ni\u202ej"


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
