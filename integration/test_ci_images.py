"""kpy's image as the image of a job: started as the runners of GitLab and GitHub start it, as a user without any rights."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
import trees
import yaml
from jobs import hostile
from servers import Docker, Registry
from workflows import Job

from kpy.app.doctor import Diagnosis, Facts, Outlook
from kpy.app.remedies import remedies

HERE = Path(__file__).resolve().parent
RUN = os.environ.get("KPY_TEST_RUN") or os.getpid()
RESTRICTED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
CREDENTIALS = f"{servers.USER}:{servers.PASSWORD}"
# What GitLab's runner has a container run (shells/bash.go): its script comes on standard input.
DETECT = (
    "if [ -x /usr/local/bin/bash ]; then\n\texec /usr/local/bin/bash \nelif [ -x /usr/bin/bash ]; then\n\texec /usr/bin/bash \n"
    "elif [ -x /bin/bash ]; then\n\texec /bin/bash \nelif [ -x /usr/local/bin/sh ]; then\n\texec /usr/local/bin/sh \n"
    "elif [ -x /usr/bin/sh ]; then\n\texec /usr/bin/sh \nelif [ -x /bin/sh ]; then\n\texec /bin/sh \n"
    "elif [ -x /busybox/sh ]; then\n\texec /busybox/sh \nelse\n\techo shell not found\n\texit 1\nfi\n\n"
)
DOCKERFILE = "ARG BASE\nFROM $BASE\nRUN mkdir /app && echo hello > /app/said && chown 5:6 /app/said\n"


@pytest.fixture(scope="session")
def image(docker: Docker) -> Iterator[str]:
    """With a shell, as the Containerfile's `debug`."""
    name = f"kpy-builder:shell-{RUN}-{os.environ.get('PYTEST_XDIST_WORKER', '')}"
    subprocess.run(
        [sys.executable, HERE / "bundle" / "make-bundle", "--image", name, "--shell", "/bin/busybox"],
        env={**os.environ, "DOCKER_HOST": docker.socket}, check=True, timeout=600,
    )  # fmt: skip
    yield name
    docker("image", "rm", "--force", name)


@pytest.fixture
def project(workdir: Path) -> Path:
    path = workdir / "project"
    path.mkdir()
    (path / "Dockerfile").write_text(DOCKERFILE)
    return path


def quoted(text: str) -> str:
    """As the runner puts a script into one for eval."""
    return "$'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def gitlab_script(variables: dict[str, str]) -> str:
    """What the runner writes to the shell: the variables, the directory, and the job's script."""
    document = yaml.safe_load((HERE / "gitlab" / "kpy.gitlab-ci.yml").read_text())
    job = {**document[".kpy-build"], **document[".kpy-build-restricted"]}
    assert (job["extends"], job["image"]) == (".kpy-build", {"name": "$KPY_IMAGE", "entrypoint": [""]})
    given = {name: value["value"] if isinstance(value, dict) else value for name, value in job["variables"].items()} | variables
    lines = [f"export {name}={quoted(value)}" for name, value in given.items()]
    lines += ["cd /builds/group/project", *job["before_script"], *job["script"]]
    text = "\n".join(lines) + "\n"
    return f"if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit\nset +o noclobber\n: | eval {quoted(text)}\nexit 0\n"


def start(docker: Docker, name: str, script: str) -> subprocess.CompletedProcess[str]:
    """Start the container, and give it the script."""
    return subprocess.run(
        [servers.tool("docker"), "start", "--attach", "--interactive", name], input=script, capture_output=True, text=True, timeout=300,
        env={**os.environ, "DOCKER_HOST": docker.socket}, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("user", ["1000", "123456:0", "0"])
@pytest.mark.parametrize("how", ["volume", "copied"])
def test_a_job_of_gitlab(
    docker: Docker, image: str, project: Path, auth_registry: Registry, busybox_base: str, workdir: Path, user: str, how: str
) -> None:
    stolen = hostile(project)
    name = f"{auth_registry.host}/ci/gitlab-{how}"
    script = gitlab_script({
        "CI_REGISTRY": auth_registry.host, "CI_REGISTRY_USER": servers.USER, "CI_REGISTRY_PASSWORD": servers.PASSWORD,
        "CI_REGISTRY_IMAGE": name, "KPY_TAG": f"{name}:main", "KPY_FLAGS": f"--build-arg=BASE={busybox_base} --label=a='b  c'",
    })  # fmt: skip
    subprocess.run(["chmod", "-R", "a+rwX", project], check=True)  # the runner's helper clones with umask 0000
    volume = ["--volume", f"{project}:/builds/group/project"] if how == "volume" else []
    rights = RESTRICTED if user != "0" else ()
    container = docker(
        "create", "--interactive", "--network", "host", "--user", user, *rights, *volume, "--entrypoint", "", image, "sh", "-c", DETECT
    )
    try:
        if how == "copied":
            (workdir / "copy" / "group").mkdir(parents=True)
            project.rename(workdir / "copy" / "group" / "project")
            subprocess.run(["chmod", "-R", "a+rwX", workdir / "copy"], check=True)
            docker("cp", f"{workdir}/copy/.", f"{container}:/builds/")
        done = start(docker, container, script)
        assert done.returncode == 0, done.stdout + done.stderr
        assert servers.PASSWORD not in done.stdout + done.stderr
        found = trees.inspect(f"{name}:main", "--creds", CREDENTIALS)
        assert found["Labels"] == {"a": "b  c"}
        root = trees.unpack(f"{name}:main", workdir / "tree", credentials=CREDENTIALS)
        said = (root / "app" / "said").stat()
        assert (said.st_uid, said.st_gid) == (5, 6)
        assert not (root / "busybox").is_symlink()
        assert not (root / "builds").exists()
        assert not stolen.exists()
        docker("cp", f"{container}:/busybox/sh", str(workdir / "sh"))  # it is still there, for whoever looks
    finally:
        docker("rm", "--force", container)


def test_a_job_of_github_with_a_container(
    docker: Docker, image: str, project: Path, registry: Registry, busybox_base: str, workdir: Path
) -> None:
    """The step that `kpy doctor --fix github` shows, whole: only the name of the image, and flags, are the user's."""
    facts = Facts("linux", 1001, 1001, False, True, False, True, True, False, False, "/s", 1, 1, 0, 1)
    diagnosis = Diagnosis(("E2", ""), facts, (), Outlook("none", problem="no"))
    (remedy,) = remedies(diagnosis, "github")
    advice = yaml.safe_load("\n".join(remedy.lines))
    assert advice.keys() == {"runs-on", "steps"}
    checkout, step = advice["steps"]
    assert checkout == {"uses": "actions/checkout@v4"}
    stolen = hostile(project)
    name = f"{registry.host}/ci/github-container:1"
    flags = f"--network host {image} build --push -t {name} --build-arg BASE={busybox_base}"
    script = step["run"].replace("registry.example/kpy:0.1.0 build", flags)
    assert flags in script
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], cwd=project, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "DOCKER_HOST": docker.socket, "GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(project)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    job = Job()
    job.hear(done.stderr)
    assert not job.commands
    assert trees.described(name, workdir / "tree")["app/said"].startswith("-rw-r--r-- 5:6")
    assert not stolen.exists()


def test_the_runner_of_gitlab_is_restricted() -> None:
    """Every container of the pod, as Pod Security wants it."""
    document = tomllib.loads((HERE / "gitlab" / "restricted-runner.toml").read_text())
    settings: dict[str, Any] = document["runners"][0]["kubernetes"]
    assert settings["privileged"] is False
    assert settings["pod_security_context"]["run_as_non_root"] is True
    for name in ("init_permissions", "build", "helper"):
        context = settings[f"{name}_container_security_context"]
        assert (context["run_as_non_root"], context["allow_privilege_escalation"]) == (True, False)
        assert context["capabilities"] == {"drop": ["ALL"]}
    (patch,) = settings["pod_spec"]
    assert yaml.safe_load(patch["patch"]) == {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}
    assert document["runners"][0]["feature_flags"]["FF_USE_ADVANCED_POD_SPEC_CONFIGURATION"] is True
