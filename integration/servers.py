"""Real servers for the tests: registries and a docker engine. Each is a context manager; what is missing is an error."""

import fcntl
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# bcrypt of "s3cret", the only kind of hash that the registry takes.
USER, PASSWORD = "kpy", "s3cret"
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n"


class MissingError(RuntimeError):
    """A component that the tests need is not on this machine. Tests fail then; they never skip."""


def tool(name: str) -> str:
    """The path of a program."""
    # Debian keeps some of them in sbin, which is not in every user's PATH.
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise MissingError(f"{name} is not installed: integration/run-tests installs what the tests need")
    return path


@contextmanager
def turn(name: str) -> Iterator[None]:
    """One process of the test run at a time."""
    with open(f"/var/lock/kpy-tests-{name}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(
    what: str, ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 60
) -> None:
    """Wait until `ready()`; the end of the process or of the time is an error that shows the log."""
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise MissingError(f"{what} did not start:\n{tail}")
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Registry:
    """A running registry. `host` is 127.0.0.1:PORT, `log` its access log in the Apache combined format."""

    host: str
    log: Path
    directory: Path

    def requests(self) -> list[tuple[str, str, int]]:
        """Method, path and status of all requests so far."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            parts = line.split('"')
            if len(parts) > 2 and parts[1].count(" ") == 2 and line.startswith("127.0.0.1 "):
                method, path, _ = parts[1].split(" ")
                found.append((method, path, int(parts[2].split()[0])))
        return found

    def forget_requests(self) -> None:
        """Start the access log anew."""
        os.truncate(self.log, 0)


@contextmanager
def registry(
    directory: Path, *, password: bool = False, host: str = "127.0.0.1", certificate: tuple[Path, Path] | None = None
) -> Iterator[Registry]:
    """Debian's docker-registry on a free port, on an empty directory. With `password`, USER and PASSWORD; with a
    `certificate` and its key, TLS instead of plain HTTP."""
    directory.mkdir(parents=True)
    address = f"{host}:{free_port()}"
    auth = ""
    if password:
        (directory / "htpasswd").write_text(HTPASSWD)
        auth = f"auth: {{htpasswd: {{realm: kpy, path: {directory}/htpasswd}}}}\n"
    tls = f", tls: {{certificate: '{certificate[0]}', key: '{certificate[1]}'}}" if certificate else ""
    config, log = directory / "config.yml", directory / "access.log"
    config.write_text(
        "version: 0.1\n"
        "log: {level: warn}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '{address}'{tls}}}\n" + auth
    )
    url, context = f"http{'s' if certificate else ''}://{address}/v2/", ssl._create_unverified_context()

    def ready() -> bool:
        try:
            urllib.request.urlopen(url, timeout=5, context=context).close()
        except urllib.error.HTTPError as error:
            return error.code == 401
        except OSError:
            return False
        return True

    with log.open("ab") as out:
        process = subprocess.Popen([tool("docker-registry"), "serve", str(config)], stdout=out, stderr=out)
    try:
        wait_for("docker-registry", ready, process, log)
        yield Registry(address, log, directory)
    finally:
        stop(process)


@dataclass(frozen=True)
class Docker:
    """A docker engine. It takes plain HTTP from registries on 127.0.0.0/8 by itself."""

    socket: str

    def __call__(self, *argv: str, check: bool = True, timeout: float = 300) -> str:
        """Run the docker client; its standard output, stripped."""
        environment = {**os.environ, "DOCKER_HOST": self.socket}
        done = subprocess.run(
            [tool("docker"), *argv], capture_output=True, text=True, env=environment, timeout=timeout
        )
        if check and done.returncode:
            raise AssertionError(
                f"docker {' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout.strip()

    def logs(self, name: str) -> str:
        """What a container has written to its standard error so far."""
        done = subprocess.run(
            [tool("docker"), "logs", name], capture_output=True, text=True, timeout=60, check=True,
            env={**os.environ, "DOCKER_HOST": self.socket},
        )  # fmt: skip
        return done.stderr

    @contextmanager
    def container(self, *argv: str) -> Iterator[str]:
        """`docker run --detach ARGV`, removed at the end."""
        name = self("run", "--detach", *argv)
        try:
            yield name
        finally:
            self("rm", "--force", "--volumes", name)


def _engine_answers(address: str) -> bool:
    environment = {**os.environ, "DOCKER_HOST": address} if address else dict(os.environ)
    command = [tool("docker"), "version", "--format", "{{.Server.Version}}"]
    return subprocess.run(command, capture_output=True, env=environment, timeout=60).returncode == 0


@contextmanager
def docker_engine(directory: Path) -> Iterator[Docker]:
    """The engine that runs on this machine, else one of our own on `directory`, stopped at the end."""
    running = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if _engine_answers(running):
        yield Docker(running)
        return
    directory.mkdir(parents=True)
    address, log = f"unix://{directory}/docker.sock", directory / "dockerd.log"
    command = [
        tool("dockerd"), "--host", address, "--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec",
        "--pidfile", f"{directory}/dockerd.pid",
    ]  # fmt: skip
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_for("dockerd", lambda: _engine_answers(address), process, log)
        yield Docker(address)
    finally:
        stop(process)
        # What overlay2 leaves mounted would keep the directory from being removed.
        subprocess.run(
            ["umount", "--recursive", "--lazy", f"{directory}/data"], capture_output=True, check=False
        )
