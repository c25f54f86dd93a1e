"""The Jobs that `kpy kube job` prints, really run: their pods, by podman."""

import base64
import io
import json
import re
import shlex
import tarfile
from collections.abc import Iterator
from pathlib import Path

import builder as builders
import pytest
import servers
import trees
from people import Kpy
from pods import Podman, podman
from servers import Docker, Registry

COPY = "ARG BASE\nFROM $BASE\nCOPY hello /srv/hello\nCMD [\"cat\", \"/srv/hello\"]\n"
RUN = "ARG BASE\nFROM $BASE\nCOPY hello /srv/hello\nRUN id -u > /srv/made && chown 7:8 /srv/made\n"

# Flags of the Jobs in which RUN works. Baseline is root, with its capabilities; restricted, (), needs an emulated root.
RUNNING = (("--security=baseline",), (), ("--read-only-root",))


@pytest.fixture(scope="module")
def pods(docker: Docker, area: Path) -> Iterator[Podman]:
    with podman(area / "podman", docker, builders.make(docker)) as found:
        yield found


@pytest.fixture
def secrets(auth_registry: Registry) -> dict[str, dict[str, str]]:
    """An image-pull secret for the registry that wants a password."""
    login = base64.b64encode(f"{servers.USER}:{servers.PASSWORD}".encode()).decode()
    return {"registry": {".dockerconfigjson": json.dumps({"auths": {auth_registry.host: {"auth": login}}})}}


def job(kpy: Kpy, name: str, base: str, *words: str) -> str:
    image = f"localhost/{builders.IMAGE}"
    flags = ["--image", image, "--push", "-t", name, "--build-arg", f"BASE={base}", "--registry-secret", "registry"]
    return kpy("kube", "job", *flags, *words).stdout


def checked(name: str, place: Path) -> Path:
    return trees.unpack(name, place, credentials=f"{servers.USER}:{servers.PASSWORD}")


def test_a_restricted_pod_copies_and_pushes(
    pods: Podman, kpy: Kpy, auth_registry: Registry, busybox_base: str, secrets: dict[str, dict[str, str]], workdir: Path
) -> None:
    """An ordinary uid, no capabilities, a read-only root; context on a volume, login from an image-pull secret."""
    pods.volume("sources", {"Dockerfile": COPY, "hello": "from a volume\n"})
    name = f"{auth_registry.host}/kubernetes/volume:1"
    code, log = pods.run(job(kpy, name, busybox_base, "--read-only-root", "--memory=1Gi", "pvc://sources"), secrets)
    assert code == 0, log
    assert (checked(name, workdir / "tree") / "srv" / "hello").read_text() == "from a volume\n"


def test_a_restricted_pod_that_is_sent_its_context(
    pods: Podman, kpy: Kpy, auth_registry: Registry, busybox_base: str, secrets: dict[str, dict[str, str]], workdir: Path
) -> None:
    name = f"{auth_registry.host}/kubernetes/stdin:1"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w:gz") as tar:
        for file, text in (("Dockerfile", COPY), ("hello", "from standard input\n")):
            member = tarfile.TarInfo(file)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    code, log = pods.attached(job(kpy, name, busybox_base, "-"), secrets, context.getvalue())
    assert code == 0, log
    assert (checked(name, workdir / "tree") / "srv" / "hello").read_text() == "from standard input\n"


def digest_in(log: str) -> str:
    """The line of standard output: podman mixes it with those of standard error."""
    [found] = [line for line in log.splitlines() if re.fullmatch("sha256:[0-9a-f]{64}", line.strip())]
    return found.strip()


@pytest.mark.parametrize("flags", RUNNING)
def test_a_pod_runs_and_its_cache_outlives_it(
    pods: Podman, kpy: Kpy, auth_registry: Registry, busybox_base: str, secrets: dict[str, dict[str, str]], workdir: Path,
    flags: tuple[str, ...],
) -> None:  # fmt: skip
    """The second pod finds the first one's steps on the claim."""
    pods.volume("sources", {"Dockerfile": RUN, "hello": "x\n"})
    cache = f"cache-{RUNNING.index(flags)}"
    pods.volume(cache)
    name = f"{auth_registry.host}/kubernetes/root:{RUNNING.index(flags)}"
    manifest = job(kpy, name, busybox_base, *flags, f"--cache-claim={cache}", "pvc://sources")
    code, log = pods.run(manifest, secrets)
    assert code == 0, log
    assert "CACHED" not in log
    made = checked(name, workdir / "tree") / "srv" / "made"
    assert (made.read_text(), made.stat().st_uid, made.stat().st_gid) == ("0\n", 7, 8)
    code, again = pods.run(manifest, secrets)
    assert code == 0, again
    assert again.count("CACHED") == 2
    assert digest_in(log) == digest_in(again)


def test_root_in_a_user_namespace(pods: Podman) -> None:  # E3, what hostUsers: false gives
    maps = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"]
    done = pods("run", "--rm", "--network", "host", *maps, pods.image, "doctor", "--format=json", check=False)
    found = json.loads(done.stdout)
    answers = {probe["name"]: probe["works"] for probe in found["probes"]}
    assert (done.returncode, found["environment"]["id"], found["run"]["isolation"]) == (0, "E3", "live")
    assert [name for name in ("chown", "setuid", "filecap") if not answers[name]] == []
    assert not answers["mknod"]


@pytest.mark.parametrize("options", [("--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")])
def test_the_advice_of_doctor_for_podman_works(pods: Podman, options: tuple[str, ...]) -> None:
    asked = pods("run", "--rm", "--network", "host", *options, pods.image, "doctor", "--fix", "podman", check=False)
    commands = [shlex.split(line) for line in asked.stdout.decode().splitlines() if line.startswith("podman run")]
    assert commands
    for command in commands:
        more = command[2:] or list(options)
        done = pods("run", "--rm", "--network", "host", *more, pods.image, "doctor", check=False)
        assert done.returncode == 0, done.stdout.decode()


def test_a_pod_without_its_login_says_so(pods: Podman, kpy: Kpy, auth_registry: Registry, busybox_base: str) -> None:
    pods.volume("sources", {"Dockerfile": COPY, "hello": "x\n"})
    name = f"{auth_registry.host}/kubernetes/nobody:1"
    code, log = pods.run(job(kpy, name, busybox_base, "pvc://sources"), {"registry": {".dockerconfigjson": "{}"}})
    assert code == 7, log
    assert auth_registry.host in log
