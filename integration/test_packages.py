"""What people install, installed and at work where nothing is allowed, and the image that of real root (E2, E5): types,
modes, owners, devices, links, attributes, and contents, layer by layer, of every path.

packages/Dockerfile has the commands; they fail the build if something does not work.
"""

import shutil
import tempfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import builder as builders
import pytest
import trees
from builder import LiveKpy
from servers import Docker, Registry, free_port
from test_restricted import PLACES

HERE = Path(__file__).resolve().parent
# What two builds by real root have different contents in.
VARY = (
    "etc/shadow*",  # salts
    "etc/ssh/ssh_host_*", "etc/ssl/*snakeoil*", "home/bob/.ssh/*",  # keys
    "*.log", "var/log/*", "var/cache/*",  # times
    "*.pyc",  # times of their sources
    "run/sudo/ts/*",  # times and process ids
    "var/lib/postgresql/15/main/*",  # times, and an identifier of the cluster
    "srv/*/.git/index",  # inodes and times
)  # fmt: skip

Build = Callable[..., list[dict[str, tuple[str, str]]]]


@pytest.fixture(scope="module")
def build(docker: Docker, registry: Registry, packages_base: str, area: Path) -> Build:
    """Build it in a place, and push it. Its layers but for the base's."""
    live = LiveKpy(docker, builders.make(docker))
    context = Path(tempfile.mkdtemp(prefix="packages-", dir=area)) / "context"
    shutil.copytree(HERE / "packages", context)
    for path in (context, *context.iterdir(), context.parent):
        path.chmod(0o755 if path.is_dir() else 0o644)

    def build(place: str, *more: str) -> list[dict[str, tuple[str, str]]]:
        name = f"{registry.host}/packages/{place.replace(' ', '-').replace(':', '-')}:1"
        arguments = [f"BASE={packages_base}", f"PORT={free_port()}", f"SSH_PORT={free_port()}"]
        done = live(
            "build", "--push", "-t", name, *(part for argument in arguments for part in ("--build-arg", argument)), *more, ".",
            options=["--volume", f"{context}:/workspace:ro", *PLACES.get(place, [])],
        )  # fmt: skip
        assert "emulated in part" not in done.stderr
        return trees.members(name)[1:]

    return build


@pytest.fixture(scope="module")
def expected(build: Build) -> list[dict[str, tuple[str, str]]]:
    """By real root in an ordinary container."""
    return build("root")


@pytest.mark.parametrize(("place", "more"), [("1000:1000", []), ("read-only", ["--target", "services"])])
def test_packages_work_and_are_as_real_root_installs_them(
    build: Build, expected: list[dict[str, tuple[str, str]]], place: str, more: list[str]
) -> None:
    found = build(place, *more)

    assert len(found) == len(expected) if not more else 5 < len(found) < len(expected)
    assert sum(map(len, found)) > 2500
    for ours, theirs in zip(found, expected, strict=False):
        assert {path: shown for path, (shown, _) in ours.items()} == {path: shown for path, (shown, _) in theirs.items()}
        differ = {path for path, (_, content) in ours.items() if content != theirs[path][1]}
        assert {path for path in differ if not any(fnmatch(path, pattern) for pattern in VARY)} == set()
    # The measure itself.
    modes = {path: shown for layer in found for path, (shown, _) in layer.items()}
    assert modes["srv/shared/by-su"].startswith("0 640 1000:4000")
    assert modes["usr/bin/sudo"].startswith("0 4755 0:0")
    assert "SCHILY.xattr.security.capability" in modes["opt/kept"]
    assert modes["var/lib/postgresql/15/main/PG_VERSION"].split()[1] == "600"
