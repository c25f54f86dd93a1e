"""What integration tests stand on: servers, base images, an unprivileged user, and kpy as it is installed.

Run as root, by integration/run-tests. A component that is missing fails the tests; nothing is skipped.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import bases
import pytest
import servers
from people import Kpy, User, account

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE / "examples"
USER = "dev"


@pytest.fixture(scope="session")
def dev() -> User:
    """An unprivileged user with subordinate ids."""
    if os.geteuid() != 0:
        raise servers.MissingError(
            "integration tests start servers and run as several users: run them as root"
        )
    servers.tool("newuidmap")
    return account(USER, "100000-165535")


@pytest.fixture(scope="session")
def area() -> Iterator[Path]:
    """A directory that all users can enter, for the whole session. Not below pytest's own, which is the runner's alone."""
    path = Path(tempfile.mkdtemp(prefix="kpy-integration-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    # Files of subordinate ids are in it; we are root.
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def cache() -> Path:
    """Where base images are kept from one run to the next."""
    return bases.kept()


@pytest.fixture(scope="session")
def program(dev: User) -> str:
    """The installed kpy, which the unprivileged user can run."""
    path = str(Path(sys.executable).parent / "kpy")
    if not os.path.exists(path):
        raise servers.MissingError(f"{path} is not there: integration/run-tests installs kpy")
    done = subprocess.run(
        [path, "--version"],
        user=dev.uid,
        group=dev.gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    if done.returncode:
        raise servers.MissingError(f"{USER} cannot run {path}: {done.stderr.strip()}")
    return path


@pytest.fixture
def workdir(area: Path, dev: User, request: pytest.FixtureRequest) -> Path:
    """A directory of the test's own that the unprivileged user owns."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:60]
    path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=area))
    path.chmod(0o755)
    os.chown(path, dev.uid, dev.gid)
    return path


@pytest.fixture
def make_kpy(program: str, dev: User, area: Path) -> Callable[[], Kpy]:
    """A kpy with a store of its own, each time it is asked for."""

    def make() -> Kpy:
        home = Path(tempfile.mkdtemp(prefix="home-", dir=area))
        os.chown(home, dev.uid, dev.gid)
        return Kpy(program, dev, home)

    return make


@pytest.fixture
def kpy(make_kpy: Callable[[], Kpy]) -> Kpy:
    """kpy as the unprivileged user, with an empty store."""
    return make_kpy()


@pytest.fixture(scope="session")
def shared_home(area: Path, dev: User) -> Path:
    """A home whose store several tests may share."""
    path = area / "shared-home"
    path.mkdir()
    os.chown(path, dev.uid, dev.gid)
    return path


@pytest.fixture
def shared_kpy(program: str, dev: User, shared_home: Path) -> Kpy:
    """kpy with the store that other tests have filled: for tests that do not care."""
    return Kpy(program, dev, shared_home)


@pytest.fixture
def example(workdir: Path, dev: User) -> Callable[[str], Path]:
    """A copy of an example, for the unprivileged user."""

    def copy(name: str) -> Path:
        path = workdir / name
        shutil.copytree(EXAMPLES / name, path)
        for directory, _, files in os.walk(path):
            os.chown(directory, dev.uid, dev.gid)
            os.chmod(directory, 0o755)
            for file in files:
                os.chown(os.path.join(directory, file), dev.uid, dev.gid)
        return path

    return copy


@pytest.fixture(scope="session")
def registry(area: Path) -> Iterator[servers.Registry]:
    """A registry that lets everybody in."""
    with servers.registry(area / "registry") as running:
        yield running


@pytest.fixture(scope="session")
def auth_registry(area: Path) -> Iterator[servers.Registry]:
    """A registry with a password: servers.USER, servers.PASSWORD."""
    with servers.registry(area / "auth-registry", password=True) as running:
        yield running


@pytest.fixture(scope="session")
def docker(area: Path) -> Iterator[servers.Docker]:
    """A docker engine."""
    with servers.docker_engine(area / "docker") as engine:
        yield engine


@pytest.fixture(scope="session")
def busybox_base(registry: servers.Registry, cache: Path) -> str:
    # Not under its own name: the conformance suite pushes another base/busybox:1 to the same registry.
    return bases.push(registry.host, "base/busybox:1", cache, to="base/kpy-busybox:1")


@pytest.fixture(scope="session")
def debian_base(registry: servers.Registry, cache: Path) -> str:
    return bases.push(registry.host, "base/debian:12", cache)


@pytest.fixture(scope="session")
def python_base(registry: servers.Registry, cache: Path) -> str:
    return bases.push(registry.host, "base/python:3", cache)


@pytest.fixture(scope="session")
def bundler_base(registry: servers.Registry, cache: Path) -> str:
    """What the Containerfile of the builder image needs, so that it need not install it."""
    return bases.push(registry.host, "base/bundler:1", cache)


@pytest.fixture(scope="session")
def gcc_base(registry: servers.Registry, cache: Path) -> str:
    return bases.push(registry.host, "base/gcc:1", cache)


@pytest.fixture(scope="session")
def big_base(registry: servers.Registry, cache: Path) -> str:
    """800 MB in three layers."""
    return bases.push(registry.host, "base/big:1", cache)


@pytest.fixture(scope="session")
def ssh_base(registry: servers.Registry, cache: Path) -> str:
    return bases.push(registry.host, "base/ssh:1", cache)


@pytest.fixture(scope="session")
def packages_base(registry: servers.Registry, cache: Path) -> str:
    """Debian packages, wheels and npm packages in /srv, and Go."""
    return bases.push(registry.host, "base/packages:1", cache)
