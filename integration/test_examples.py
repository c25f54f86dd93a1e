"""The examples, built by an unprivileged user, pushed to a registry, and run by docker."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from applications import get, make_wheel
from people import Kpy
from servers import Docker, Registry, free_port

ROOT = Path(__file__).resolve().parents[1]
Example = Callable[[str], Path]


def test_a_python_service(
    kpy: Kpy, example: Example, registry: Registry, python_base: str, docker: Docker
) -> None:
    context = example("python-service")
    make_wheel(context / "wheels")
    name = f"{registry.host}/examples/python-service:1"
    done = kpy("build", "--push", "-t", name, "--build-arg", f"BASE={python_base}", context)
    digest = done.stdout.strip()
    docker("pull", f"{registry.host}/examples/python-service@{digest}")
    port = free_port()
    with docker.container("--publish", f"127.0.0.1:{port}:8000", "--env", "GREETING_NAME=docker", name):
        assert get(f"http://127.0.0.1:{port}/") == "hello, docker\n"
    config = json.loads(docker("image", "inspect", name))[0]["Config"]
    assert config["WorkingDir"] == "/app"
    assert config["ExposedPorts"] == {"8000/tcp": {}}
    docker("image", "rm", "--force", name)


def test_two_stages(kpy: Kpy, example: Example, registry: Registry, gcc_base: str, docker: Docker) -> None:
    context = example("two-stage")
    name = f"{registry.host}/examples/two-stage:1"
    kpy("build", "--push", "-t", name, "--build-arg", f"BASE={gcc_base}", context)
    assert docker("run", "--rm", "--pull", "always", name) == "hello from a static program"
    assert len(json.loads(docker("image", "inspect", name))[0]["RootFS"]["Layers"]) == 1
    docker("image", "rm", "--force", name)


def test_an_image_on_an_imported_base(kpy: Kpy, example: Example, docker: Docker, workdir: Path) -> None:
    context = example("hello")
    variables = kpy.spawn()
    variables["env"] = {**variables["env"], "KPY": kpy.program}  # type: ignore[dict-item]
    made = subprocess.run(
        [context / "make-base"], capture_output=True, text=True, check=False, cwd=workdir, **variables
    )  # type: ignore[call-overload]
    assert made.returncode == 0, made.stderr
    archive = workdir / "hello.tar"
    kpy("build", "-t", "hello", "-o", f"type=docker,dest={archive}", context)
    docker("load", "--input", str(archive))
    assert docker("run", "--rm", "hello") == "hello from kpy"
    docker("image", "rm", "--force", "hello")


def test_the_readmes_first_command(kpy: Kpy, workdir: Path) -> None:
    """In a clone of its own, as the unprivileged user: what it installs, and what it builds."""
    clone = workdir / "kpy"
    shutil.copytree(
        ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", ".hypothesis")
    )
    subprocess.run(["chown", "-R", f"{kpy.user.uid}:{kpy.user.gid}", str(clone)], check=True)
    spawn = kpy.spawn()
    # pip may need to be told where packages come from.
    spawn["env"] = {
        **spawn["env"],
        **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
    }  # type: ignore[dict-item]
    done = subprocess.run(
        [clone / "integration" / "first-build"],
        capture_output=True,
        text=True,
        check=False,
        cwd=clone,
        timeout=600,
        **spawn,
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", done.stdout.splitlines()[-1])
    assert "docker.io/library/hello:latest" in kpy("images").stdout
