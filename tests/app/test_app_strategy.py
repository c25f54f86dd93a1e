"""strategy.py and keep.py: who may empty a root, and what is kept of it."""

import io
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest

from kpy.app.keep import needed_paths
from kpy.app.options import BuildOptions, Environment, OutputSpec, SecretSpec
from kpy.app.strategy import CONSENT, Means, Place, strategy
from kpy.errors import SandboxError
from kpy.events import silent
from kpy.solver.content import Layers
from kpy.util.cancel import Cancel

_PREPARE = """
import sys
sys.path.insert(0, sys.argv[1])
import tempfile
from pathlib import Path
from kpy.app.strategy import prepare
from kpy.errors import KpyError
try:
    print(prepare(sys.argv[2], dict(pair.split("=") for pair in sys.argv[3:]), Path(tempfile.mkdtemp())).isolation)
except KpyError as error:
    print(error)
"""


def _prepare(isolation: str, *variables: str) -> str:
    """In a process of its own, which may change for good."""
    import kpy

    checkout = os.path.dirname(os.path.dirname(kpy.__file__))
    command = [sys.executable, "-c", _PREPARE, checkout, isolation, *variables]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("variables", [(), (f"{CONSENT}=1",)])
def test_live_outside_of_the_builder_image_is_refused(variables: tuple[str, ...]) -> None:
    """Whatever the environment says: this interpreter is part of the root that would be emptied."""
    assert _prepare("live", *variables).startswith("--isolation=live empties the root file system")


def test_auto_outside_of_the_builder_image_is_never_live() -> None:
    assert _prepare("auto", f"{CONSENT}=1") in {"userns", "chroot", "none"}


def test_a_live_root_that_the_build_needs_itself(tmp_path: Path) -> None:
    with ExitStack() as stack, Cancel() as cancel:
        means = Means(cast(Layers, None), tmp_path, str(tmp_path), ("/", "/kpy/state"), (), cancel, stack, silent)
        with pytest.raises(SandboxError, match="the build needs / itself"):
            strategy(Place("live"), means)()


def test_why_no_run_can_be_done_is_said_when_one_is_asked_for(tmp_path: Path) -> None:
    with ExitStack() as stack, Cancel() as cancel:
        means = Means(cast(Layers, None), tmp_path, str(tmp_path), (), (), cancel, stack, silent)
        get = strategy(Place("none", SandboxError("no namespaces")), means)
        with pytest.raises(SandboxError, match="no namespaces"):
            get()


def test_everything_that_options_and_environment_name_is_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "context").symlink_to("real")
    options = BuildOptions(
        context="context",
        file="docker/Dockerfile",
        secrets=(SecretSpec("a", src="/run/a"), SecretSpec("b", env="B")),
        build_contexts=(("lib", "lib"), ("image", "docker-image://x")),
        outputs=(OutputSpec("oci", "out/image.tar"), OutputSpec("image", "", {"push": "true"})),
        iidfile="id",
        metadata_file="/meta/m.json",
        sign_key="keys/kpy.key",
    )
    variables = {"KPY_HOME": "/var/state", "DOCKER_CONFIG": "/d", "SSL_CERT_FILE": "/c/ca.pem", "HOME": "/root"}
    environment = Environment(variables, str(tmp_path), io.BytesIO(), io.BytesIO())

    found = needed_paths(options, environment)

    here = {os.path.relpath(path, tmp_path) for path in found if path.startswith(f"{tmp_path}/")}
    assert here == {
        "real", "docker/Dockerfile", "docker/Dockerfile.dockerignore", "real/docker/Dockerfile", "lib", "out/image.tar",
        "id", "keys/kpy.key",
    }  # fmt: skip
    assert {path for path in found if not path.startswith(f"{tmp_path}/")} == {
        "/run/a", "/meta/m.json", "/d/config.json", "/c/ca.pem", "/var/state"
    }  # fmt: skip
