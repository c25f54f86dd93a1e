"""What a RUN shares with its builder's container, and leaves there: IPC objects, terminals, the container's last message."""

import os
import re
from pathlib import Path

import builder as builders
import pytest
from builder import LiveKpy
from servers import Docker
from test_restricted import RESTRICTED

HERE = Path(__file__).resolve().parent
PLACES = {
    "restricted": ["--user", "1000:1000", *RESTRICTED],
    "random uid": ["--user", "123456:0", *RESTRICTED],
    "root": [],
}


def _said(text: str) -> list[str]:
    return [line.rstrip("\r") for line in re.findall(r"^#\d+ [\d.]+ (.*)$", text, re.MULTILINE)]


def _context(workdir: Path, dockerfile: str) -> list[str]:
    context = workdir / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(dockerfile)
    (context / "lent.py").write_bytes((HERE / "lent.py").read_bytes())
    return ["--volume", f"{context}:/kpy/workspace:ro"]


KEY = 77001
OTHER = f"""
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.shmget({KEY}, 4096, 0o1666), libc.semget({KEY}, 1, 0o1666), libc.msgget({KEY}, 0o1666)
libc.mq_open(b"/other", os.O_CREAT | os.O_RDWR, 0o666, None)
time.sleep(600)
"""


@pytest.mark.parametrize("place", PLACES)
def test_ipc_objects_of_a_run_are_gone_and_those_of_others_stay(docker: Docker, python_base: str, workdir: Path, place: str) -> None:
    """The others are another container of the same pod."""
    run = f"RUN python3 /opt/lent.py make {KEY + 1}\n"
    see = f"RUN python3 /opt/lent.py see {KEY}\n"
    dockerfile = f"FROM {python_base}\nCOPY lent.py /opt/\n{run}{see}USER 1234\n{run}{see}"
    live = LiveKpy(docker, builders.make(docker))

    with docker.container("--ipc", "shareable", *PLACES[place], "--entrypoint", "/kpy/bin/python3", live.image, "-c", OTHER) as other:
        options = [*_context(workdir, dockerfile), "--ipc", f"container:{other}", *PLACES[place]]
        done = live("build", "--progress", "plain", "--no-cache", "-o", "type=cacheonly", "/kpy/workspace", options=options)

    said = _said(done.stderr)
    assert [line for line in said if line.startswith("made ")] == ["made shm", "made sem", "made msg", "made queue"] * 2, done.stderr
    assert [line for line in said if line.startswith("seen ")] == ["seen shm 1 0", "seen sem 1 0", "seen msg 1 0", "seen queue other"] * 2
    assert "cannot remove" not in done.stderr
    assert ("a RUN is root here as the builder is" in done.stderr) == (place == "root")


@pytest.mark.parametrize("place", PLACES)
def test_no_run_writes_to_the_terminal_of_the_container(docker: Docker, python_base: str, workdir: Path, place: str) -> None:
    dockerfile = (
        f"FROM {python_base}\nCOPY lent.py /opt/\nRUN python3 /opt/lent.py write 0\n"
        "RUN script -qc 'test -t 0 && tty' /tmp/log | grep /dev/pts/ && test -s /tmp/log\n"
    )
    live = LiveKpy(docker, builders.make(docker))

    options = ["--network", "host", "--tty", *_context(workdir, dockerfile), *PLACES[place]]
    with docker.container(*options, live.image, "build", "--progress", "plain", "-o", "type=cacheonly", "/kpy/workspace") as name:
        code, text = docker("wait", name), docker("logs", name).replace("\r\n", "\n")

    said = _said(text)
    assert code == "0", text
    assert "forged" not in text
    assert {"EBUSY /dev/console", "EBUSY /dev/pts/0", "ENXIO /dev/tty"} <= set(said), text
    assert {"own terminal mine True", "own again again"} <= set(said), text


@pytest.mark.parametrize("place", PLACES)
def test_the_message_of_the_container_is_the_builder_s(docker: Docker, python_base: str, workdir: Path, place: str) -> None:
    message = workdir / "termination-log"
    message.touch()
    message.chmod(0o666)
    dockerfile = (
        f"FROM {python_base}\nCOPY lent.py /opt/\nRUN python3 /opt/lent.py write 0\n"
        "RUN ls /dev > /tmp/list && grep -q urandom /tmp/list && head -c 10 /dev/urandom > /dev/null && date > /dev/shm/x && ls /dev/fd/\n"
        "RUN <<X\n#!/bin/sh\necho script\nX\n"
    )
    options = [*_context(workdir, dockerfile), "--volume", f"{message}:/dev/termination-log", *PLACES[place]]
    live = LiveKpy(docker, builders.make(docker))

    done = live("build", "--progress", "plain", "-o", "type=cacheonly", "/kpy/workspace", options=options)

    said = _said(done.stderr)
    assert "own again again" in said
    assert "script" in said
    if place != "root":  # root of the container is kept by nothing, but what it writes is gone when it ends
        assert "EACCES /dev/termination-log" in said
        assert "changed" not in said
    assert message.read_text() == ""
    assert os.listdir("/dev/shm").count("x") == 0

    done = live("executor", "--context", "dir:///kpy/workspace", "--no-push", "--digest-file", "/dev/termination-log", options=options)

    assert re.fullmatch("sha256:[0-9a-f]{64}", message.read_text())
    assert message.read_text() in done.stdout
