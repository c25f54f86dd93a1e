"""`--check` and `--call`: flags, texts, JSON, exit codes. The looking is faked, or done for a file that needs no image."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kpy.app.options import Call
from kpy.cli import build
from kpy.cli.check import check_json, check_text, outline_text, targets_text
from kpy.cli.options import read
from kpy.cli.terminal import Terminal
from kpy.dockerfile.parser import parse
from kpy.errors import DockerfileError, UsageError
from kpy.plan.model import PlanOptions
from kpy.plan.outline import outline, targets

BAD = "FROM scratch AS Base\n# NAME of the thing\nARG NAME=x\nCOPY . /$NAMED\ncmd echo\n"


def out(terminal: Terminal) -> str:
    return terminal.stdout.getvalue().decode()  # type: ignore[attr-defined]


@pytest.fixture
def run(make_terminal: Callable[..., Terminal], tmp_path: Path) -> Callable[..., tuple[int, str]]:
    def running(text: str, *argv: str) -> tuple[int, str]:
        (tmp_path / "Dockerfile").write_text(text)
        terminal = make_terminal(variables={"KPY_HOME": str(tmp_path / "home")})
        return build.run([*argv, "."], terminal), out(terminal)

    return running


# --- flags


@pytest.mark.parametrize(
    ("argv", "call"),
    [
        ([], Call()),
        (["--check"], Call("check")),
        (["--check=false"], Call()),
        (["--call=check"], Call("check")),
        (["--call", "lint"], Call("check")),
        (["--call=build"], Call()),
        (["--call=Outline,format=json"], Call("outline", json=True)),
        (["--call=targets,format=text"], Call("targets")),
        (["--check", "--call=check,format=json,ignorestatus=true"], Call("check", json=True, ignore_status=True)),
    ],
)
def test_flags(terminal: Terminal, argv: list[str], call: Call) -> None:
    assert read([*argv, "."], terminal)[0].call == call


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--call=describe"], "invalid value 'describe' for --call"),
        (["--call=check,format=xml"], "invalid setting 'format=xml' of --call"),
        (["--call=check,x"], "invalid setting 'x' of --call"),
        (["--call=check,ignorestatus=maybe"], "invalid value 'maybe'"),
        (["--check", "--call=outline"], "ask for different things"),
    ],
)
def test_refusals(terminal: Terminal, argv: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read([*argv, "."], terminal)


# --- check


def test_findings_are_shown_with_their_lines_and_change_the_exit_code(run: Callable[..., tuple[int, str]]) -> None:
    code, text = run(BAD, "--check")
    assert code == 1
    head, first, *_ = text.split("\n\n")
    assert head == "Check complete, 4 warnings have been found!"
    assert first == (
        "WARNING: StageNameCasing - kpy explain StageNameCasing\n"
        'the stage name "Base" should be lower case\n'
        "Dockerfile:1\n"
        "--------------------\n"
        "   1 | >>> FROM scratch AS Base\n"
        "   2 |     # NAME of the thing\n"
        "   3 |     ARG NAME=x\n"
        "--------------------"
    )
    rules = [line.split()[1] for line in text.splitlines() if line.startswith("WARNING: ")]
    assert rules == ["StageNameCasing", "UndefinedVar", "ConsistentInstructionCasing", "JSONArgsRecommended"]


def test_nothing_found(run: Callable[..., tuple[int, str]]) -> None:
    assert run("FROM scratch\nCOPY . /\n", "--check") == (0, "Check complete, no warnings found.\n")


def test_one_is_no_plural(run: Callable[..., tuple[int, str]]) -> None:
    assert run("FROM scratch\nCMD x\n", "--check")[1].startswith("Check complete, 1 warning has been found!\n")


def test_the_exit_code_can_be_left_alone(run: Callable[..., tuple[int, str]]) -> None:
    assert run(BAD, "--call=check,ignorestatus=true")[0] == 0


def test_json_is_buildxs(run: Callable[..., tuple[int, str]]) -> None:
    code, text = run("# check=skip=StageNameCasing,UndefinedVar\n" + BAD, "--call=check,format=json")
    document = json.loads(text)
    assert code == 1
    lines = {"ranges": [{"start": {"line": 6}, "end": {"line": 6}}]}
    assert document["warnings"] == [
        {
            "ruleName": "ConsistentInstructionCasing",
            "description": "all instructions should be in the same case, upper or lower",
            "url": "kpy explain ConsistentInstructionCasing",
            "detail": "cmd should be upper case as most instructions are",
            "location": lines,
        },
        {
            "ruleName": "JSONArgsRecommended",
            "description": "CMD and ENTRYPOINT should be in JSON form, so that signals reach the program and not a shell",
            "url": "kpy explain JSONArgsRecommended",
            "detail": "cmd is in shell form: a shell runs it, and does not pass signals on",
            "location": lines,
        },
    ]
    (source,) = document["sources"]
    assert (source["filename"], source["language"]) == ("Dockerfile", "Dockerfile")
    assert base64.b64decode(source["data"]).decode().endswith(BAD)
    assert "buildError" not in document


def test_an_error_comes_after_what_was_found(make_terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch AS X\nVOLUME $none\nCMD x\n")
    for flag in ("--check", "--call=check,format=json"):
        terminal = make_terminal(variables={"KPY_HOME": str(tmp_path / "home")})
        with pytest.raises(DockerfileError, match="VOLUME specified can not be an empty string"):
            build.run([flag, "."], terminal)
        assert "StageNameCasing" in out(terminal)
        assert "UndefinedVar" in out(terminal)
    assert json.loads(out(terminal))["buildError"] == {
        "message": "VOLUME specified can not be an empty string",
        "location": {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]},
    }


def test_what_cannot_be_parsed_is_an_error_too(make_terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nRNU x\n")
    terminal = make_terminal(variables={"KPY_HOME": str(tmp_path / "home")})
    with pytest.raises(DockerfileError, match="unknown instruction: RNU"):
        build.run(["--call=check,format=json", "."], terminal)
    document = json.loads(out(terminal))
    assert document["buildError"]["location"] == {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]}
    assert document["sources"][0]["filename"] == "Dockerfile"
    terminal = make_terminal(variables={"KPY_HOME": str(tmp_path / "home")})
    with pytest.raises(DockerfileError):
        build.run(["--check", "."], terminal)
    assert out(terminal) == ""


def test_stages_that_are_not_needed_are_checked_unless_a_target_is_named(run: Callable[..., tuple[int, str]]) -> None:
    text = "FROM scratch AS a\nCMD x\nFROM scratch AS b\n"
    assert run(text, "--check")[0] == 1
    assert run(text, "--check", "--target=b")[0] == 0


def test_ignored_files_are_seen(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("docs\n")
    assert 'COPY of "docs"' in run("FROM scratch\nCOPY docs /\n", "--check")[1]


def test_the_build_argument_overrides_the_directive(run: Callable[..., tuple[int, str]]) -> None:
    given = "--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=all"
    assert run(BAD, "--check", given) == (0, "Check complete, no warnings found.\n")
    with pytest.raises(UsageError, match="--build-arg BUILDKIT_DOCKERFILE_CHECK: invalid check option 'x'"):
        run(BAD, "--check", "--build-arg=BUILDKIT_DOCKERFILE_CHECK=x")


def test_a_bad_directive_is_an_error(run: Callable[..., tuple[int, str]]) -> None:
    with pytest.raises(DockerfileError, match="invalid check option 'nonsense'"):
        run("# check=nonsense\nFROM scratch\n", "--check")


def test_excerpts_of_strangers_do_not_reach_the_terminal() -> None:
    from kpy.app.check import Checked
    from kpy.dockerfile.lint.text import check_file

    dockerfile = parse(b"FROM a AS X\nLABEL a=\x1b[31m\n")
    text = check_text(Checked(tuple(check_file(dockerfile)), dockerfile.source))
    assert "\x1b" not in text
    assert json.loads(check_json(Checked((), dockerfile.source)))["warnings"] == []


# --- outline and targets

OFFERS = (
    "# TAG of the base image\nARG TAG=1\n# build compiles\nFROM scratch:$TAG AS build\nRUN --mount=type=secret,id=key,required --mount=type=ssh x\n"
    "FROM scratch\n# app is what ships\nFROM build AS app\nARG N\n"
)


def test_outline(run: Callable[..., tuple[int, str]]) -> None:
    expected = (
        "TARGET:      app\n"
        "DESCRIPTION: is what ships\n\n"
        "BUILD ARG   VALUE   DESCRIPTION\n"
        "TAG         1       of the base image\n"
        "N\n\n"
        "SECRET   REQUIRED\n"
        "key      true\n\n"
        "SSH       REQUIRED\n"
        "default\n"
    )
    assert run(OFFERS, "--call=outline") == (0, expected)


def test_outline_json(run: Callable[..., tuple[int, str]]) -> None:
    document = json.loads(run(OFFERS, "--call=outline,format=json")[1])

    def at(line: int) -> dict[str, Any]:
        return {"ranges": [{"start": {"line": line}, "end": {"line": line}}]}

    assert base64.b64decode(document.pop("sources")[0]).decode() == OFFERS
    assert document == {
        "name": "app",
        "description": "is what ships",
        "args": [
            {"name": "TAG", "description": "of the base image", "value": "1", "location": at(2)},
            {"name": "N", "location": at(9)},
        ],
        "secrets": [{"name": "key", "required": True, "location": at(5)}],
        "ssh": [{"name": "default", "location": at(5)}],
    }


def test_an_outline_of_nothing() -> None:
    assert outline_text(outline(parse(b"FROM a\n"), PlanOptions())) == ""


def test_targets(run: Callable[..., tuple[int, str]]) -> None:
    assert run(OFFERS, "--call=targets") == (
        0,
        "TARGET          DESCRIPTION\nbuild           compiles\n1\napp (default)   is what ships\n",
    )
    assert targets_text(targets(parse(b"FROM a\n"))) == "TARGET      DESCRIPTION\n(default)"


def test_targets_json(run: Callable[..., tuple[int, str]]) -> None:
    document = json.loads(run(OFFERS, "--call=targets,format=json")[1])
    assert [sorted(row) for row in document["targets"]] == [
        ["base", "description", "location", "name"],
        ["base", "location"],
        ["base", "default", "description", "location", "name"],
    ]
    assert document["targets"][0]["base"] == "scratch:$TAG"
    assert document["targets"][2]["default"] is True


def test_a_target_that_is_not_there(run: Callable[..., tuple[int, str]]) -> None:
    with pytest.raises(UsageError, match="target stage 'x' could not be found"):
        run(OFFERS, "--call=outline", "--target=x")


def test_names_of_strangers_are_no_lines_of_ours() -> None:
    from kpy.app.check import Checked
    from kpy.dockerfile.lint.text import check_file

    dockerfile = parse(b"FROM a AS X\n", "Dockerfile\nerror: forged")
    text = check_text(Checked(tuple(check_file(dockerfile)), dockerfile.source))
    assert "error: forged" in text
    assert not [line for line in text.splitlines() if line.startswith("error:")]
