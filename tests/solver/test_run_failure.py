"""The error of a RUN that failed (R21)."""

import pytest

from kpy.dockerfile.span import Source, Span
from kpy.plan.model import RunOp, Step
from kpy.solver.run import failure

SOURCE = Source("Dockerfile", ("FROM x", "RUN <<EOF", 'echo "hi"', "EOF"))


def of(*argv: str, status: int) -> tuple[str, str]:
    op = RunOp(argv=argv, env=(), cwd="/", user="")
    error = failure(Step("id", op, (), "[2/2] RUN <<EOF", "", Span(SOURCE, 2, 4)), op, status, "last words")
    assert (error.step, error.status, error.output) == ("[2/2] RUN <<EOF", status, "last words")
    assert (error.file, error.first_line, error.last_line) == ("Dockerfile", 2, 4)
    assert '   3 | >>> echo "hi"' in error.excerpt
    return error.message, error.hint


def test_the_command_is_one_line_quoted_as_buildkit_does() -> None:
    message, hint = of("/bin/sh", "-c", 'echo "hi"\nexit 3', status=3)
    assert message == 'process "/bin/sh -c echo \\"hi\\"\\nexit 3" did not complete successfully: exit code: 3'
    assert hint == ""


def test_a_command_without_end_is_cut() -> None:
    message, _ = of("/bin/sh", "-c", "x" * 100_000, status=1)
    assert len(message) < 1200


@pytest.mark.parametrize(("status", "name"), [(137, "SIGKILL"), (139, "SIGSEGV"), (143, "SIGTERM")])
def test_a_signal_has_a_name(status: int, name: str) -> None:
    _, hint = of("x", status=status)
    assert name in hint
    assert ("memory" in hint) is (name == "SIGKILL")


@pytest.mark.parametrize("status", [1, 126, 127, 128, 255])
def test_other_codes_are_the_programs_own(status: int) -> None:
    assert of("x", status=status)[1] == ""


def test_a_full_disk_is_pointed_at() -> None:
    op = RunOp(argv=("dd",), env=(), cwd="/", user="")
    error = failure(Step("id", op, (), "RUN dd", "", None), op, 1, "dd: error writing 'x': No space left on device\n1+0 out")
    assert error.hint.startswith("a disk is full")
    assert error.excerpt == ""
