"""What strangers put into a job: text that becomes an input, links in a checkout, names of images. For the GitHub action."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trees
from jobs import spawn, temporary
from people import Kpy
from servers import Registry
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


def test_commands_are_obeyed_again_after_output_without_a_line_end(kpy: Kpy, project: Path, workdir: Path) -> None:
    program = workdir / "bin" / "kpy"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ntest $1 = doctor || printf 'no end'\n")
    program.chmod(0o755)
    ran = Action(ACTION, spawn(Kpy(str(program), kpy.user, kpy.home)), temporary(workdir, kpy))(project)
    assert len(ran.job.told("stop-commands")) == 1
    assert "no end" in ran.logs["Build"]


# --- names


@pytest.mark.parametrize("how", ["same store", "cache"])
def test_what_a_name_means_is_what_the_registry_says(kpy: Kpy, project: Path, registry: Registry, workdir: Path, how: str) -> None:
    """A pull request may build whatever it likes under the name of a base."""
    name = f"{registry.host}/ci/names-{how[:4]}:1"
    place, saved = temporary(workdir, kpy), workdir / "cache.tar"
    os.chmod(workdir, 0o777)

    def job(dockerfile: str, **inputs: str) -> None:
        (project / "Dockerfile").write_text(dockerfile)
        Action(ACTION, spawn(kpy), place, saved)(project, cache=str(how == "cache").lower(), **inputs)
        if saved.exists():
            saved.chmod(0o666)
            subprocess.run(["chmod", "-R", "u+rwX", kpy.home / ".local"], check=True)
            shutil.rmtree(kpy.home / ".local")

    job("FROM scratch\nLABEL made=good\nCOPY Dockerfile /\n", tags=name, push="true")
    job("FROM scratch\nLABEL made=evil\nCOPY Dockerfile /\n", tags=f"fine:1,{name}")
    job(f"FROM {name}\nLABEL last=yes\n", tags=f"{name}-next", push="true")
    assert trees.inspect(f"{name}-next")["Labels"] == {"made": "good", "last": "yes"}


# --- links


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context", "out"), ("context", "up/out/sub"), ("file", "out/Dockerfile"), ("secret_files", "id=out/token"),
        ("outputs", "type=local,dest=out/new"), ("outputs", "out"), ("flags", "--secret id=x,src=out/token"), ("flags", "-fout/Dockerfile"),
    ],
)  # fmt: skip
def test_no_link_leads_out_of_the_checkout(action: Action, project: Path, workdir: Path, name: str, value: str) -> None:
    outside = workdir / "outside"
    (outside / "sub").mkdir(parents=True)
    (project / "out").symlink_to("../outside")
    (project / "up").symlink_to(".")
    with pytest.raises(StepError) as caught:
        action(project, **{name: value})
    assert (caught.value.name, caught.value.code) == ("Inputs", 2)
    assert caught.value.ran.job.told("error")[-1].text.startswith(f"input {name.replace('_', '-')}: a link in the checkout leads out of it")


def test_links_inside_the_checkout_and_paths_outside_are_taken(action: Action, project: Path, workdir: Path) -> None:
    (project / "app").mkdir()
    (project / "Dockerfile").rename(project / "app" / "Dockerfile")
    (project / "link").symlink_to("app")
    ran = action(project, context="link", outputs=f"type=oci,dest={workdir}/runner/app.tar")
    assert ran.outputs["digest"].startswith("sha256:")
