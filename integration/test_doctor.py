"""`kpy doctor` in the environments of FEATURES section 5 that this kind of machine has, and its advice, followed."""

import json
import os
import pwd
import shlex
import subprocess
from pathlib import Path
from typing import Any

import builder as builders
import pytest
from builder import LiveKpy
from people import Kpy, User
from servers import Docker, Registry

RESTRICTED = ("--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
OPENSHIFT = ("--user", "123456:0", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


@pytest.fixture
def live(docker: Docker) -> LiveKpy:
    return LiveKpy(docker, builders.make(docker))


def asked(live: LiveKpy, *options: str) -> tuple[int, dict[str, Any]]:
    done = live("doctor", "--format", "json", options=options, check=False)
    assert done.returncode in (0, 8), done.stderr
    return done.returncode, json.loads(done.stdout)


def works(document: dict[str, Any]) -> dict[str, bool]:
    return {probe["name"]: probe["works"] for probe in document["probes"]}


def test_root_in_an_ordinary_container(live: LiveKpy) -> None:  # E1
    code, found = asked(live)
    assert (code, found["environment"]["id"], found["run"]["isolation"]) == (0, "E1", "live")
    answers = works(found)
    assert [name for name in ("chroot", "chown", "setuid", "mknod", "filecap", "listener", "memory", "top", "state") if not answers[name]] == []
    assert [name for name in ("userns", "ids", "overlay", "proc", "mount", "network") if answers[name]] == []


@pytest.mark.parametrize(("options", "expected"), [(RESTRICTED, "E2"), (OPENSHIFT, "E9")])
def test_a_container_without_rights(live: LiveKpy, options: tuple[str, ...], expected: str) -> None:  # E2, E9
    code, found = asked(live, *options)
    assert found["environment"]["id"] == expected
    assert found["facts"]["no_new_privileges"] is True
    answers = works(found)
    assert (answers["listener"], answers["memory"]) == (True, True)  # what an emulated root stands on
    assert [name for name in ("userns", "mount", "chroot", "chown", "setuid", "mknod", "filecap", "network", "top") if answers[name]] == []
    assert (code == 0) is found["run"]["possible"]


def test_a_container_that_allows_user_namespaces(live: LiveKpy) -> None:  # EXECUTION 0, row 4
    _, found = asked(live, "--user", "1000:1000", "--security-opt", "seccomp=unconfined")
    answers = works(found)
    assert found["environment"]["id"] == "unconfined"
    assert (answers["userns"], answers["ids"], answers["proc"]) == (True, False, False)


def test_root_where_user_namespaces_are_allowed(live: LiveKpy, workdir: Path) -> None:
    code, found = asked(
        live, "--security-opt", "seccomp=unconfined", "--volume", f"{workdir}:/kpy/state", "--env", "KPY_HOME=/kpy/state"
    )
    assert (code, works(found)["overlay"]) == (0, True)


def test_a_user_of_a_host(kpy: Kpy) -> None:  # E4
    found = json.loads(kpy("doctor", "--format=json").stdout)
    assert (found["environment"]["id"], found["run"]["isolation"]) == ("E4", "userns")
    assert works(found)["ids"]
    assert kpy("doctor").stdout.startswith("This looks like E4: a user of a host, with subordinate ids")


def test_a_user_without_subordinate_ids(kpy: Kpy) -> None:  # E5
    try:
        account = pwd.getpwnam("solo")
    except KeyError:
        subprocess.run(["useradd", "--create-home", "solo"], check=True)
        account = pwd.getpwnam("solo")
    for file in ("/etc/subuid", "/etc/subgid"):
        lines = Path(file).read_text().splitlines(keepends=True)
        if any(line.startswith("solo:") for line in lines):  # useradd gives them where it can
            Path(file).write_text("".join(line for line in lines if not line.startswith("solo:")))
    os.chown(kpy.home, account.pw_uid, account.pw_gid)
    solo = Kpy(kpy.program, User("solo", account.pw_uid, account.pw_gid, subordinate=False), kpy.home)
    done = solo("doctor", "--format=json", check=False)
    found = json.loads(done.stdout)
    assert found["environment"]["id"] == "E5"
    assert (works(found)["userns"], works(found)["ids"]) == (True, False)
    assert (done.returncode, found["run"]["isolation"]) == (0, "userns")
    assert found["run"]["how"] == "layers unpacked into one directory, processes of its own, root and other users emulated"


@pytest.mark.parametrize("options", [RESTRICTED, OPENSHIFT])
def test_the_advice_for_docker_works(live: LiveKpy, options: tuple[str, ...], workdir: Path) -> None:
    """Every command that it shows: RUN is possible in a container that is started so."""
    advice = live("doctor", "--fix", "docker", options=options, check=False).stdout
    commands = [shlex.split(line) for line in advice.splitlines() if line.startswith("docker run")]
    assert commands
    for command in commands:
        more = command[2:] or list(options)  # no flag is needed
        more = [word.replace("kpy-state:", f"{workdir}:") for word in more]
        code, found = asked(live, *more)
        assert (code, found["run"]["possible"]) == (0, True), command


def test_a_registry_is_reached_only_when_asked_for(kpy: Kpy, registry: Registry) -> None:
    registry.forget_requests()
    kpy("doctor")
    assert registry.requests() == []
    assert f"registry  {registry.host}: reached" in kpy("doctor", "--registry", registry.host).stdout
    assert registry.requests() != []
