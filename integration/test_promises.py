"""SECURITY.md says the truth: each cell of its table is tried, in a build whose Dockerfile is hostile."""

import functools
import json
import os
import platform
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import builder as builders
import promises
import pytest
import servers
from canaries import RESTRICTED
from people import User, account
from promises import PROBES, Cell
from servers import Docker

HERE = Path(__file__).resolve().parent
NAMES = ("store", "logins", "secrets", "context", "outside")
CONTAINERS: Mapping[str, tuple[str, list[str], list[str]]] = {
    "live, any uid but 0": ("1000:1000", [*RESTRICTED], []),
    "live, as root": ("0:0", [], []),
    "chroot": ("0:0", [], ["--isolation", "chroot"]),
}
CELLS = promises.table()


def test_each_row_has_its_probe() -> None:
    assert {cell.attack for cell in CELLS} == set(PROBES)


Tried = Callable[[str], Mapping[str, Any]]


@pytest.fixture(scope="module")
def tried(docker: Docker, program: str, dev: User, area: Path) -> Tried:
    """What a hostile build could do in a mode; each is built once."""
    probe = area / "probe"
    subprocess.run([servers.tool("gcc"), "-O2", "-static", "-o", probe, HERE / "promise_probe.c"], check=True)
    image = builders.make(docker)
    users = {"userns": dev, "userns, one id": account("kpy-solo")}

    @functools.cache
    def answer(mode: str) -> Mapping[str, Any]:
        if mode in users:
            return _on_host(users[mode], program, probe, area)
        return _in_container(docker, image, mode, probe, area)

    return answer


def _job(kpy: str, places: Mapping[str, str], flags: list[str], **more: object) -> str:
    return json.dumps({"kpy": kpy, "flags": flags, "places": places, "keyring": True, **more})


def _on_host(user: User, program: str, probe: Path, area: Path) -> dict[str, Any]:
    home = area / f"promises-{user.name}"
    home.mkdir()
    os.chown(home, user.uid, user.gid)
    places = {name: f"{home}/{name}" for name in NAMES}
    python = Path(program).parent / "python"
    package = subprocess.run([python, "-Ic", "import kpy; print(kpy.__path__[0])"], check=True, capture_output=True, text=True).stdout.strip()
    job = home / "job.json"
    flags = ["--isolation", "userns"]
    job.write_text(_job(program, places, flags, probe=str(probe), program=package, volume=f"{home}/volume", scratch=str(home)))
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "KPY_HOME": places["store"], "DOCKER_CONFIG": places["logins"]}
    argv = [python, "-I", HERE / "promise_driver.py", job]
    done = subprocess.run(
        argv, capture_output=True, check=False, cwd=home, timeout=600, env=environment, user=user.uid, group=user.gid, extra_groups=[], umask=0o077
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _in_container(docker: Docker, image: str, mode: str, probe: Path, area: Path) -> dict[str, Any]:
    user, options, flags = CONTAINERS[mode]
    uid, gid = map(int, user.split(":"))
    volume, log = area / f"volume-{mode}", area / f"log-{mode}"
    volume.mkdir(exist_ok=True)
    log.touch()
    for path in (volume, log):
        os.chown(path, uid, gid)
    places = {"store": "/kpy/state", "logins": "/kpy/.docker", "secrets": "/kpy/secrets", "context": "/kpy/workspace", "outside": "/kpy/outside"}
    job = _job("/kpy/bin/kpy", places, flags, probe="/kpy/driver/probe", program="/kpy/bin", volume="/srv/volume", scratch="/kpy/driver")
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        files = {"driver/drive.py": (HERE / "promise_driver.py").read_bytes(), "driver/job.json": job.encode(), "driver/probe": probe.read_bytes()}
        for name in ("driver", *(place.removeprefix("/kpy/") for place in places.values() if place not in ("/kpy/state", "/kpy/.docker"))):
            _add(tar, name, uid, gid, None)
        for name, data in files.items():
            _add(tar, name, uid, gid, data)
    argv = ["--entrypoint", "/kpy/bin/python3", "--user", user, "--volume", f"{volume}:/srv/volume", "--volume", f"{log}:/dev/termination-log"]
    name = docker("create", *argv, *options, image, "-ISXutf8", "/kpy/driver/drive.py", "/kpy/driver/job.json")
    try:
        environment = {**os.environ, "DOCKER_HOST": docker.socket}
        subprocess.run([servers.tool("docker"), "cp", "-", f"{name}:/kpy"], input=packed.getvalue(), env=environment, check=True, capture_output=True)
        return dict(json.loads(docker("start", "--attach", name, timeout=600).splitlines()[-1]))
    finally:
        docker("rm", "--force", name)


def _add(tar: tarfile.TarFile, name: str, uid: int, gid: int, data: bytes | None) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE if data is None else tarfile.REGTYPE, 0o755, uid, gid
    info.size = len(data or b"")
    tar.addfile(info, BytesIO(data or b""))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.attack} | {cell.mode}")
def test_promise(tried: Tried, cell: Cell) -> None:
    answer = tried(cell.mode)
    word = PROBES[cell.attack]
    could = answer["could"][word]

    assert could is not None, f"it was not tried:\n{answer['text']}"
    assert could is cell.expected(platform.release(), alone=answer["alone"].get(word, False)), answer["text"]
