"""What is ready for CI, run as a CI would: the steps of the GitHub action, GitLab's job, Tekton's step; as an ordinary user."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import servers
import trees
import yaml
from people import Kpy
from servers import Registry
from workflows import Action, StepError

HERE = Path(__file__).resolve().parent
DOCKERFILE = """\
ARG BASE
FROM $BASE AS first
ARG WORD
RUN --mount=type=secret,id=token --mount=type=secret,id=file \\
    echo "$WORD $(cat /run/secrets/token) $(cat /run/secrets/file)" > /said
FROM first
LABEL last=yes
"""


@pytest.fixture
def project(workdir: Path, kpy: Kpy) -> Path:
    path = workdir / "project"
    path.mkdir()
    (path / "Dockerfile").write_text(DOCKERFILE)
    (path / "secret file").write_text("from-a-file")
    os.chown(path, kpy.user.uid, kpy.user.gid)
    return path


def spawn(kpy: Kpy, **more: str) -> dict[str, Any]:
    """As the user, with the installed kpy on the PATH."""
    arguments: dict[str, Any] = kpy.spawn()
    environment = arguments["env"]
    return {**arguments, "env": {**environment, "PATH": f"{Path(kpy.program).parent}:{environment['PATH']}", **more}}


def temporary(workdir: Path, kpy: Kpy) -> Path:
    path = workdir / "runner"
    path.mkdir()
    os.chown(path, kpy.user.uid, kpy.user.gid)
    return path


# --- GitHub


def test_the_action_builds_and_pushes(kpy: Kpy, project: Path, auth_registry: Registry, busybox_base: str, workdir: Path) -> None:
    action = Action(HERE / "github" / "action.yml", spawn(kpy), temporary(workdir, kpy))
    name = f"{auth_registry.host}/ci/github"
    ran = action(
        project, push="true", tags=f"{name}:1, {name}:2\n", target="first", registry=auth_registry.host, username=servers.USER,
        password=servers.PASSWORD, build_args=f"\n  BASE={busybox_base}\nWORD=a b\n\n", labels="one=1\ntwo=x y\r\n",
        secrets="token=s3cret=1\n", secret_files=f"file={project}/secret file\n", flags="--no-cache\n--shm-size=64m",
        outputs=f"type=oci,dest={workdir}/runner/app.tar",
    )  # fmt: skip
    root = trees.unpack(f"{name}:2", workdir / "tree", credentials=f"{servers.USER}:{servers.PASSWORD}")
    assert (root / "said").read_text() == "a b s3cret=1 from-a-file\n"
    found = trees.inspect(f"{name}:1", "--creds", f"{servers.USER}:{servers.PASSWORD}")
    assert found["Digest"] == ran.outputs["digest"]
    assert found["Labels"] == {"one": "1", "two": "x y"}
    assert json.loads(ran.outputs["metadata"])["containerimage.digest"] == ran.outputs["digest"]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", ran.outputs["imageid"])
    assert (workdir / "runner" / "app.tar").is_file()
    # Nothing secret is left behind, nor said.
    left = b"".join(path.read_bytes() for path in (workdir / "runner").rglob("*") if path.is_file() and path.suffix != ".tar")
    for text in (left.decode(errors="replace"), *ran.logs.values()):
        assert "s3cret" not in text


def test_the_action_fails_with_the_build(kpy: Kpy, project: Path, workdir: Path) -> None:
    (project / "Dockerfile").write_text("FROM scratch\nCOPY nowhere /\n")
    action = Action(HERE / "github" / "action.yml", spawn(kpy), temporary(workdir, kpy))
    with pytest.raises(StepError) as caught:
        action(project, tags="app")
    assert caught.value.code == 5
    assert "nowhere" in caught.value.log


def test_the_action_installs_the_kpy_that_it_belongs_to(kpy: Kpy, project: Path, workdir: Path) -> None:
    checkout = workdir / "checkout"
    shutil.copytree(HERE / "github", checkout / "integration" / "github")
    shutil.copytree(HERE.parent / "kpy", checkout / "kpy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(HERE.parent / name, checkout / name)
    subprocess.run(["chown", "-R", f"{kpy.user.uid}:{kpy.user.gid}", str(checkout)], check=True)
    (project / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    place = temporary(workdir, kpy)
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    bare = {**kpy.spawn(), "env": {**kpy.spawn()["env"], **pip}}  # type: ignore[dict-item]
    ran = Action(checkout / "integration" / "github" / "action.yml", bare, place)(project, tags="app")
    assert ran.outputs["digest"].startswith("sha256:")
    assert (place / "kpy-venv" / "bin" / "kpy").exists()


def test_the_workflow_uses_what_the_action_has() -> None:
    workflow = yaml.safe_load((HERE / "github" / "workflow.yml").read_text())
    action = yaml.safe_load((HERE / "github" / "action.yml").read_text())
    steps = workflow["jobs"]["image"]["steps"]
    used = next(step for step in steps if "integration/github" in step.get("uses", ""))
    assert used["with"].keys() <= action["inputs"].keys()
    assert "outputs.digest" in steps[-1]["run"]
    assert "digest" in action["outputs"]


# --- GitLab


def test_the_gitlab_job(kpy: Kpy, project: Path, auth_registry: Registry, busybox_base: str, workdir: Path) -> None:
    """before_script and script are one shell script for GitLab's runner, and so they are here."""
    job = yaml.safe_load((HERE / "gitlab" / "kpy.gitlab-ci.yml").read_text())[".kpy-build"]
    assert job.keys() <= {"image", "variables", "before_script", "script", "artifacts"}
    name = f"{auth_registry.host}/ci/gitlab"
    (project / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nRUN echo hello > /said\n")
    variables = {
        **job["variables"], "KPY_REQUIREMENT": "", "KPY_TAG": f"{name}:main", "KPY_FLAGS": f"--build-arg=BASE={busybox_base} --label=a=b",
        "CI_REGISTRY": auth_registry.host, "CI_REGISTRY_USER": servers.USER, "CI_REGISTRY_PASSWORD": servers.PASSWORD,
    }  # fmt: skip
    script = "\n".join([*job["before_script"], *job["script"]])
    arguments = spawn(kpy, **variables)
    done = subprocess.run(["sh", "-e", "-c", script], cwd=project, capture_output=True, text=True, check=False, **arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    found = trees.inspect(f"{name}:main", "--creds", f"{servers.USER}:{servers.PASSWORD}")
    assert found["Labels"] == {"a": "b"}
    assert json.loads((project / "kpy.json").read_text())["containerimage.digest"] == found["Digest"]
    assert servers.PASSWORD not in done.stdout + done.stderr


# --- Tekton


def test_the_tekton_step(kpy: Kpy, project: Path, registry: Registry, busybox_base: str, workdir: Path) -> None:
    task = yaml.safe_load((HERE / "tekton" / "kpy-build.yaml").read_text())
    assert (task["apiVersion"], task["kind"]) == ("tekton.dev/v1", "Task")
    spec = task["spec"]
    (step,) = spec["steps"]
    (project / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nARG WORD\nRUN echo $WORD > /said\n")
    results = workdir / "results"
    results.mkdir()
    os.chown(results, kpy.user.uid, kpy.user.gid)
    name = f"{registry.host}/ci/tekton:1"
    known = {item["name"]: item["default"] for item in spec["params"] if item["type"] == "string" and "default" in item}
    values = {f"params.{key}": value for key, value in {**known, "IMAGE": name}.items()}
    values |= {f"results.{item['name']}.path": str(results / item["name"]) for item in spec["results"]}
    values |= {f"workspaces.{item['name']}.path": str(project) for item in spec["workspaces"]}
    arguments: list[str] = []
    for word in step["args"]:
        if word == "$(params.EXTRA_ARGS[*])":
            arguments += [f"--build-arg=BASE={busybox_base}", "--build-arg=WORD=tekton"]
        else:
            arguments.append(re.sub(r"\$\((.*?)\)", lambda match: values[match[1]], word))
    assert step["command"] == ["kpy"]
    kpy(*arguments)
    digest = trees.inspect(name)["Digest"]
    assert (results / "IMAGE_DIGEST").read_text() == digest
    assert (results / "IMAGES").read_text() == f"{name.removesuffix(':1')}@{digest}\n"
    assert (trees.unpack(name, workdir / "tree") / "said").read_text() == "tekton\n"


def test_the_tekton_step_is_restricted() -> None:
    spec = yaml.safe_load((HERE / "tekton" / "kpy-build.yaml").read_text())["spec"]
    context = spec["steps"][0]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert {mount["name"] for mount in spec["steps"][0]["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
