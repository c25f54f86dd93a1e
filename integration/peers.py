"""The two-stage build by other builders, as Debian has them, in the same environments (FEATURES 5): which of them can, and how they fail.

Each is tried with several settings, those that its documentation and its users recommend for such places. What is
told is the first that builds, or else the error of the one that came furthest.
"""

import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bases
import servers
import trees
from matrix import Environment, environments
from people import account
from servers import Docker

HERE = Path(__file__).resolve().parent
IMAGE = "kpy-peers:test"
SETTINGS = {
    "overlay": "chroot isolation, overlay",
    "vfs": "chroot isolation, vfs",
    "here": "the same, and told that it is in a user namespace already",
    "one-id": "chroot isolation, vfs with ignore_chown_errors",
    "engine": "its daemon with vfs",
    "rootless-engine": "its daemon in rootlesskit",
}
"""What peer-build knows."""
_CONTAINERS = ("overlay", "vfs", "here", "one-id")
PEERS = {"buildah": _CONTAINERS, "podman": _CONTAINERS, "docker": ("rootless-engine", "engine")}
_FAILED = re.compile(r"error|denied|not permitted|cannot|failed|needs to|not supported|no such|invalid", re.IGNORECASE)
_STEP = re.compile(r"^(?:\[\d+/\d+\] )?STEP \d")
_LOGGED = re.compile(r'time="?[^ ]*"? level=(\w+) msg="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Outcome:
    """Of one build. `error` is empty if it was made."""

    settings: str
    seconds: float
    output: str
    error: str

    @property
    def steps(self) -> int:
        """How far it came."""
        return sum(bool(_STEP.match(line) or re.match(r"#\d+ DONE", line)) for line in self.output.splitlines())


def essence(output: str, limit: int = 150) -> str:
    """The line of a builder's output that says what is wrong, shortened: for a cell of a table."""
    lines: list[str] = []
    for line in re.sub(r"\x1b\[[\d;]*m", "", output).splitlines():
        if _STEP.match(line):
            lines.clear()  # what came before did no harm
        logged = _LOGGED.search(line)
        if logged and logged[1] in {"debug", "info", "warning"}:
            continue
        lines.append(logged[2].replace('\\"', '"').replace("\\n", " ") if logged else line)
    told = [line for line in lines if _FAILED.search(line)] or [line for line in lines if line.strip()] or ["says nothing"]
    line = re.sub(r"\[/bin/sh -c [^]]*\]", "RUN", told[0])
    line = re.sub(r"\[\{.*?\}\]", "", line)
    line = re.sub(r"/[\w.-]+(?:/[\w.-]+){2,}", lambda path: "…/" + path[0].rsplit("/", 1)[1], line)
    line = re.sub(r"^error: *", "", " ".join(line.split()), flags=re.IGNORECASE).replace(" :", ":").replace("|", "\\|")
    half = limit // 2
    return line if len(line) <= limit else f"{line[:half].rstrip()} … {line[-half:].lstrip()}"


def make_image(docker: Docker, cache: Path) -> str:
    """An image that has the peers, from Debian's packages."""
    with servers.turn("peers"):
        if not docker("image", "ls", "--quiet", IMAGE):
            change = ["--change", "ENV HOME=/storage", "--change", 'ENTRYPOINT ["/peer-build"]']
            docker("import", *change, str(bases.rootfs("base/peers:1", cache)), IMAGE)
    return IMAGE


def versions(docker: Docker, image: str) -> dict[str, str]:
    """What Debian has, without its own suffixes."""
    packages = {"buildah": "buildah", "podman": "podman", "docker": "docker.io"}
    said = docker("run", "--rm", "--entrypoint", "dpkg-query", image, "--show", "--showformat=${Package} ${Version}\n", *packages.values())
    found = dict(line.split(" ") for line in said.splitlines())
    return {peer: re.split(r"[+~-]", found[package])[0] for peer, package in packages.items()}


def places(docker: Docker, cache: Path, area: Path) -> Iterator[Environment]:
    """The environments of matrix.py, with peer-build instead of kpy."""
    image = make_image(docker, cache)
    program = area / "peer-build"
    program.write_bytes((HERE / "peer-build").read_bytes())
    program.chmod(0o755)
    for home, user in (("range", account("kpy-range", "100000-165535")), ("single", account("kpy-single"))):
        _lend(docker, image, area / home / "bin")
        (area / home).chmod(0o755)
    yield from environments(docker, image, str(program), area, "--volume", f"{program}:/peer-build:ro", "--volume", "/storage")


def _lend(docker: Docker, image: str, directory: Path) -> None:
    """What docker without root needs on the host, and what a host with docker may not have."""
    directory.mkdir(parents=True)
    container = docker("create", image, "true")
    try:
        for name in ("rootlesskit", "rootlesskit-docker-proxy"):
            docker("cp", f"{container}:/usr/bin/{name}", str(directory / name))
    finally:
        docker("rm", "--volumes", container)


def attempt(place: Environment, peer: str, settings: str, base: str, name: str, context: Path) -> Outcome:
    """One build."""
    begin = time.monotonic()
    try:
        done = place.build(context, peer, settings, base, name)
        output, failed = done.stdout + done.stderr, done.returncode != 0
    except subprocess.TimeoutExpired as error:
        output, failed = f"error: not done after {error.timeout:.0f} s", True
    return Outcome(settings, time.monotonic() - begin, output, essence(output) if failed else "")


def best(place: Environment, peer: str, base: str, name: str, context: Path) -> Outcome:
    """The first settings with which it builds, else those with which it comes furthest."""
    outcomes = []
    for settings in PEERS[peer]:
        outcome = attempt(place, peer, settings, base, name, context)
        if not outcome.error:
            return outcome
        outcomes.append(outcome)
    return max(outcomes, key=lambda outcome: outcome.steps)


def compare(name: str, reference: str, area: Path) -> str:
    """Types, modes and owners of two images' files, against each other: what there is to say of the first."""
    one, other = (
        {path: line.split(" ")[:2] for path, line in trees.described(image, area / "tree").items()} for image in (name, reference)
    )
    different = sorted(path for path in {*one, *other} if one.get(path) != other.get(path))
    return "same owners and modes" if not different else f"{len(different)} files differ, {different[0]} first"


def cell(outcome: Outcome, remark: str) -> str:
    """What the table says. `remark` is about the image, if one was made."""
    if outcome.error:
        return f"no: {outcome.error}"
    return f"**yes**: {SETTINGS[outcome.settings]}; {remark}"
