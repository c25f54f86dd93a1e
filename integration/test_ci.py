"""What is ready for CI besides the GitHub action, acted out as the runners do: GitLab's job, Tekton's step."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import builder as builders
import pytest
import servers
import trees
import yaml
from builder import LiveKpy
from jobs import hostile, spawn
from people import Kpy
from servers import Docker, Registry

HERE = Path(__file__).resolve().parent
GITLAB = HERE / "gitlab" / "kpy.gitlab-ci.yml"
CREDENTIALS = f"{servers.USER}:{servers.PASSWORD}"
# A commit title is whatever its author wants.
TITLE = """fix" --allow=network.host --label='x=y' $(id) `id` \\ "the end"""


@pytest.fixture
def project(workdir: Path, kpy: Kpy) -> Path:
    path = workdir / "project"
    path.mkdir()
    (path / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nRUN echo hello > /said\n")
    os.chown(path, kpy.user.uid, kpy.user.gid)
    return path


# --- files


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("github-actions", "github/action.yml"),
        ("github-workflows", "github/workflow.yml"),
        ("gitlab-ci", "gitlab/kpy.gitlab-ci.yml"),
    ],
)
def test_recipes_pass_their_schemas(schema: str, file: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", HERE / file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_fetched_by_a_name_that_may_be_anybodys() -> None:
    """Of packages, images and actions, by default: what is not GitHub's, or an official image, the user has to name."""
    texts = {path: path.read_text() for folder in ("github", "gitlab", "tekton") for path in (HERE / folder).iterdir() if path.is_file()}
    for path, text in texts.items():
        for used in re.findall(r"uses: (\S+)", text):
            assert used.startswith(("actions/", "<OWNER>/")), path
        for image in re.findall(r"^ *image: *([^\s{#]+)", text, re.MULTILINE):
            assert image in ("python:3.12-slim", "$(params.KPY_IMAGE)"), path
        assert not re.search(r"pip install (?:-\S+ +)*(?![-\"])\S", text.replace("\\\n", " ")), path
    job = yaml.safe_load(texts[GITLAB])[".kpy-build"]
    assert job["variables"]["KPY_REQUIREMENT"] == ""


# --- GitLab


def gitlab(kpy: Kpy, project: Path, variables: dict[str, Any], shell: str = "sh") -> subprocess.CompletedProcess[str]:
    """before_script and script are one shell script for GitLab's runner, which puts variables into each other first, but for
    those with expand: false."""
    job = yaml.safe_load(GITLAB.read_text())[".kpy-build"]
    assert job.keys() <= {"image", "variables", "before_script", "script", "artifacts"}
    given = {**job["variables"], **variables}
    raw = {name: value["value"] if isinstance(value, dict) else value for name, value in given.items()}
    kept = {name for name, value in given.items() if isinstance(value, dict) and not value.get("expand", True)}

    def expanded(text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            found = raw.get(name, "")
            return found if name.startswith("CI_") or found == text else expanded(found)

        return re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, text)

    environment = {name: text if name in kept or name.startswith("CI_") else expanded(text) for name, text in raw.items()}
    script = "\n".join([*job["before_script"], *job["script"]])
    arguments = spawn(kpy, **environment)
    return subprocess.run([shell, "-e"], input=script, cwd=project, capture_output=True, text=True, check=False, **arguments)


def predefined(registry: Registry, **more: str) -> dict[str, Any]:
    """What GitLab sets."""
    return {
        "CI_REGISTRY": registry.host, "CI_REGISTRY_USER": servers.USER, "CI_REGISTRY_PASSWORD": servers.PASSWORD,
        "CI_REGISTRY_IMAGE": f"{registry.host}/ci/gitlab", "CI_COMMIT_REF_SLUG": "main", "CI_COMMIT_TITLE": TITLE, **more,
    }  # fmt: skip


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox"])
def test_the_gitlab_job(kpy: Kpy, project: Path, auth_registry: Registry, busybox_base: str, workdir: Path, shell: str) -> None:
    if shell == "busybox":
        (workdir / "sh").symlink_to("/bin/busybox")
        shell = str(workdir / "sh")
    stolen = hostile(project)
    flags = f"""--build-arg=BASE={busybox_base} --label=a='b  c' --label="t=$CI_COMMIT_TITLE" --label=u=${{CI_COMMIT_TITLE}} --label=v='$HOME'"""
    done = gitlab(kpy, project, {**predefined(auth_registry, PYTHONPATH="."), "KPY_FLAGS": {"value": flags, "expand": False}}, shell)
    assert done.returncode == 0, done.stdout + done.stderr
    found = trees.inspect(f"{auth_registry.host}/ci/gitlab:main", "--creds", CREDENTIALS)
    assert found["Labels"] == {"a": "b  c", "t": TITLE, "u": TITLE, "v": "$HOME"}
    assert json.loads((project / "kpy.json").read_text())["containerimage.digest"] == found["Digest"]
    assert servers.PASSWORD not in done.stdout + done.stderr
    assert not stolen.exists(), stolen.read_text()[:300]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"CI_REGISTRY": "", "CI_REGISTRY_USER": "", "CI_REGISTRY_PASSWORD": ""}, "enable the container registry of the project"),
        ({"CI_REGISTRY_PASSWORD": ""}, "CI_REGISTRY, CI_REGISTRY_USER and CI_REGISTRY_PASSWORD are not all set"),
        ({"CI_REGISTRY_IMAGE": ""}, "CI_REGISTRY_IMAGE is not set"),
        ({"KPY_FLAGS": "--label=t=$CI_COMMIT_TITLE"}, "KPY_FLAGS has the text of CI_COMMIT_TITLE in it"),
        # It would put the password into a label; and be more than one record.
        ({"KPY_FLAGS": '--label=t="$CI_COMMIT_TITLE"', "CI_COMMIT_TITLE": "$CI_REGISTRY_PASSWORD"}, "KPY_FLAGS has the text of CI_COMMIT_TITLE in it"),
        ({"KPY_FLAGS": "--label=t=$CI_REGISTRY_PASSWORD"}, "KPY_FLAGS has the text of CI_REGISTRY_PASSWORD in it"),
        ({"KPY_FLAGS": "--output=type=oci,dest=$CI_COMMIT_TITLE", "CI_COMMIT_TITLE": "a,b=c"}, "KPY_FLAGS has the text of CI_COMMIT_TITLE in it"),
        ({"KPY_FLAGS": {"value": "--label='t", "expand": False}}, "KPY_FLAGS: a quote has no end"),
        ({"KPY_FLAGS": {"value": "--label=t=${X:-y}", "expand": False}}, "KPY_FLAGS: of what a shell does with $"),
        ({"KPY_FLAGS": {"value": "--label=t=$(id)", "expand": False}}, "KPY_FLAGS: of what a shell does with $"),
        ({"KPY_FLAGS": {"value": '--label=t="x $$"', "expand": False}}, "KPY_FLAGS: of what a shell does with $"),
        ({"KPY_FLAGS": {"value": '--label=t="`id`"', "expand": False}}, "KPY_FLAGS: of what a shell does with $"),
    ],
)
def test_what_the_gitlab_job_lacks_is_said(kpy: Kpy, project: Path, auth_registry: Registry, change: dict[str, Any], said: str) -> None:
    done = gitlab(kpy, project, {**predefined(auth_registry), **change})
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert f"-----\n{servers.PASSWORD}" not in done.stderr


def test_no_variable_for_python_reaches_a_program_of_the_gitlab_job(
    kpy: Kpy, project: Path, auth_registry: Registry, workdir: Path
) -> None:
    seen = workdir / "seen"
    seen.touch()
    seen.chmod(0o666)
    program = workdir / "bin" / "kpy"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nenv >> {seen}\n")
    program.chmod(0o755)
    names = ("PYTHONPYCACHEPREFIX", "PYTHONPATH", "PYTHONEXECUTABLE", "PYTHONWARNINGS", "PYTHON_NEW")
    given = {**predefined(auth_registry, CI_COMMIT_MESSAGE="one\nPYTHON two=3"), **dict.fromkeys(names, ".")}
    done = gitlab(Kpy(str(program), kpy.user, kpy.home), project, given)
    assert done.returncode == 0, done.stderr
    assert "KPY_FLAGS=" in seen.read_text()
    assert not [line for line in seen.read_text().splitlines() if line.startswith("PYTHON") and line != "PYTHON two=3"]


def test_what_a_name_means_in_the_gitlab_job_is_what_the_registry_says(kpy: Kpy, project: Path, auth_registry: Registry) -> None:
    name = f"{auth_registry.host}/ci/gitlab-names"
    for text, change in (("FROM scratch\nLABEL made=good\n", ":1"), (f"FROM {name}:1\nLABEL last=yes\n", ":next")):
        (project / "Dockerfile").write_text(text)
        done = gitlab(kpy, project, {**predefined(auth_registry), "KPY_TAG": f"{name}{change}"})
        assert done.returncode == 0, done.stdout + done.stderr
        (project / "Dockerfile").write_text("FROM scratch\nLABEL made=evil\n")
        kpy("build", "-t", f"{name}:1", project)
    assert trees.inspect(f"{name}:next", "--creds", CREDENTIALS)["Labels"] == {"made": "good", "last": "yes"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"KPY_CONTEXT": "out"}, "KPY_CONTEXT: a link"),
        ({"KPY_CONTEXT": "up/out/sub"}, "KPY_CONTEXT: a link"),
        ({"KPY_FLAGS": "--file=out/Dockerfile"}, "KPY_FLAGS: out/Dockerfile: a link"),
        ({"KPY_FLAGS": "--secret id=x,src=out/token"}, "KPY_FLAGS: out/token: a link"),
        ({"KPY_FLAGS": "-o type=local,dest=out/new"}, "KPY_FLAGS: out/new: a link"),
    ],
)
def test_no_link_leads_the_gitlab_job_out_of_the_checkout(
    kpy: Kpy, project: Path, auth_registry: Registry, workdir: Path, change: dict[str, Any], said: str
) -> None:
    outside = workdir / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "Dockerfile").write_text("FROM scratch\n")
    (project / "out").symlink_to("../outside")
    (project / "up").symlink_to(".")
    done = gitlab(kpy, project, {**predefined(auth_registry, CI_PROJECT_DIR=str(project)), **change})
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("requirement", ["", "kpy", "kpy-builder==0.1.0"])
def test_the_gitlab_job_installs_nothing_by_a_bare_name(kpy: Kpy, project: Path, auth_registry: Registry, requirement: str) -> None:
    bare = Kpy("/nowhere/kpy", kpy.user, kpy.home)
    done = gitlab(bare, project, {**predefined(auth_registry), "KPY_REQUIREMENT": requirement})
    assert done.returncode == 2
    assert "KPY_REQUIREMENT" in done.stderr


def test_the_gitlab_job_installs_a_path_without_the_password(
    kpy: Kpy, project: Path, auth_registry: Registry, busybox_base: str, workdir: Path
) -> None:
    """The build of a package runs its code; here it tells what it saw."""
    source = workdir / "source"
    shutil.copytree(HERE.parent / "kpy", source / "kpy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(HERE.parent / name, source / name)
    (source / "hook.py").write_text(
        f"import os\nopen({str(source / 'seen')!r}, 'w').write(repr(dict(os.environ)))\nfrom hatchling.build import *\n"
    )
    text = (source / "pyproject.toml").read_text()
    (source / "pyproject.toml").write_text(text.replace('build-backend = "hatchling.build"', 'build-backend = "hook"\nbackend-path = ["."]'))
    subprocess.run(["chown", "-R", f"{kpy.user.uid}:{kpy.user.gid}", str(source)], check=True)
    stolen = hostile(project)
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    bare = Kpy("/nowhere/kpy", kpy.user, kpy.home)
    done = gitlab(bare, project, {**predefined(auth_registry), **pip, "KPY_REQUIREMENT": f"{source}/", "KPY_FLAGS": f"--build-arg=BASE={busybox_base}"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert not stolen.exists(), stolen.read_text()[:300]
    assert servers.PASSWORD not in (source / "seen").read_text()


# --- Tekton


def test_no_link_in_the_source_is_the_context_of_the_tekton_step() -> None:
    """What kpy does with the flag has tests of its own; a path in --context is the word of whoever started it."""
    args = yaml.safe_load((HERE / "tekton" / "kpy-build.yaml").read_text())["spec"]["steps"][0]["args"]
    assert [word for word in args if "CONTEXT" in word] == ["--context-sub-path=$(params.CONTEXT)"]
    assert "--context=dir://$(workspaces.source.path)" in args


def test_the_tekton_step(docker: Docker, project: Path, registry: Registry, busybox_base: str, workdir: Path) -> None:
    """In kpy's image, with the rights and the volumes that the step asks for, and no others."""
    task = yaml.safe_load((HERE / "tekton" / "kpy-build.yaml").read_text())
    assert (task["apiVersion"], task["kind"]) == ("tekton.dev/v1", "Task")
    spec = task["spec"]
    (step,) = spec["steps"]
    (project / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nARG WORD\nRUN mkdir /app && echo $WORD > /app/said\n")
    stolen = hostile(project)
    options = ["--user", str(step["securityContext"]["runAsUser"]), "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    options += [word for item in step["env"] for word in ("--env", f"{item['name']}={item['value']}")]
    for mount in step["volumeMounts"]:
        place = workdir / mount["name"]
        place.mkdir()
        place.chmod(0o777)  # an emptyDir
        options += ["--volume", f"{place}:{mount['mountPath']}"]
    results = workdir / "results"
    results.mkdir()
    results.chmod(0o777)
    options += ["--volume", f"{results}:/tekton/results", "--volume", f"{project}:/workspace/source", "--workdir", step["workingDir"]]
    name = f"{registry.host}/ci/tekton:1"
    known = {item["name"]: item["default"] for item in spec["params"] if item["type"] == "string" and "default" in item}
    assert "KPY_IMAGE" not in known, "an image that nobody named"
    values = {f"params.{key}": value for key, value in {**known, "IMAGE": name}.items()}
    values |= {f"results.{item['name']}.path": f"/tekton/results/{item['name']}" for item in spec["results"]}
    values |= {f"workspaces.{item['name']}.path": f"/workspace/{item['name']}" for item in spec["workspaces"]}
    arguments: list[str] = []
    for word in step["args"]:
        if word == "$(params.EXTRA_ARGS[*])":
            arguments += [f"--build-arg=BASE={busybox_base}", "--build-arg=WORD=tekton"]
        else:
            arguments.append(re.sub(r"\$\((.*?)\)", lambda match: values[match[1]], word))
    assert step["command"] == ["kpy"]
    LiveKpy(docker, builders.make(docker))(*arguments, options=options)
    digest = trees.inspect(name)["Digest"]
    assert (results / "IMAGE_DIGEST").read_text() == digest
    assert (results / "IMAGES").read_text() == f"{name.removesuffix(':1')}@{digest}\n"
    assert (trees.unpack(name, workdir / "tree") / "app" / "said").read_text() == "tekton\n"
    assert not stolen.exists()


def test_the_tekton_step_is_restricted() -> None:
    spec = yaml.safe_load((HERE / "tekton" / "kpy-build.yaml").read_text())["spec"]
    context = spec["steps"][0]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert {mount["name"] for mount in spec["steps"][0]["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    text = (HERE / "tekton" / "kpy-build.yaml").read_text()
    assert 'set-security-context: "true"' in text
    assert "fsGroup" in text
