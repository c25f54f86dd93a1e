"""The two real builds of the examples in every environment that this machine can be (FEATURES 5): as a table, and for tests.

Each environment is a command that runs kpy there. All build the same contexts on the same bases with
SOURCE_DATE_EPOCH and rewrite-timestamp (A16): the images must be the same, bit by bit, wherever they were built.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import servers
from applications import make_wheel
from people import User, account
from servers import Docker

EXAMPLES = Path(__file__).resolve().parent / "examples"
EPOCH = "1700000000"
RESTRICTED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
# Root of this machine may lack CAP_SYS_RESOURCE: podman's own limits would be higher than it may set.
_PODMAN_LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
_IDS = ("--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536")


@dataclass(frozen=True)
class Environment:
    """A place to build in. `argv` makes the command line of `kpy build` there: it gets the context, and the arguments
    before it. `key` is the row of FEATURES 5."""

    key: str
    title: str
    argv: Callable[[Path, Sequence[str]], list[str]]
    spawn: Mapping[str, object] = field(default_factory=dict)

    def build(self, context: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.argv(context, arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", check=False, timeout=900, **self.spawn,
        )  # type: ignore[call-overload, no-any-return]


def _as_user(key: str, title: str, program: str, user: User, home: Path) -> Environment:
    home.mkdir(parents=True, exist_ok=True)
    os.chown(home, user.uid, user.gid)
    return Environment(
        key, title, lambda context, arguments: [program, *arguments, str(context)],
        {"user": user.uid, "group": user.gid, "extra_groups": [], "umask": 0o022, "cwd": "/",
         "env": {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}},
    )  # fmt: skip


def _in_container(key: str, title: str, engine: Sequence[str], image: str, *options: str, env: Mapping[str, str]) -> Environment:
    def argv(context: Path, arguments: Sequence[str]) -> list[str]:
        mount = ["--volume", f"{context}:/kpy/workspace:ro"]
        return [*engine, "run", "--rm", "--network", "host", *mount, *options, image, *arguments, "/kpy/workspace"]

    return Environment(key, title, argv, {"env": {**os.environ, **env}})


def environments(docker: Docker, image: str, program: str, area: Path, *options: str) -> Iterator[Environment]:
    """All of them. `image` has the builder as its entrypoint, `options` are for its containers; `program` is the builder
    on the host, a kpy that pip installed; `area` a directory that all users can enter."""
    in_docker = [servers.tool("docker")], image
    env = {"DOCKER_HOST": docker.socket}
    yield _in_container("E1", "root in a plain container (`docker run`)", *in_docker, *options, env=env)
    yield _in_container("E2", "Pod Security restricted (`docker run --user 1000:1000`, no capabilities, no new privileges)",
                        *in_docker, *options, "--user", "1000:1000", *RESTRICTED, env=env)  # fmt: skip
    yield _in_container("E9", "OpenShift's random uid (`docker run --user 123456:0`, restricted)",
                        *in_docker, *options, "--user", "123456:0", *RESTRICTED, env=env)  # fmt: skip
    archive = area / "builder.tar"
    docker("save", "--output", str(archive), image)
    subprocess.run([servers.tool("podman"), "load", "--quiet", "--input", archive], check=True, capture_output=True)
    archive.unlink()
    yield _in_container(
        "E3", "user-namespaced pod, uid 0 inside (`podman run --uidmap`)", [servers.tool("podman")], f"localhost/{image}",
        *options, *_PODMAN_LIMITS, *_IDS, env={},
    )  # fmt: skip
    yield _as_user("E4", "ordinary user with subordinate ids", program, account("kpy-range", "100000-165535"), area / "range")
    yield _as_user("E5", "ordinary user without subordinate ids", program, account("kpy-single"), area / "single")


def contexts(area: Path) -> dict[str, Path]:
    """The contexts of the two builds, by name, readable by everybody."""
    found = {}
    for name in ("python-service", "two-stage"):
        shutil.copytree(EXAMPLES / name, area / name)
        found[name] = area / name
    make_wheel(found["python-service"] / "wheels")
    for path in [area, *area.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return found


def arguments(base: str, name: str) -> list[str]:
    """Of the build that pushes an example under `name`."""
    return [
        "build", "-t", name, "--output", "type=registry,rewrite-timestamp=true", "--build-arg", f"BASE={base}",
        "--build-arg", f"SOURCE_DATE_EPOCH={EPOCH}",
    ]  # fmt: skip
