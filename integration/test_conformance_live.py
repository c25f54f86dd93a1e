"""The conformance suite in live mode: in ordinary containers, two that build one case after the other, each with the root
file system that the last one has left; with KPY_TEST_ALL set, each case in a new one (see conformance-live).

What an ordinary container cannot have is named here, each with the kernel's reason. Every other case must pass; one of these
that comes to pass must be taken off the list.
"""

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import builder as builders
from forked_kpy import contained
from servers import Docker, Registry
from test_conformance import SUITE

OUT_OF_REACH = {
    "base-evil-tar": "lists /, where /kpy is: without mounts (CAP_SYS_ADMIN) nothing hides the builder from its own root",
    "fs-hardlink-write": "overlayfs copies up one name of a file of a lower layer, a plain root has one inode for all; which"
    " name was written through, no system call tells later. To have them apart before RUN would show another nlink",
    "run-mount-context-default": "read-only is a mount's (CAP_SYS_ADMIN) or a file system's: root has CAP_DAC_OVERRIDE, and"
    " Landlock cannot allow / without what is below. A write is dropped with a warning (test_main_job_live.py)",
    "run-network-none": "lists /sys/class/net, which is the container's: a namespace of its own, and a mount of it, need"
    " CAP_SYS_ADMIN. That nothing is reached is in test_main_job_live.py",
}

if SUITE.is_dir() or os.environ.get("CI") == "true":

    def test_all_cases_that_need_no_more_than_an_ordinary_container(
        docker: Docker, registry: Registry, area: Path
    ) -> None:
        subprocess.run(
            [SUITE / "bases" / "make-bases", "--push", registry.host], check=True, capture_output=True, timeout=600
        )
        results = area / "conformance-live.json"
        image, directory = builders.make(docker), area / "live"
        directory.mkdir()
        with ExitStack() as stack:
            if os.environ.get("KPY_TEST_ALL"):
                program = Path(__file__).resolve().parent / "conformance-live"
            else:
                program = stack.enter_context(contained(directory, docker, image))
            subprocess.run(
                [SUITE / "run", "--builder", "kpy", "--tool", f"kpy={program}", "--registry", registry.host,
                 "--extra=--isolation=live", "--jobs", "2", "--timeout", "300", "--json", results],
                env={**os.environ, "KPY_IMAGE": image, "DOCKER_HOST": docker.socket, "TMPDIR": str(directory)},
                capture_output=True, check=False, timeout=3000,
            )  # fmt: skip
        cases = json.loads(results.read_text())["results"]
        failed = {case["name"] for case in cases if case["status"] != "PASS"}
        assert failed == OUT_OF_REACH.keys()
        assert len(cases) > 300
