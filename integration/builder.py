"""The builder image of this checkout, and stages driven in it by bundle/drive_root.py."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import servers

HERE = Path(__file__).resolve().parent
IMAGE = "kpy-builder:test"
_CODE = (
    "import sys; sys.stdin = open('/work/job.json'); exec(compile(open('/drive.py').read(), 'drive', 'exec'))"
)


def make(docker: servers.Docker) -> str:
    """Make the image; its name."""
    subprocess.run(
        [sys.executable, HERE / "bundle" / "make-bundle", "--image", IMAGE],
        env={**os.environ, "DOCKER_HOST": docker.socket}, check=True, timeout=300,
    )  # fmt: skip
    return IMAGE


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
