"""The builder's own files as canaries, in every mode that kpy has, and builds beside them: none may read, change, move or
remove one of them, nor show what is in it."""

import gzip
import io
import json
import os
import secrets
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import servers
import trees
from people import Kpy
from servers import Docker

HERE = Path(__file__).resolve().parent
RESTRICTED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
LANDLOCK = {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}
_OF_ADMIN = {"mount", "unshare", "setns", "umount2", "open_tree", "move_mount", "fsopen", "fsmount"}
NAMES = ("store", "logins", "secrets", "context", "outside")
IN_CONTAINER = {
    "store": "/kpy/state", "logins": "/kpy/.docker", "secrets": "/kpy/secrets", "context": "/kpy/workspace", "outside": "/kpy/outside",
}  # fmt: skip
ENDS = {0, 2, 4, 5, 8}  # 2: an output that leads through a link of an earlier build
"""How a hostile build may end: with an image, with a command that failed, with a file that is not found, or with an error that
says what is refused."""


@dataclass(frozen=True)
class Build:
    """What is built, and under which name it is pushed; `more` are further arguments."""

    dockerfile: str
    name: str = ""
    more: tuple[str, ...] = ()

    def argv(self) -> list[str]:
        return [*(("--push", "-t", self.name) if self.name else ()), *self.more]


@dataclass(frozen=True)
class Done:
    """How a build ended, and what was left of the canaries: what differs from before."""

    build: Build
    status: int
    out: str
    err: str
    harm: Mapping[str, object]
    tokens: Mapping[str, str]

    def check(self) -> None:
        """Nothing was touched and nothing is seen; and it ended in words that a user understands."""
        assert not self.harm, f"{self.harm}\n{self.err}"
        self.check_end()
        shown = [name for name, token in self.tokens.items() if token in self.out + self.err]
        assert not shown, f"the build shows {shown}:\n{self.err}"
        if self.status == 0 and self.build.name:
            assert self.leaks() == [], self.err

    def check_end(self) -> None:
        assert "Traceback" not in self.err, self.err
        assert self.status in ENDS, f"exit code {self.status}:\n{self.err}"

    def leaks(self) -> list[str]:
        """The places of which something is in the layers: in a name or in a file."""
        found = set()
        for layer in layer_tars(self.build.name):
            found |= {name for name, token in self.tokens.items() if token.encode() in layer}
        return sorted(found)

    def files(self) -> dict[str, bytes]:
        """The small files of the image below /opt, the last layer's where several have them."""
        found: dict[str, bytes] = {}
        for layer in layer_tars(self.build.name):
            with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
                for member in tar:
                    data = tar.extractfile(member) if member.isreg() and member.name.startswith("opt/") else None
                    if data is not None:
                        found[member.name] = data.read()
        return found


def layer_tars(name: str) -> list[bytes]:
    """Its layers, the lowest first, unpacked."""
    host, _, repository = name.rpartition(":")[0].partition("/")
    found = []
    for digest in trees.layers(name):
        with urllib.request.urlopen(f"http://{host}/v2/{repository}/blobs/{digest}", timeout=60) as blob:
            found.append(gzip.decompress(blob.read()))
    return found


@dataclass(frozen=True)
class Mode:
    """A way to build. `run` gives what canary_driver.py prints; `places` are where the builder's files are there; `flags` are of
    every build."""

    name: str
    run: Callable[[dict[str, Any], Path], dict[str, Any]]
    places: Callable[[Path], Mapping[str, str]]
    flags: tuple[str, ...] = field(default=())

    @staticmethod
    def place(area: Path) -> Path:
        """A new directory for `builds`."""
        place = Path(tempfile.mkdtemp(prefix="canaries-", dir=area))
        place.chmod(0o755)
        return place

    def builds(self, builds: Sequence[Build], place: Path) -> list[Done]:
        """Do them one after another, the first before there are canaries."""
        tokens = {name: f"{name}-{secrets.token_hex(8)}" for name in NAMES}
        job = {
            "places": dict(self.places(place)), "tokens": tokens,
            "builds": [{"dockerfile": build.dockerfile, "argv": [*self.flags, *build.argv()]} for build in builds],
        }  # fmt: skip
        answer = self.run(job, place)
        looks = answer["looks"]
        return [
            Done(build, done["status"], done["out"], done["err"], harm(before, after), tokens)
            for build, done, before, after in zip(builds, answer["builds"], [looks[0], *looks], looks, strict=False)
        ]


def harm(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, object]:
    """What is not as it was. In the store builds put new things."""
    found = {}
    for name, old in before.items():
        new = after[name]
        for path in sorted({*old, *new} if name != "store" else {*old, *(path for path in new if "planted" in path)}):
            if old.get(path) != new.get(path):
                found[f"{name}/{path}"] = (old.get(path), new.get(path))
    return found


def in_container(name: str, docker: Docker, image: str, uid: int, gid: int, *options: str, volume: bool = False, **more: Any) -> Mode:
    """kpy in a container of its own, whose files they all are; with `volume`, but for the store."""

    def run(job: dict[str, Any], place: Path) -> dict[str, Any]:
        given = [*options]
        if volume:
            (place / "state").mkdir()
            os.chown(place / "state", uid, gid)
            given += ["--volume", f"{place}/state:/kpy/state"]
        argv = ["--entrypoint", "/kpy/bin/python3", "--network", "host", "--user", f"{uid}:{gid}", *given, image]
        name = docker("create", *argv, "-ISXutf8", "/kpy/driver/drive.py", "/kpy/driver/job.json")
        try:
            job = {**job, "kpy": "/kpy/bin/kpy", "dockerfiles": "/kpy/driver"}
            copied = _directories(json.dumps(job), uid, gid)
            client = [servers.tool("docker"), "cp", "-", f"{name}:/kpy"]
            environment = {**os.environ, "DOCKER_HOST": docker.socket}
            subprocess.run(client, input=copied, env=environment, check=True, capture_output=True)
            answer: dict[str, Any] = json.loads(docker("start", "--attach", name, timeout=1200))
            return answer
        finally:
            docker("rm", "--force", name)

    return Mode(name, run, lambda _: IN_CONTAINER, **more)


def _directories(job: str, uid: int, gid: int) -> bytes:
    """What the builder's user cannot make in the image: a tar for /kpy."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in ("driver", "secrets", "secrets/0", "workspace", "workspace/data", "outside"):
            tar.addfile(_member(name, uid, gid, kind=tarfile.DIRTYPE, mode=0o755))
        files = {
            "driver/drive.py": (HERE / "canary_driver.py").read_text(), "driver/job.json": job, "secrets/0/value": "s3cret\n",
            "workspace/data/file": "data\n", ".docker/config.json": '{"auths": {}}\n', "secrets/key": KEY,
        }  # fmt: skip
        for name, text in files.items():
            tar.addfile(_member(name, uid, gid, size=len(text.encode()), mode=0o600), io.BytesIO(text.encode()))
    return packed.getvalue()


def _member(name: str, uid: int, gid: int, *, kind: bytes = tarfile.REGTYPE, size: int = 0, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode, info.uid, info.gid, info.mtime = kind, size, mode, uid, gid, 1_000_000_000
    return info


def on_host(name: str, kpy: Callable[[Path], Kpy], **more: Any) -> Mode:
    """kpy that pip installed, as a user of this machine."""

    def places(place: Path) -> Mapping[str, str]:
        home = place / "home"
        return {
            "store": f"{home}/.cache/kpy", "logins": f"{home}/.docker", "secrets": f"{home}/secrets", "context": f"{home}/workspace",
            "outside": f"{home}/outside",
        }  # fmt: skip

    def run(job: dict[str, Any], place: Path) -> dict[str, Any]:
        home = place / "home"
        user = kpy(home)
        with tarfile.open(fileobj=io.BytesIO(_directories("", user.user.uid, user.user.gid))) as tar:
            tar.extraction_filter = lambda member, path: member  # our own, a moment old: all of it
            tar.extractall(home, numeric_owner=True)
        (home / "driver" / "job.json").write_text(json.dumps({**job, "kpy": user.program, "dockerfiles": f"{home}/driver"}))
        for made in (home, home / ".docker"):
            os.chown(made, user.user.uid, user.user.gid)
        (home / "driver" / "job.json").chmod(0o644)
        python = Path(user.program).parent / "python"
        argv = [python, "-I", home / "driver" / "drive.py", home / "driver" / "job.json"]
        variables = user.with_env(KPY_HOME=f"{home}/.cache/kpy").spawn()
        done = subprocess.run(argv, capture_output=True, check=False, cwd=home, timeout=1200, **variables)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return Mode(name, run, places, **more)


def without_landlock(path: Path) -> list[str]:
    """Docker's own profile of system calls, but with Landlock's refused: options of `docker run`."""
    profile = json.loads(Path("/usr/share/containers/seccomp.json").read_text())
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in LANDLOCK | _OF_ADMIN]
    profile["syscalls"] = [rule for rule in profile["syscalls"] if rule["names"]]
    path.write_text(json.dumps(profile))
    return ["--security-opt", f"seccomp={path}"]


def _key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    made = ed25519.Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.OpenSSH
    return made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


KEY = _key()
