"""Places where something is missing that kpy takes for granted: a home, an interpreter, the image's own /sbin."""

import subprocess
import sys
from pathlib import Path

import builder as builders
import pytest
import servers
from builder import LiveKpy
from people import Kpy, User
from servers import Docker

NOBODY = 54321


@pytest.fixture
def context(workdir: Path) -> Path:
    (workdir / "Dockerfile").write_text("FROM scratch\nCOPY x /\n")
    (workdir / "x").write_text("x")
    return workdir


@pytest.mark.parametrize("verb", [["build", "."], ["images"], ["doctor"], ["build", "--check", "."]])
def test_a_uid_without_a_home(program: str, context: Path, verb: list[str]) -> None:
    """HOME is not set, and /etc/passwd does not know the uid: many a container is so."""
    done = subprocess.run(
        [program, *verb], cwd=context, user=NOBODY, group=NOBODY, extra_groups=[], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (9, "")
    assert done.stderr == (
        f"error: uid {NOBODY} has no home directory: HOME is not set, and /etc/passwd does not know the uid\n"
        "hint: set KPY_HOME to a directory of your own: kpy keeps its files there\n"
    )
    home = Kpy(program, User("", NOBODY, NOBODY, False), context, {"KPY_HOME": f"/tmp/kpy-nobody-{NOBODY}"})
    assert home("build", "-q", ".", cwd=context).stdout.startswith("sha256:")
    subprocess.run(["rm", "-rf", f"/tmp/kpy-nobody-{NOBODY}"], check=True)


def test_the_home_that_docker_gives_a_uid_that_it_does_not_know(program: str, context: Path) -> None:
    done = subprocess.run(
        [program, "build", "."], cwd=context, user=NOBODY, group=NOBODY, extra_groups=[], env={"PATH": "/usr/bin:/bin", "HOME": "/"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 9
    assert "cannot make the state directory /.local/share/kpy: permission denied" in done.stderr
    assert "KPY_HOME" in done.stderr


def test_a_program_without_an_interpreter(kpy: Kpy, busybox_base: str, context: Path) -> None:
    """What PyInstaller makes says so with sys.frozen. COPY needs no program of ours; a RUN would start another kpy."""
    frozen = [sys.executable, "-c", "import sys; sys.frozen = True; from kpy.__main__ import main; sys.exit(main())", "build"]
    done = subprocess.run([*frozen, "-q", "."], cwd=context, capture_output=True, text=True, check=False, **kpy.spawn())  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    (context / "Dockerfile").write_text(f"FROM {busybox_base}\nRUN true\n")
    done = subprocess.run([*frozen, "."], cwd=context, capture_output=True, text=True, check=False, **kpy.spawn())  # type: ignore[call-overload]
    assert done.returncode == 8
    assert "a program without a Python interpreter of its own (PyInstaller or the like)" in done.stderr
    assert "install kpy with pip" in done.stderr


@pytest.mark.parametrize("base", ["busybox_base", "debian_base"])
def test_docker_run_with_an_init(docker: Docker, base: str, workdir: Path, request: pytest.FixtureRequest) -> None:
    """Docker mounts it at /sbin/docker-init, and so makes a /sbin that is neither the image's nor ours."""
    servers.tool("docker-init")
    live = LiveKpy(docker, builders.make(docker))
    (workdir / "x").write_text("x")
    (workdir / "Dockerfile").write_text(f"FROM {request.getfixturevalue(base)}\nCOPY x /sbin/x\nRUN test -f /sbin/x\n")
    options = ["--user", "1000", "--volume", f"{workdir}:/kpy/workspace"]
    done = live("build", "/kpy/workspace", options=[*options, "--init"], check=False)
    assert done.returncode == 8
    assert "hint: start the container without --init" in done.stderr
    live("build", "/kpy/workspace", options=options)
