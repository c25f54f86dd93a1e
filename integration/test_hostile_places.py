"""What the builder needs in a container of its own image is kept from a RUN wherever it is mounted; and what a RUN puts in its
place is neither read nor written by the builder."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import builder as builders
import pytest
from builder import LiveKpy
from servers import Docker
from test_restricted import RESTRICTED

TOKEN = "dG9rZW46b2YtdGhlLWJ1aWxkZXI="
PLACES = {
    "restricted": ["--user", "1000:1000", *RESTRICTED],
    "random uid": ["--user", "123456:0", *RESTRICTED],
    "no capabilities": ["--user", "0:0", *RESTRICTED],
}
PROGRAMS = """FROM scratch
COPY busybox /opt/b/busybox
RUN ["/opt/b/busybox", "--install", "-s", "/opt/b"]
ENV PATH=/opt/b
SHELL ["/opt/b/sh", "-c"]
"""


class Pod:
    """Builds in a new container, with volumes of its uid's."""

    def __init__(self, docker: Docker, workdir: Path, options: Sequence[str]) -> None:
        self._live, self._options, self.top = LiveKpy(docker, builders.make(docker)), list(options), workdir
        self._uid, self._gid = map(int, options[1].split(":"))
        self.volume("context", "/kpy/workspace", {})
        shutil.copy(shutil.which("busybox") or "/bin/busybox", workdir / "context" / "busybox")
        self.login = json.dumps({"auths": {"registry.test": {"auth": TOKEN}}})
        self.volume("logins", "/kpy/.docker", {"config.json": self.login})

    def volume(self, name: str, target: str, files: dict[str, str]) -> Path:
        """Mount a directory with these files."""
        top = self.top / name
        for file, text in files.items():
            (top / file).parent.mkdir(parents=True, exist_ok=True)
            (top / file).write_text(text)
        top.mkdir(exist_ok=True)
        for path in (top, *top.rglob("*")):
            os.chown(path, self._uid, self._gid)
        self._options += ["--volume", f"{top}:{target}"]
        return top

    def __call__(self, dockerfile: str, *arguments: str, context: str = "/kpy/workspace", more: Sequence[str] = ()) -> tuple[int, str]:
        (self.top / "context" / "Dockerfile").write_text(PROGRAMS + dockerfile)
        done = self._live(
            "build", "--progress", "plain", "-o", "type=cacheonly", *arguments, context, check=False, options=[*self._options, *more]
        )
        assert "Traceback" not in done.stderr
        assert done.returncode in (0, 2, 4, 5, 8), done.stderr
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(params=PLACES)
def pod(docker: Docker, workdir: Path, request: pytest.FixtureRequest) -> Pod:
    return Pod(docker, workdir, PLACES[request.param])


def test_logins_and_secrets_are_kept_wherever_they_are(pod: Pod) -> None:
    """Where kaniko had its login, and secrets in volumes and files at names in /."""
    kaniko = pod.volume("kaniko", "/kaniko/.docker", {"config.json": pod.login})
    vol = pod.volume("vol", "/vol", {"token": TOKEN})
    (vol.parent / "single").write_text(TOKEN)
    os.chown(vol.parent / "single", vol.stat().st_uid, vol.stat().st_gid)

    code, said = pod(
        "RUN cat /kaniko/.docker/config.json /vol/token /token; echo evil > /kaniko/.docker/config.json; echo evil > /vol/token; true\n",
        "--secret", "id=a,src=/vol/token", "--secret", "id=b,src=/token",
        more=["--env", "DOCKER_CONFIG=/kaniko/.docker", "--volume", f"{vol.parent}/single:/token"],
    )  # fmt: skip

    assert code == 0, said
    assert TOKEN not in said
    assert (kaniko / "config.json").read_text() == pod.login
    assert (vol / "token").read_text() == TOKEN


def test_a_context_that_became_a_link_is_not_mounted(pod: Pod, workdir: Path) -> None:
    builds = pod.volume("builds", "/builds", {"g/p/config.json": "of the context"})
    shutil.copy(workdir / "context" / "busybox", builds / "g" / "p")
    text = PROGRAMS + (
        "RUN cd /builds/g && mv p p2 && ln -s /kpy/.docker p; true\n"
        "RUN --mount=type=bind,source=config.json,target=/opt/c cat /opt/c; true\nRUN --mount=type=bind,target=/opt/d cat /opt/d/config.json; true\n"
    )
    (builds / "g" / "p" / "Dockerfile").write_text(text)

    _, said = pod("", context="/builds/g/p")

    assert TOKEN not in said


@pytest.mark.parametrize("trick", ["ln -s /kpy/.docker s", "mkdir s; mkfifo s/config.json"])
def test_a_secret_that_became_a_link_or_a_pipe_is_not_read(pod: Pod, trick: str) -> None:
    pod.volume("home", "/home/me", {"s/config.json": "mine"})

    code, said = pod(
        f"RUN cd /home/me && mv s s2 && {trick}; true\nRUN --mount=type=secret,id=t cat /run/secrets/t\n",
        "--secret", "id=t,src=/home/me/s/config.json",
    )  # fmt: skip

    assert TOKEN not in said
    assert code == 0 or "another file now" in said or "cannot read" in said, said


def test_a_volume_that_has_the_store_is_no_part_of_the_image(pod: Pod, workdir: Path) -> None:
    cache = pod.volume("cache", "/cache", {})

    _, said = pod(
        "RUN ls /cache/kpy/images && echo SEEN-$((40+2)); touch /cache/kpy/planted && echo PLANTED-$((40+2)); true\n",
        more=["--env", "KPY_HOME=/cache/kpy"],
    )

    assert "PLANTED-42" not in said
    assert not list(cache.rglob("planted"))


def test_dev_null_is_a_device_and_no_link(pod: Pod) -> None:
    code, said = pod("RUN rm -f /dev/null && ln -s /kpy/.docker/config.json /dev/null; true\nRUN cat; echo evil >&0; true\n")

    assert TOKEN not in said
    assert code == 0 or "/dev/null of this container cannot be used" in said, said
    assert (pod.top / "logins" / "config.json").read_text() == pod.login
