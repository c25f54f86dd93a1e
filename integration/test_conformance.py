"""The conformance suite: what kpy builds of each case is what BuildKit builds.

The suite stands beside the checkout, or where KPY_CONFORMANCE says. A clone without it has nothing to run here;
in CI it must be there.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from people import Kpy
from servers import Registry

SUITE = Path(
    os.environ.get("KPY_CONFORMANCE") or Path(__file__).resolve().parents[2] / "shared" / "conformance"
)

if SUITE.is_dir() or os.environ.get("CI") == "true":

    def test_all_cases(kpy: Kpy, registry: Registry, area: Path) -> None:
        # A copy, because the user who runs it may not be able to enter the directory that the suite is in.
        suite = area / "conformance"
        shutil.copytree(SUITE, suite, symlinks=True)
        make = suite / "bases" / "make-bases"
        subprocess.run([make, "--push", registry.host], check=True, capture_output=True, timeout=600)
        command = [
            suite / "run",
            "--builder",
            "kpy",
            "--tool",
            f"kpy={kpy.program}",
            "--registry",
            registry.host,
            "--jobs",
            "2",
            "--timeout",
            "300",
        ]
        done = subprocess.run(
            command, cwd=kpy.home, capture_output=True, text=True, check=False, timeout=3000, **kpy.spawn()
        )  # type: ignore[call-overload]
        counts = re.findall(r"^(\d+) passed, (\d+) failed", done.stdout, re.MULTILINE)
        assert counts, done.stdout[-2000:] + done.stderr[-2000:]
        passed, failed = map(int, counts[-1])
        # The suite prints one line for a case and then what differs: show those of the cases that failed.
        assert failed == 0, done.stdout[-20_000:]
        assert passed > 300
