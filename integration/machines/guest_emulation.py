"""The tests of test_emulation.py on a machine of its own, without containers: its root is the measure."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("test_emulation")

sys.path.append(str(Path(__file__).parent))
import guest  # noqa: E402
import test_emulation  # noqa: E402
from test_emulation import *  # noqa: E402, F403

# Root as it is in an ordinary container, which is what is emulated: with docker's default capabilities.
CONTAINED = ("setpriv", "--groups=0", "--inh-caps=-all", f"--bounding-set=-all,+{',+'.join(guest.CAPABILITIES.split())}")
COUNT = test_emulation.COUNT = int(os.environ.get("PROGRAMS", test_emulation.COUNT))
test_emulation._programs.__defaults__ = (COUNT,)


@pytest.fixture(scope="module", params=["host"])
def drive(on_host: test_emulation.Drive) -> test_emulation.Drive:
    """In the one place that there is."""
    return on_host


@pytest.fixture(scope="module")
def expected(on_host: test_emulation.Drive, area: Path) -> list[dict[str, Any]]:
    """What the programs give for real root, on the same file system."""
    command = test_emulation._programs(f"{area}/emulation/{test_emulation.PROGRAMS.name}", COUNT)
    with tempfile.TemporaryDirectory(dir=area) as temporary:
        done = subprocess.run([*CONTAINED, "sh", "-c", command], env={"PATH": "/usr/bin:/bin", "TMPDIR": temporary}, capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]
