"""The examples, built by an unprivileged user, pushed to a registry, and run by docker."""

import json
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from people import Kpy
from servers import Docker, Registry, free_port

Example = Callable[[str], Path]


def make_wheel(directory: Path) -> None:
    """A tiny pure-Python wheel, so that pip in RUN needs no index."""
    directory.mkdir(exist_ok=True)
    name, version = "kpy_greeting", "1.0"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "def greeting(name):\n    return f'hello, {name}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)


def get(url: str, seconds: float = 30) -> str:
    """The body, once the server is up."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


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


def test_the_first_command_of_the_readme(kpy: Kpy, example: Example, docker: Docker, workdir: Path) -> None:
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
