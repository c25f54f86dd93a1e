"""What `kpy doctor` prints, and its exit codes."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kpy.app.doctor import Diagnosis, Outlook, Probe
from kpy.app.options import Environment
from kpy.cli import doctor
from kpy.cli.doctor import table
from kpy.cli.terminal import Terminal
from kpy.errors import UsageError
from tests.app.test_app_doctor import FACTS

ROOT = Path(__file__).resolve().parents[2]
PROBES = (
    Probe("userns", "user namespace", errno.EPERM, "RUN apart from the builder"),
    Probe("mount", "mount", errno.EPERM, "(kpy does not need it)"),
    Probe("chown", "chown", 0, "RUN as root"),
)
WORKS = Diagnosis(("E1", "root in an ordinary container"), FACTS, PROBES, Outlook("live"), {"r.example": "", "s.example": "away"})
FAILS = Diagnosis(("E2", "a user"), FACTS, PROBES, Outlook("none", "", "no namespaces", "allow them"))


def run(terminal: Terminal, found: Diagnosis, *argv: str) -> tuple[int, str]:
    code = doctor.run(argv, terminal, lambda world, registries: found)
    return code, terminal.stdout.getvalue().decode()  # type: ignore[attr-defined]


def test_a_place_where_run_works(terminal: Terminal) -> None:
    code, said = run(terminal, WORKS)
    assert code == 0
    assert said == (
        "This looks like E1: root in an ordinary container (uid 1000, gid 1000).\n"
        "RUN works: --isolation=live.\n\n"
        "  user namespace  no (operation not permitted)  would give: RUN apart from the builder\n"
        "  mount           no (operation not permitted)  (kpy does not need it)\n"
        "  chown           yes                           RUN as root\n\n"
        "  disk      0 MB free in /s, only 1 inodes\n"
        "  memory    0 MB free\n"
        "  landlock  none; not kept apart: files (Linux 5.19), their length (Linux 6.2), signals and abstract sockets (Linux 6.12)\n"
        "  registry  r.example: reached\n"
        "  registry  s.example: away\n"
    )


def test_a_place_where_it_does_not(terminal: Terminal) -> None:
    code, said = run(terminal, FAILS)
    assert code == 8
    assert "RUN does not work: no namespaces.\n  allow them\n" in said


def test_json(terminal: Terminal) -> None:
    code, said = run(terminal, FAILS, "--format=json", "--fix=docker")
    document: dict[str, Any] = json.loads(said)
    assert code == 8
    assert document["environment"] == {"id": "E2", "name": "a user"}
    assert document["run"]["possible"] is False
    assert document["probes"][0] == {
        "name": "userns", "works": False, "error": "operation not permitted", "detail": "", "gives": "RUN apart from the builder",
    }  # fmt: skip
    assert document["fix"][0]["lines"] == ["docker run --user 0 --security-opt no-new-privileges"]


@pytest.mark.parametrize("target", doctor.TARGETS)
def test_a_fix_is_comments_and_what_to_paste(terminal: Terminal, target: str) -> None:
    code, said = run(terminal, FAILS, "--fix", target)
    assert code == 8
    assert said.startswith("# ")


def test_the_network_is_used_for_what_is_asked_only(terminal: Terminal) -> None:
    seen: list[tuple[str, ...]] = []

    def diagnose(world: Environment, registries: tuple[str, ...]) -> Diagnosis:
        seen.append(registries)
        return WORKS

    doctor.run([], terminal, diagnose)
    doctor.run(["--registry", "a", "--registry=b:5000"], terminal, diagnose)
    assert seen == [(), ("a", "b:5000")]


@pytest.mark.parametrize("argv", [["--fix=heroku"], ["--format=xml"], ["here"]])
def test_usage(terminal: Terminal, argv: list[str]) -> None:
    with pytest.raises(UsageError):
        doctor.run(argv, terminal, lambda world, registries: WORKS)


def test_an_answer_of_a_stranger_is_one_line(terminal: Terminal) -> None:
    found = replace(WORKS, registries={"r.example": "no\nerror: forged\x1b[2J"})
    lines = table(found)
    assert "  registry  r.example: no error: forged" in lines


def test_a_state_directory_that_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "state"
    home.mkdir()
    home.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-m", "kpy", "doctor"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "KPY_HOME": str(home), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (8, "")
    assert f"RUN does not work: the state directory {home} is not safe: others can write to it (mode 0777)." in done.stdout
    assert "set KPY_HOME to a directory of your own" in done.stdout
    assert "no (operation not permitted)" in next(line for line in done.stdout.splitlines() if "the state directory  " in line)
