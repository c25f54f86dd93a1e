"""What strangers put into a job: text that becomes an input, links in a checkout, names of images. For the GitHub action."""

import os
from pathlib import Path

import pytest
from jobs import spawn, temporary
from people import Kpy
from workflows import Action, StepError

HERE = Path(__file__).resolve().parent
ACTION = HERE / "github" / "action.yml"


@pytest.fixture
def project(workdir: Path, kpy: Kpy) -> Path:
    path = workdir / "project"
    path.mkdir()
    (path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    os.chown(path, kpy.user.uid, kpy.user.gid)
    return path


@pytest.fixture
def action(kpy: Kpy, workdir: Path) -> Action:
    return Action(ACTION, spawn(kpy), temporary(workdir, kpy))


# --- text


@pytest.mark.parametrize("tag", ['"app\n::error file=x::evil\n##[add-mask]o"', "app ##[add-mask]o", '"app\r::add-mask::o"', "app:x\u2028y"])
def test_no_text_of_a_tag_is_obeyed(action: Action, project: Path, tag: str) -> None:
    with pytest.raises(StepError) as caught:
        action(project, tags=f"fine:1\n{tag}")
    assert (caught.value.name, caught.value.code) == ("Inputs", 2)
    job = caught.value.ran.job
    assert [(command.name, command.text) for command in job.commands] == [
        ("error", "input tags: item 2 is not the name of an image, such as ghcr.io/owner/app:1")
    ]


@pytest.mark.parametrize("flags", ["-o -", "-o\n-", "--output=-", "-o-", "-qo-", "--output type=tar,dest=-", "-o=type=oci,dest=-"])
def test_flags_have_no_standard_output(action: Action, project: Path, flags: str) -> None:
    with pytest.raises(StepError) as caught:
        action(project, flags=flags)
    assert caught.value.name == "Inputs"
    assert caught.value.ran.job.told("error")[-1].text == "input flags: an action has no standard output: give dest a file"


def test_commands_are_obeyed_again_after_output_without_a_line_end(action: Action, project: Path) -> None:
    """Whoever wants it there gets it there; the commands after it are heard all the same."""
    (project / "Dockerfile").write_text("FROM scratch\nMAINTAINER x\nCOPY Dockerfile /\n")
    ran = action(project, flags="--metadata-file=/dev/stdout")
    assert len(ran.job.told("stop-commands")) == 1
    assert [command.properties["line"] for command in ran.job.told("warning")] == ["2"]
