"""What a user sees when a base cannot be had, or is not what it must be (N01-N05, N16, N26, N33, L09; issue 2, 7)."""

import base64
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
from faulty import Corrupt, Cut, RegistryServer, Status, serve, sha256, tar_of
from people import Kpy

COPIES = "FROM {base}\nCOPY Dockerfile /etc/\n"
RUNS = "FROM {base}\nRUN echo hi\n"


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as running:
        yield running


@pytest.fixture
def fails(kpy: Kpy, workdir: Path) -> Callable[..., str]:
    """Builds on `base`, which fails with this exit code, one `error:` line and nothing in the store; gives stderr."""

    def build(base: str, *argv: str, dockerfile: str = RUNS, code: int = 7, as_kpy: Kpy = kpy) -> str:
        (workdir / "Dockerfile").write_text(dockerfile.format(base=base))
        done = as_kpy("build", "-t", "never", *argv, ".", cwd=workdir, check=False, timeout=120)
        print(done.stderr)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        assert ("Traceback" in done.stderr) is ("KPY_DEBUG" in as_kpy.variables)
        assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1
        assert as_kpy("images").stdout.count("never") == 0
        assert leftovers(as_kpy) == []
        return done.stderr

    return build


def leftovers(kpy: Kpy) -> list[str]:
    """Half-written files."""
    found = []
    for directory, names, files in os.walk(kpy.home):
        found += [os.path.join(directory, name) for name in [*names, *files] if ".tmp" in name]
    return found


def test_the_base_is_not_there(fails: Callable[..., str], registry: servers.Registry) -> None:
    shown = fails(f"{registry.host}/nosuch/image:1")
    assert f"error: {registry.host}/nosuch/image:1: not found" in shown
    assert f"   1 | >>> FROM {registry.host}/nosuch/image:1" in shown


def test_the_tag_is_not_there(fails: Callable[..., str], busybox_base: str) -> None:
    name = busybox_base.rpartition(":")[0]
    assert f"error: {name}:nosuch: not found" in fails(f"{name}:nosuch")


def test_the_name_does_not_resolve(fails: Callable[..., str]) -> None:
    shown = fails("registry.kpy.invalid/app:1")
    assert "error: cannot find the registry registry.kpy.invalid: no such host" in shown
    assert "hint: check the name of the registry" in shown
    assert "   1 | >>> FROM registry.kpy.invalid/app:1" in shown


def test_the_connection_is_refused(fails: Callable[..., str]) -> None:
    host = f"127.0.0.1:{servers.free_port()}"
    assert f"error: cannot connect to {host}: connection refused" in fails(f"{host}/app:1")


def test_no_password(fails: Callable[..., str], auth_registry: servers.Registry) -> None:
    host = auth_registry.host
    shown = fails(f"{host}/app:1")
    assert f"error: registry {host} wants credentials for app" in shown
    assert f"hint: log in: docker login {host}" in shown


def test_a_wrong_password_is_never_shown(
    fails: Callable[..., str], auth_registry: servers.Registry, kpy: Kpy
) -> None:
    host, password = auth_registry.host, "wr0ng-pass"
    auth = base64.b64encode(f"{servers.USER}:{password}".encode()).decode()
    (kpy.home / ".docker").mkdir()
    (kpy.home / ".docker" / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    shown = fails(f"{host}/app:1", as_kpy=kpy.with_env(KPY_DEBUG="1"))
    assert f"error: registry {host} refused the credentials of" in shown
    assert password not in shown
    assert auth not in shown


def test_a_registry_that_speaks_plain_http(fails: Callable[..., str], server: RegistryServer) -> None:
    """Not on loopback's own name, where plain HTTP is tried."""
    name = f"{socket.gethostname()}:{server.host.rpartition(':')[2]}"
    shown = fails(f"{name}/app:1")
    assert "error: cannot make a secure connection" in shown
    assert f"--insecure-registry {name}" in shown


def test_the_registry_is_broken(fails: Callable[..., str], server: RegistryServer) -> None:
    base = serve(server)
    server.fault(Status(500, b'{"errors":[{"code":"UNKNOWN","message":"no disk"}]}'), path="/manifests/", times=100)
    shown = fails(base.name)
    assert f"{server.host} answered: no disk (UNKNOWN, HTTP 500)" in shown


def test_a_connection_is_cut_and_resumed(kpy: Kpy, workdir: Path, server: RegistryServer) -> None:
    base = serve(server, layer=tar_of({"noise": os.urandom(3 << 20)}))
    server.fault(Cut(1 << 20, reset=True), path=base.layer)
    (workdir / "Dockerfile").write_text(f"FROM {base.name}\nCOPY Dockerfile /\n")
    kpy("build", ".", cwd=workdir)
    assert server.count(base.layer) >= 2


def test_a_connection_is_cut_again_and_again(fails: Callable[..., str], server: RegistryServer) -> None:
    base = serve(server, layer=tar_of({"noise": os.urandom(3 << 20)}))
    server.fault(Cut(1000), path=base.layer, times=1000)
    shown = fails(base.name, dockerfile=COPIES)
    assert f"error: the connection to {server.host} broke" in shown
    assert "   2 | >>> COPY Dockerfile /etc/" in shown


def test_a_layer_has_another_digest(fails: Callable[..., str], server: RegistryServer) -> None:
    base = serve(server)
    server.fault(Corrupt(), path=base.layer, times=100)
    shown = fails(base.name, code=6)
    assert base.layer in shown


def test_a_manifest_has_another_digest(fails: Callable[..., str], server: RegistryServer) -> None:
    base = serve(server)
    server.fault(Corrupt(), path="/manifests/", times=100)
    shown = fails(f"{server.host}/app@{base.manifest}", code=6)
    assert base.manifest in shown


def test_a_manifest_by_tag_has_another_digest_than_its_header(fails: Callable[..., str], server: RegistryServer) -> None:
    base = serve(server)
    server.fault(Corrupt(), path="/manifests/", times=100)
    fails(base.name, code=6)


def test_a_layer_has_another_diff_id(fails: Callable[..., str], server: RegistryServer) -> None:
    base = serve(server, diff_id=sha256(b"else"))
    shown = fails(base.name, code=6)
    assert f"layer {base.layer} does not match its diff_id: it should be {sha256(b'else')}" in shown


@pytest.mark.parametrize("content", [b"no tar at all" * 1000, b"x"], ids=["text", "short"])
@pytest.mark.parametrize("dockerfile", [RUNS, COPIES], ids=["run", "copy"])
def test_a_layer_is_no_tar(fails: Callable[..., str], server: RegistryServer, content: bytes, dockerfile: str) -> None:
    base = serve(server, layer=content)
    shown = fails(base.name, code=6, dockerfile=dockerfile)
    assert f"error: layer {base.layer} cannot be read: tar is" in shown
    assert "   2 | >>> " in shown


def test_no_image_for_this_platform(fails: Callable[..., str], server: RegistryServer) -> None:
    base = serve(server, architecture="s390x", index=True)
    shown = fails(base.name)
    assert f"error: {base.name}: no image for linux/" in shown
    assert "hint: it has linux/s390x" in shown


def test_a_broken_answer_is_no_traceback(fails: Callable[..., str], server: RegistryServer) -> None:
    server.add_manifest("app", b"[1, 2", "application/vnd.oci.image.manifest.v1+json", "1")
    fails(f"{server.host}/app:1", code=6)
