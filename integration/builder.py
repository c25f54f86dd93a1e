"""The builder image of this checkout: kpy in it, and stages driven in it by bundle/drive_root.py."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import servers

HERE = Path(__file__).resolve().parent
# Of this run: all its processes share it, and another run on the same engine has its own.
IMAGE = f"kpy-builder:test-{os.environ.get('KPY_TEST_RUN') or os.getpid()}"
_CODE = (
    "import sys; sys.stdin = open('/work/job.json'); exec(compile(open('/drive.py').read(), 'drive', 'exec'))"
)


@cache
def make(docker: servers.Docker) -> str:
    """Make the image, once; its name."""
    with servers.turn("builder"):
        if not docker("image", "ls", "--quiet", IMAGE):
            subprocess.run(
                [sys.executable, HERE / "bundle" / "make-bundle", "--image", IMAGE],
                env={**os.environ, "DOCKER_HOST": docker.socket}, check=True, timeout=600,
            )  # fmt: skip
    return IMAGE


@dataclass(frozen=True)
class LiveKpy:
    """kpy as root in new, ordinary containers: default capabilities, default seccomp profile, the host's network."""

    docker: servers.Docker
    image: str

    def __call__(
        self, *argv: str, options: Sequence[str] = (), check: bool = True, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; `options` are those of `docker run`."""
        command = [servers.tool("docker"), "run", "--rm", "--interactive", "--network", "host", *options, self.image, *argv]
        done = subprocess.run(
            command, input=stdin, capture_output=True, timeout=600, check=False,
            env={**os.environ, "DOCKER_HOST": self.docker.socket},
        )  # fmt: skip
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode:
            raise AssertionError(f"kpy {' '.join(argv)}: exit code {done.returncode}\n{out}{err}")
        return subprocess.CompletedProcess(command, done.returncode, out, err)


def shell(script: str, **more: Any) -> dict[str, Any]:
    """A RUN for `Drive`."""
    return {"argv": ["/bin/sh", "-c", script], **more}


@dataclass(frozen=True)
class Drive:
    """Runs stages in a new, ordinary container: no options that give it more rights."""

    docker: servers.Docker
    image: str
    workdir: Path
    strategy: str = "live"

    def arguments(self, stages: list[dict[str, Any]], *more: str) -> list[str]:
        """Of `docker run` or `docker create`."""
        (self.workdir / "job.json").write_text(json.dumps({"strategy": self.strategy, "stages": stages}))
        tars = sorted({name for stage in stages for name in stage["layers"] if not name.startswith("run:")})
        volumes = [part for tar in tars for part in ("--volume", f"{tar}:{tar}:ro")]
        volumes += [
            "--volume",
            f"{HERE}/bundle/drive_root.py:/drive.py:ro",
            "--volume",
            f"{self.workdir}:/work",
        ]
        return [*volumes, *more, "--entrypoint", "/kpy/bin/python3", self.image, "-ISXutf8", "-c", _CODE]

    def __call__(self, stages: list[dict[str, Any]], *more: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.docker("run", "--rm", *self.arguments(stages, *more)))
        return answer
