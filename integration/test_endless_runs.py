"""A RUN that never ends, or that attacks what holds it: when kpy goes on or ends, no process of it lives (R23).

KPY_TEST_FULL=1 tries every attack in every mode; else each mode has the loops, and the attacks where they get through.
"""

import errno
import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import builder as builders
import pytest
import servers
from people import Kpy, account
from servers import Docker

HERE = Path(__file__).resolve().parent
FULL = os.environ.get("KPY_TEST_FULL") == "1"
SOON = 2.0  # seconds
PROCESSES = {"bomb": 150}
"""So many a RUN can have: where it takes them all, few, for the others on this machine."""
MOST = 1500
RESTRICTED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
CONTAINERS = {
    "live": ([], []),
    "restricted": (["--user", "1000:1000", *RESTRICTED], []),
    "random uid": (["--user", "123456:0", *RESTRICTED], []),
    "chroot": ([], ["--isolation=chroot"]),
    "shared pids": (["--user", "1000:1000", "--security-opt", "seccomp=unconfined"], ["--isolation=userns"]),
    "shared pids, real ids": (["--security-opt", "seccomp=unconfined"], ["--isolation=userns"]),
}
HOSTS = ("userns", "one id")
MODES = (*CONTAINERS, *HOSTS)
REACHABLE = tuple(CONTAINERS)
"""Where a RUN sees the process that holds it."""
Attack = Callable[..., "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """Of a build."""

    code: int
    alive: int
    told: float
    ended: float
    output: str

    def at(self, word: str) -> float:
        """When the program said so."""
        return float(re.findall(rf"{word} -?\d+ at ([\d.]+)", self.output)[-1])

    def number(self, word: str) -> int:
        """What it said with the word."""
        return int(re.findall(rf"{word} (-?\d+) at", self.output)[-1])


@pytest.fixture(scope="module")
def endless(area: Path) -> Path:
    """The program, under a name that nobody else's has."""
    path = area / f"endless{uuid.uuid4().hex[:6]}"
    subprocess.run([servers.tool("gcc"), "-O2", "-static", "-o", path, HERE / "endless.c"], check=True)
    return path


@pytest.fixture
def attack(docker: Docker, program: str, kpy: Kpy, endless: Path, workdir: Path) -> Attack:
    """Builds an image whose RUN does this, in this mode."""

    def build(mode: str, *words: str, term: str = "") -> Outcome:
        context = workdir / "c"
        context.mkdir(exist_ok=True)
        shutil.copy(endless, context)
        name = endless.name
        (context / "Dockerfile").write_text(
            f"FROM scratch\nCOPY {name} /opt/\nRUN {json.dumps([f'/opt/{name}', *words])}\nRUN {json.dumps([f'/opt/{name}', 'check'])}\n"
        )
        for path in (context, *context.iterdir()):
            path.chmod(0o755)
        drive = [f"{HERE}/endless_drive.py", name, term]
        limit = PROCESSES.get(words[0], MOST)
        if mode in CONTAINERS:
            return _in_container(docker, drive, context, limit, *CONTAINERS[mode])
        builder = kpy
        if mode == "one id":
            home = workdir / "solo"
            home.mkdir(exist_ok=True)
            user = account("kpy-solo")
            os.chown(home, user.uid, user.gid)
            builder = Kpy(program, user, home)
        return _on_host(builder, drive, context, limit)

    return build


def _in_container(
    docker: Docker, drive: list[str], context: Path, limit: int, options: Sequence[str], arguments: Sequence[str]
) -> Outcome:
    container = f"endless-{uuid.uuid4().hex[:8]}"
    command = [
        servers.tool("docker"), "run", "--rm", "--name", container, "--network", "none", "--pids-limit", str(limit), *options,
        "--volume", f"{context}:/kpy/workspace:ro", "--volume", f"{drive[0]}:/kpy/drive.py:ro", "--entrypoint", "/kpy/bin/python3",
        builders.make(docker), "-ISXutf8", "/kpy/drive.py", *drive[1:], "0",
        "/kpy/bin/kpy", "build", "--progress=plain", *arguments, "/kpy/workspace",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=60, check=False, env={**os.environ, "DOCKER_HOST": docker.socket}
        )
    finally:
        subprocess.run([servers.tool("docker"), "rm", "--force", container], capture_output=True, check=False)
    return _outcome(done)


def _on_host(kpy: Kpy, drive: list[str], context: Path, limit: int) -> Outcome:
    # In a pid namespace: whatever fails here, its processes end with it.
    command = [
        servers.tool("unshare"), "--pid", "--fork", "--kill-child", "--mount-proc", servers.tool("setpriv"), f"--reuid={kpy.user.uid}",
        f"--regid={kpy.user.gid}", "--clear-groups", "/usr/bin/python3", *drive, str(limit), kpy.program, "build", "--progress=plain",
        "--isolation=userns", str(context),
    ]  # fmt: skip
    env = {"HOME": str(kpy.home), "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
    return _outcome(subprocess.run(command, capture_output=True, timeout=60, check=False, env=env, cwd="/"))


def _outcome(done: "subprocess.CompletedProcess[bytes]") -> Outcome:
    assert done.stdout.startswith(b"{"), done.stdout + done.stderr
    answer = json.loads(done.stdout)
    print(answer["output"])
    return Outcome(answer["code"], answer["alive"], answer["told"], answer["ended"], answer["output"])


def _cases(full: Sequence[str], words: Sequence[str], few: dict[str, Sequence[str]]) -> list[object]:
    """Modes and what the RUN does in them: in the full form all of these, else some."""
    wanted = dict.fromkeys(full, words) if FULL else few
    return [pytest.param(mode, word, id=f"{mode}-{word}") for mode, some in wanted.items() for word in some]


ENDLESS = ("loops", "sessions", "bomb")


@pytest.mark.parametrize(
    ("mode", "what"), _cases(MODES, ENDLESS, {**dict.fromkeys(MODES, ["loops"]), "restricted": ["loops", "sessions", "bomb"]})
)
def test_the_next_step_begins_when_all_are_gone(attack: Attack, mode: str, what: str) -> None:
    def once() -> float:
        outcome = attack(mode, what)
        assert outcome.code == 0
        assert outcome.alive == 0
        assert outcome.number("alive") == 0
        return outcome.at("alive") - outcome.at("ended")

    _is_soon(once)


def _is_soon(once: Callable[[], float]) -> None:
    """Soon, at least once in three times: others may have the processors. That nobody is left holds each time."""
    took: list[float] = []
    while not took or (min(took) >= SOON and len(took) < 3):
        took.append(once())
    print("seconds:", took)
    assert min(took) < SOON


@pytest.mark.parametrize(
    ("mode", "what"),
    _cases(MODES, ENDLESS, {"live": ["bomb"], "restricted": ["loops"], "shared pids": ["loops"], "userns": ["loops"]}),
)
def test_sigterm_ends_them_all(attack: Attack, mode: str, what: str) -> None:
    def once() -> float:
        outcome = attack(mode, what, "60", term="started")
        assert outcome.code == 143
        assert outcome.alive == 0
        return outcome.ended - outcome.told

    _is_soon(once)


EMULATED = ("restricted", "random uid", "shared pids", "one id")
"""Who holds the RUN does work for it, and so can be made to use up its time."""


@pytest.mark.parametrize(
    ("mode", "what"),
    [*_cases(REACHABLE, ["kill"], {"live": ["kill"], "shared pids, real ids": ["kill"]}), *_cases(EMULATED, ["prlimit"], {"restricted": ["prlimit"]})],
)
def test_who_holds_a_run_is_killed_by_it(attack: Attack, mode: str, what: str) -> None:
    outcome = attack(mode, what, "9")

    assert outcome.alive == 0
    if outcome.number("attacked"):  # the kernel keeps them apart (Landlock 6)
        assert outcome.code == 0
        assert outcome.number("alive") == 0
        return
    assert outcome.code == 8
    assert re.search(r"ended with (-9|0\))", outcome.output)
    assert "alive" not in outcome.output, "a step after the attack"
    assert "ended 0" not in outcome.output, "it lived on"


@pytest.mark.parametrize(("mode", "what"), _cases(REACHABLE, ["stop"], {"live": ["stop"]}))
def test_who_holds_a_run_is_stopped_by_it(attack: Attack, mode: str, what: str) -> None:
    """It goes on, and so does the build."""
    outcome = attack(mode, what)

    assert outcome.code == 0
    assert outcome.alive == 0
    assert outcome.number("alive") == 0
    assert outcome.at("alive") - outcome.at("ended") < SOON


@pytest.mark.parametrize(("mode", "what"), _cases(MODES, ["traced"], dict.fromkeys(("live", "restricted", "userns", "one id"), ["traced"])))
def test_who_has_its_parent_trace_it_ends_as_others_do(attack: Attack, mode: str, what: str) -> None:
    outcome = attack(mode, what)

    assert outcome.number("attacked") == 0
    assert outcome.code == 0
    assert outcome.at("ended") > 0


@pytest.mark.parametrize(("mode", "what"), _cases(HOSTS, ["kill", "stop"], {"userns": ["kill"]}))
def test_in_a_namespace_nobody_can_be_reached(attack: Attack, mode: str, what: str) -> None:
    """Its own init takes no signal from inside, or none can be sent to it (Landlock 6); there is nobody else."""
    outcome = attack(mode, what)

    assert outcome.code == 0
    assert outcome.alive == 0
    assert outcome.number("attacked") in (0, errno.EPERM)
    assert outcome.number("alive") == 0
