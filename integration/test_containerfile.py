"""The builder image, built by kpy from the Containerfile where nothing is allowed, and at work there (E2)."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import builder as builders
import pytest
import trees
from builder import LiveKpy
from servers import Docker, Registry

ROOT = Path(__file__).resolve().parents[1]
RESTRICTED = ["--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
LARGEST = 45_000_000


@pytest.fixture
def source(workdir: Path) -> Path:
    """This checkout, and the packages that kpy needs: RUN asks no index."""
    context = workdir / "source"
    (context / "integration").mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "kpy", context / "kpy", ignore=ignore)
    shutil.copytree(ROOT / "integration" / "bundle", context / "integration" / "bundle", ignore=ignore)
    for name in ("Containerfile", "pyproject.toml"):
        shutil.copy(ROOT / name, context / name)
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:",
         "--python-version", "3.11", "--implementation", "cp", "--dest", context / "wheels", *needed],
        check=True, timeout=300,
    )  # fmt: skip
    for path in [context, *context.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.name == "make-bundle" else 0o644)
    return context


def test_kpy_builds_its_own_image_the_same_twice_and_that_image_builds(
    docker: Docker, registry: Registry, bundler_base: str, busybox_base: str, source: Path, workdir: Path
) -> None:
    first = LiveKpy(docker, builders.make(docker))
    arguments = [
        "build", "-f", "Containerfile", "--push", "--build-arg", f"BASE={bundler_base}", "--build-arg", "SOURCE_DATE_EPOCH=0",
        "--build-arg", "PIP_FIND_LINKS=/mnt/source/wheels", "--build-arg", "PIP_NO_INDEX=1",
    ]  # fmt: skip
    options = [*RESTRICTED, "--volume", f"{source}:/workspace:ro"]
    name = f"{registry.host}/kpy/image"
    digests = [first(*arguments, "-t", f"{name}:{tag}", ".", options=options).stdout.strip() for tag in ("1", "2")]

    assert digests[0] == digests[1]
    assert sum(layer["size"] for layer in trees.inspect(f"{name}:1", "--raw")["layers"]) < LARGEST
    context = workdir / "context"
    context.mkdir()
    context.chmod(0o755)
    (context / "Dockerfile").write_text(f"FROM {busybox_base}\nRUN mkdir /app && touch /app/file && chown 5:6 /app/file\n")
    docker("pull", f"{name}:1")
    try:
        config = json.loads(docker("image", "inspect", f"{name}:1"))[0]["Config"]
        assert config["Entrypoint"] == ["/kpy/bin/kpy"]
        second = LiveKpy(docker, f"{name}:1")
        at = ["--volume", f"{context}:/workspace:ro"]
        made = f"{registry.host}/kpy/made"
        for number, user in enumerate(("1000:1000", "123456:0")):
            second("build", "--push", "-t", f"{made}:{number}", ".", options=["--user", user, *RESTRICTED[2:], *at])
            assert trees.described(f"{made}:{number}", workdir / f"tree{number}")["app/file"].startswith("-rw-r--r-- 5:6")
    finally:
        docker("image", "rm", "--force", f"{name}:1")


def test_the_image_with_a_shell(docker: Docker, registry: Registry, bundler_base: str, source: Path, workdir: Path) -> None:
    """`--target debug`: the same image, and the commands of busybox."""
    kpy = LiveKpy(docker, builders.make(docker))
    base = f"{registry.host}/kpy/bundler-with-busybox"
    context = workdir / "base"
    context.mkdir()
    context.chmod(0o755)
    shutil.copy("/bin/busybox", context / "busybox")
    (context / "Dockerfile").write_text(f"FROM {bundler_base}\nCOPY busybox /usr/local/bin/\n")
    kpy("build", "--push", "-t", base, ".", options=[*RESTRICTED, "--volume", f"{context}:/workspace:ro"])
    name = f"{registry.host}/kpy/debug:1"
    kpy(
        "build", "-f", "Containerfile", "--push", "--build-arg", f"BASE={base}", "--build-arg", "SOURCE_DATE_EPOCH=0", "--target", "debug",
        "--build-arg", "PIP_FIND_LINKS=/mnt/source/wheels", "--build-arg", "PIP_NO_INDEX=1", "-t", name, ".",
        options=[*RESTRICTED, "--volume", f"{source}:/workspace:ro"],
    )  # fmt: skip
    docker("pull", name)
    try:
        run = ("run", "--rm", *RESTRICTED)
        assert docker(*run, "--entrypoint", "/busybox/sh", name, "-c", "command -v kpy && which tail && kpy --version | tail -n 1").split()[:3] == [
            "/kpy/bin/kpy", "/kpy/busybox/tail", "kpy",
        ]  # fmt: skip
        assert docker(*run, name, "--version").startswith("kpy ")
    finally:
        docker("image", "rm", "--force", name)
