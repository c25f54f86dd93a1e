"""kaniko's command line: what a kaniko Job has, with the image name changed; contexts of every kind; kaniko's own files."""

import base64
import json
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import builder as builders
import pytest
import servers
import trees
from builder import LiveKpy
from people import Kpy
from servers import Docker, Registry

from tests.git_server import commit, publish, serving

DOCKERFILE = "ARG BASE\nFROM $BASE\nCOPY hello /hello\nRUN cat /hello > /made && chown 7:8 /made\n"


@pytest.fixture
def live(docker: Docker) -> LiveKpy:
    return LiveKpy(docker, builders.make(docker))


@pytest.fixture
def context(workdir: Path, kpy: Kpy) -> Path:
    path = workdir / "context"
    path.mkdir()
    (path / "Dockerfile").write_text(DOCKERFILE)
    (path / "hello").write_text("hello\n")
    subprocess.run(["chown", "-R", f"{kpy.user.uid}:{kpy.user.gid}", str(path)], check=True)
    return path


def pack(directory: Path, to: Path) -> Path:
    with tarfile.open(to, "w:gz") as tar:
        tar.add(directory, ".")
    to.chmod(0o644)
    return to


def made(name: str, place: Path, credentials: str = "") -> str:
    path = trees.unpack(name, place, credentials=credentials) / "made"
    assert (path.stat().st_uid, path.stat().st_gid) == (7, 8)
    return path.read_text()


def test_a_kaniko_job_with_its_image_changed(
    live: LiveKpy, auth_registry: Registry, busybox_base: str, context: Path, workdir: Path
) -> None:
    """The volumes and arguments of kaniko's documentation: /workspace, /kaniko/.docker, a digest file."""
    login = base64.b64encode(f"{servers.USER}:{servers.PASSWORD}".encode()).decode()
    (workdir / "docker").mkdir()
    (workdir / "docker" / "config.json").write_text(json.dumps({"auths": {auth_registry.host: {"auth": login}}}))
    out = workdir / "out"
    out.mkdir()
    name = f"{auth_registry.host}/executor/job"
    done = live(
        "--dockerfile=Dockerfile", "--context=dir:///workspace", f"--destination={name}:1", f"--destination={name}:2",
        f"--build-arg=BASE={busybox_base}", "--cache=true", f"--cache-repo={auth_registry.host}/executor/cache", "--cleanup",
        "--digest-file=/out/digest", "--image-name-with-digest-file=/out/names", "--snapshot-mode=redo", "--label", "a=b",
        "--annotation=org.example.c=d", "--tar-path=/out/image.tar", "--verbosity", "info",
        options=["--volume", f"{context}:/workspace", "--volume", f"{workdir}/docker:/kaniko/.docker:ro", "--volume", f"{out}:/out"],
    )  # fmt: skip
    credentials = f"{servers.USER}:{servers.PASSWORD}"
    found = trees.inspect(f"{name}:2", "--creds", credentials)
    assert (out / "digest").read_text() == found["Digest"] == done.stdout.strip()
    assert (out / "names").read_text() == f"{name}@{found['Digest']}\n" * 2
    assert found["Labels"] == {"a": "b"}
    assert trees.inspect(f"{name}:1", "--creds", credentials, "--raw")["annotations"] == {"org.example.c": "d"}
    assert made(f"{name}:1", workdir / "tree", credentials) == "hello\n"
    with tarfile.open(out / "image.tar") as tar:
        assert "manifest.json" in tar.getnames()
    assert [line for line in done.stderr.splitlines() if line.startswith("note: --cache-repo: ")]
    assert (context / "hello").read_text() == "hello\n"


@pytest.mark.parametrize("kind", ["tar", "stdin"])
def test_a_packed_context_in_a_live_root(
    live: LiveKpy, registry: Registry, busybox_base: str, context: Path, workdir: Path, kind: str
) -> None:
    archive = pack(context, workdir / "context.tar.gz")
    name = f"{registry.host}/executor/{kind}:1"
    where = "tar://stdin" if kind == "stdin" else "tar:///in/context.tar.gz"
    live(
        "executor", f"--context={where}", f"--destination={name}", f"--build-arg=BASE={busybox_base}",
        options=["--volume", f"{archive}:/in/context.tar.gz:ro"], stdin=archive.read_bytes() if kind == "stdin" else b"",
    )  # fmt: skip
    assert made(name, workdir / "tree") == "hello\n"


def test_a_digest_file_cannot_be_led_into_the_builder(
    live: LiveKpy, registry: Registry, busybox_base: str, context: Path, workdir: Path
) -> None:
    """The image has a link where the digest will be written, or where its directory is."""
    (context / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nRUN ln -s /kpy/bin /elsewhere && ln -s /kpy/bin/kpy /digest\n")
    for path in ("/digest", "/elsewhere/kpy"):
        argv = ["executor", "--no-push", f"--build-arg=BASE={busybox_base}", f"--digest-file={path}"]
        done = live(*argv, options=["--volume", f"{context}:/workspace"], check=False)
        assert done.returncode == 5, done.stderr
        assert f"the image is made, but {path} leads elsewhere now: to /kpy/bin/kpy" in done.stderr


@pytest.fixture
def repository(workdir: Path, context: Path) -> Iterator[tuple[str, str]]:
    """A server of git, and a commit that is not the last."""
    with ExitStack() as stack:
        files: dict[str, str | bytes | None] = {"sub/Dockerfile": DOCKERFILE, "sub/hello": "first\n"}
        first = commit(workdir / "repository", files)
        commit(workdir / "repository", {"sub/hello": "second\n"})
        served = workdir / "served"
        served.mkdir()
        publish(workdir / "repository", served, "app.git")
        server = stack.enter_context(serving(served))
        server.password = "t0ken:"
        yield server.url.removeprefix("http://"), first


def test_a_repository(kpy: Kpy, registry: Registry, busybox_base: str, repository: tuple[str, str], workdir: Path) -> None:
    host, first = repository
    kpy = kpy.with_env(GIT_TOKEN="t0ken", GIT_PULL_METHOD="http")
    flags = [f"--build-arg=BASE={busybox_base}", "--context-sub-path=sub"]
    for number, (where, expected) in enumerate(
        [("app.git", "second\n"), ("app#refs/heads/main", "second\n"), (f"app.git#refs/heads/main#{first}", "first\n"), (f"app.git#{first}", "first\n")]
    ):
        name = f"{registry.host}/executor/git:{number}"
        done = kpy("executor", f"--context=git://{host}/{where}", f"--destination={name}", *flags)
        assert made(name, workdir / f"tree-{number}") == expected
        assert "t0ken" not in done.stderr + done.stdout


def test_reproducible_images(kpy: Kpy, make_kpy: object, registry: Registry, busybox_base: str, context: Path, workdir: Path) -> None:
    digests = []
    for home in ("one", "two"):
        other = kpy.with_env(KPY_HOME=str(kpy.home / home))
        argv = ["executor", f"--context=dir://{context}", "--no-push", "--reproducible", f"--build-arg=BASE={busybox_base}"]
        digests.append(other(*argv, f"--oci-layout-path={kpy.home}/layout-{home}").stdout.strip())
        (context / "hello").touch()
    assert digests[0] == digests[1]
    assert json.loads((kpy.home / "layout-one" / "index.json").read_text())["manifests"][0]["digest"] == digests[0]


def test_a_mirror(kpy: Kpy, registry: Registry, busybox_base: str, context: Path, workdir: Path) -> None:
    """Docker Hub is not reached at all: everything comes from the mirror."""
    trees.run(
        "skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", f"docker://{busybox_base}",
        f"docker://{registry.host}/mirrored/library/busybox:1",
    )  # fmt: skip
    name = f"{registry.host}/executor/mirror:1"
    argv = ["executor", f"--context={context}", f"--destination={name}", "--build-arg=BASE=busybox:1"]
    kpy(*argv, f"--registry-mirror={registry.host}/mirrored", "--skip-default-registry-fallback", "--single-snapshot")
    assert len(trees.layers(name)) == len(trees.layers(busybox_base)) + 1
    assert made(name, workdir / "tree") == "hello\n"


def test_base_images_of_a_plain_registry(kpy: Kpy, busybox_base: str, context: Path) -> None:
    """By a name that is not this machine's loopback: plain HTTP must be asked for."""
    base = f"{socket.gethostname()}:{busybox_base.partition(':')[2]}"
    argv = ["executor", f"--context={context}", "--no-push", f"--build-arg=BASE={base}"]
    for flags, code in (([], 7), (["--skip-tls-verify-pull"], 7), (["--insecure"], 7), (["--insecure-pull"], 0)):
        assert kpy(*argv, *flags, check=False).returncode == code, flags


def test_a_failing_run_has_kpys_exit_code(kpy: Kpy, busybox_base: str, context: Path) -> None:
    (context / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nRUN exit 3\n")
    done = kpy("executor", f"--context={context}", "--no-push", f"--build-arg=BASE={busybox_base}", check=False)
    assert done.returncode == 4
    assert "exit code: 3" in done.stderr
