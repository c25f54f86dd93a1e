"""What the runners of a CI obey must not come from a Dockerfile or a RUN."""

import io
import json
import re
import tomllib
from pathlib import Path

import pytest

from kpy.cli.progress import choose
from kpy.cli.progress_json import JsonProgress
from kpy.cli.runners import listens, unheard, unheard_json
from kpy.cli.terminal import Terminal
from kpy.events import StepFinished, StepLog, StepStarted, Warned

TOP = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("::error::x", ": :error::x"),
        ("a\n \t::error::x\n", "a\n \t: :error::x\n"),
        ("a\r::error::x", "a\r: :error::x"),
        ("\u00a0\u2003\ufeff::error::x", "\u00a0\u2003\ufeff: :error::x"),
        ("a ##[error]x", "a ## [error]x"),
        ("##vso[task.setvariable]x", "## vso[task.setvariable]x"),
        ("####[error]x", "#### [error]x"),
        ("a::b ## [c] #[d] std::io", "a::b ## [c] #[d] std::io"),
    ],
)
def test_commands_are_parted_by_a_blank(said: str, seen: str) -> None:
    assert unheard(said.encode()).decode() == seen
    assert unheard(seen.encode()) == seen.encode()


def test_json_means_the_same() -> None:
    value = {"a": "##[error]x ##vso[y]", "b": ["::error::"]}
    text = unheard_json(json.dumps(value, indent=2))
    assert json.loads(text) == value
    assert not re.search(r"##\w*\[", text)


def test_only_runners_that_obey_are_minded() -> None:
    assert listens({"GITHUB_ACTIONS": "true"})
    assert listens({"TF_BUILD": "True"})
    assert not listens({"CI": "true", "GITHUB_ACTIONS": ""})


@pytest.mark.parametrize("job", [True, False])
def test_output_keeps_its_bytes_where_nobody_obeys(*, job: bool) -> None:
    stream = io.BytesIO()
    terminal = Terminal(io.BytesIO(), io.BytesIO(), stream, {"GITHUB_ACTIONS": "true"} if job else {}, "/")
    with choose("plain", terminal) as progress:
        progress(StepStarted("1", "RUN x"))
        progress(StepLog("1", b"#![a] ##[error]x\n"))
    assert (b"#![a] ##[error]x" in stream.getvalue()) is not job
    terminal.err("##[error]")
    assert stream.getvalue().endswith(b"## [error]\n" if job else b"##[error]\n")


def test_rawjson_is_never_obeyed() -> None:
    stream = io.BytesIO()
    progress = JsonProgress(stream)
    progress(StepStarted("1", "RUN ##[error]x"))
    progress(StepFinished("1", "failed", "##[error]y"))
    progress(Warned("w", "", "Dockerfile", 3, 4))
    text = stream.getvalue().decode()
    assert "##[" not in text
    first, second, third = map(json.loads, text.splitlines())
    assert first["vertexes"][0]["name"] == "RUN ##[error]x"
    assert second["vertexes"][0]["error"] == "##[error]y"
    assert third["warnings"][0]["range"] == [{"start": {"line": 3}, "end": {"line": 4}}]
    assert third["warnings"][0]["sourceInfo"] == {"filename": "Dockerfile"}


def test_the_distribution_has_a_name_of_its_own() -> None:
    """`kpy` on PyPI is somebody else's: no page tells to install it."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    assert project["name"] == "kpy-builder"
    assert project["scripts"] == {"kpy": "kpy.__main__:main"}
    for path in (TOP / "README.md", TOP / "CHANGELOG.md", *(TOP / "kpy").rglob("*.py")):
        assert not re.search(r"pip3? install (?:-\S+ )*kpy(?:-builder)?\b", path.read_text()), path
