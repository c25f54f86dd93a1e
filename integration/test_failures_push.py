"""Pushes and signatures that are refused, each with its own message; secrets that are nowhere afterwards (issue 2, 7)."""

import base64
import gzip
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from faulty import RegistryServer, Status
from people import Kpy


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as running:
        yield running


@pytest.fixture
def context(workdir: Path) -> Path:
    (workdir / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    return workdir


def error_of(done: subprocess.CompletedProcess[str], code: int) -> str:
    print(done.stderr)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_registry_that_only_reads(kpy: Kpy, context: Path, server: RegistryServer) -> None:
    body = b'{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}'
    server.fault(Status(405, body), method="POST", path="/blobs/uploads/", times=99)
    error = error_of(kpy("build", "--push", "-t", f"{server.host}/app:1", context, check=False), 7)
    assert "(UNSUPPORTED, HTTP 405)" in error
    assert server.repo("app").tags == {}


def test_a_tag_that_may_not_move(kpy: Kpy, context: Path, server: RegistryServer) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"tag is immutable"}]}'
    server.fault(Status(403, body), method="PUT", path="/manifests/1$", times=99)
    error = error_of(kpy("build", "--push", "-t", f"{server.host}/app:1", context, check=False), 7)
    assert "tag is immutable (DENIED, HTTP 403)" in error
    assert server.repo("app").tags == {}


def test_a_push_without_a_password(kpy: Kpy, context: Path, auth_registry: servers.Registry) -> None:
    host = auth_registry.host
    done = kpy("build", "--push", "-t", f"{host}/app:1", context, check=False)
    assert f"registry {host} wants credentials for app" in error_of(done, 7)
    assert done.stderr.endswith(f"hint: log in: docker login {host}\n")


def test_keys_that_do_not_fit(kpy: Kpy, context: Path, registry: servers.Registry) -> None:
    name = f"{registry.host}/failures/signed"
    for prefix, password in (("one", "first"), ("two", "second")):
        kpy.with_env(KPY_KEY_PASSWORD=password)("keygen", "--output-key-prefix", prefix, cwd=context)

    def build(*argv: str, password: str = "", tag: str = "1") -> subprocess.CompletedProcess[str]:
        signing = kpy.with_env(KPY_KEY_PASSWORD=password) if password else kpy
        return signing("build", "--push", "-t", f"{name}:{tag}", *argv, ".", cwd=context, check=False)

    def verify(key: str, tag: str = "1") -> subprocess.CompletedProcess[str]:
        return kpy("verify", "--key", key, f"{name}:{tag}", cwd=context, check=False)

    assert "there is no key file" in error_of(build("--sign-key", "nosuch.key"), 2)
    assert "the private key cannot be decrypted" in error_of(build("--sign-key", "one.key", password="second"), 10)
    assert "the private key cannot be decrypted" in error_of(build("--sign-key", "one.key"), 10)
    assert "one.pub is a public key" in error_of(build("--sign-key", "one.pub"), 10)
    assert "Dockerfile is not a PEM private key" in error_of(build("--sign-key", "Dockerfile"), 10)
    assert "not found" in error_of(verify("one.pub"), 7)  # nothing was pushed by those

    assert build("--sign-key", "one.key", password="first").returncode == 0
    assert verify("one.pub").returncode == 0
    assert "has 1 signature, not made with the key SHA256:" in error_of(verify("two.pub"), 10)
    assert "is a private key" in error_of(verify("one.key"), 10)
    assert build("--label", "moved=1").returncode == 0
    assert "has no signature" in error_of(verify("one.pub"), 10)


def needles(value: str) -> list[bytes]:
    """The value, and how base64 may hide it."""
    return [value.encode(), base64.b64encode(value.encode())[:-4]]


def search(directory: Path, value: str) -> list[str]:
    """Files below, gzipped ones unpacked, and names, that have the value."""
    found = []
    for above, names, files in os.walk(directory):
        found += [name for name in [*names, *files] if value in name]
        for name in files:
            path = Path(above) / name
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            if data[:2] == b"\x1f\x8b":
                data += gzip.decompress(data)
            if any(needle in data for needle in needles(value)):
                found.append(str(path))
    return found


@pytest.mark.parametrize("progress", ["plain", "rawjson"])
def test_a_secret_is_nowhere(kpy: Kpy, workdir: Path, busybox_base: str, progress: str) -> None:
    """R09: not in the image, its history, the store, what is printed, the arguments or the environment of a process."""
    value, other = f"s3cr3t-{progress}-file-value", f"s3cr3t-{progress}-env-value"
    (workdir / "token").write_text(value)
    (workdir / "context").mkdir()
    (workdir / "context" / "Dockerfile").write_text(
        f"FROM {busybox_base}\n"
        "RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=TOKEN "
        'grep -q s3cr3t /run/secrets/file && test -n "$TOKEN" && sleep 2.345\n'
        "RUN test ! -e /run/secrets/file\n"
    )
    argv = ["build", "--progress", progress, "--secret", f"id=file,src={workdir}/token", "--secret", "id=variable,env=GIVEN"]
    argv += ["-o", f"type=oci,dest={workdir}/image,tar=false", str(workdir / "context")]
    running = subprocess.Popen(
        [kpy.program, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **kpy.with_env(GIVEN=other, KPY_DEBUG="1").spawn(),
    )
    seen = b""
    end = time.monotonic() + 60
    while running.poll() is None:
        seen += subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, check=True).stdout
        assert time.monotonic() < end
        time.sleep(0.1)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 0, output
    assert b"sleep 2.345" in seen  # we looked while it ran
    for text in (value, other):
        assert text.encode() not in output
        assert text.encode() not in seen
        assert search(kpy.home, text) == []
        assert search(workdir / "image", text) == []


def test_a_secret_of_a_failing_run_is_not_in_its_error(kpy: Kpy, workdir: Path, busybox_base: str) -> None:
    (workdir / "Dockerfile").write_text(
        f"FROM {busybox_base}\nRUN --mount=type=secret,id=t,env=TOKEN test -n \"$TOKEN\" && exit 9\n"
    )
    failing = kpy.with_env(GIVEN="s3cr3t-of-an-error", KPY_DEBUG="1")
    done = failing("build", "--secret", "id=t,env=GIVEN", workdir, check=False)
    assert done.returncode == 4
    assert "exit code: 9" in done.stderr
    assert "s3cr3t-of-an-error" not in done.stderr
