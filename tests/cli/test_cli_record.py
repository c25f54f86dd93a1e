"""--progress-file: what was reported, and the error, for a program."""

import io
import json
from pathlib import Path

import pytest

from kpy.app.options import BuildOptions, Environment
from kpy.cli.build import run
from kpy.cli.terminal import Terminal
from kpy.errors import DockerfileError, UsageError
from kpy.events import Reporter, StepStarted
from kpy.oci.digest import Digest
from kpy.util.cancel import Cancel


class Fails:
    """A build that reports a step, and ends."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.seen = BuildOptions(".")

    def __call__(self, options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel) -> "Fails":
        self.seen = options
        report(StepStarted("1", "[1/1] RUN x"))
        raise self.error

    digest: Digest | None = None


def terminal(directory: Path) -> Terminal:
    return Terminal(io.BytesIO(), io.BytesIO(), io.BytesIO(), {}, str(directory))


def test_events_and_the_error_are_written_down(tmp_path: Path) -> None:
    build = Fails(DockerfileError("unknown instruction: RUNN", first_line=3, last_line=4, hint="did you mean RUN?"))
    shown = terminal(tmp_path)
    with pytest.raises(DockerfileError):
        run(["--progress=plain", "--progress-file=p.json", "."], shown, build)
    first, last = map(json.loads, (tmp_path / "p.json").read_text().splitlines())
    assert first["vertexes"][0]["name"] == "[1/1] RUN x"
    assert last["error"] == {
        "message": "unknown instruction: RUNN", "hint": "did you mean RUN?", "code": 3, "step": "", "file": "Dockerfile", "line": 3, "endLine": 4,
    }  # fmt: skip
    assert b"[1/1] RUN x" in shown.stderr.getvalue()  # type: ignore[attr-defined]
    assert build.seen.progress_file == "p.json"  # what a live root must keep


def test_a_file_that_cannot_be_written_is_an_error_before_the_build(tmp_path: Path) -> None:
    build = Fails(AssertionError("not asked"))
    with pytest.raises(UsageError, match="cannot write --progress-file no/p.json: no such file or directory"):
        run(["--progress-file=no/p.json", "."], terminal(tmp_path), build)
