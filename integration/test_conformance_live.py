"""The conformance suite in live mode: each case in a new, ordinary container (see conformance-live).

What an ordinary container cannot have is named here, each with its reason. Every other case must pass; one of these
that comes to pass must be taken off the list.
"""

import json
import os
import subprocess
from pathlib import Path

import builder as builders
from servers import Docker, Registry
from test_conformance import SUITE

OUT_OF_REACH = {
    "base-evil-tar": "lists /, where /kpy is: the builder is in the root that RUN sees",
    "fs-hardlink-write": "overlayfs breaks hard links of lower layers when one name is written; a plain root keeps them",
    "run-mount-context-default": "nothing can be mounted read-only without CAP_SYS_ADMIN, and root may write to any file",
    "run-network-none": "a network namespace needs CAP_SYS_ADMIN",
}

if SUITE.is_dir() or os.environ.get("CI") == "true":

    def test_all_cases_that_need_no_more_than_an_ordinary_container(
        docker: Docker, registry: Registry, area: Path
    ) -> None:
        subprocess.run(
            [SUITE / "bases" / "make-bases", "--push", registry.host], check=True, capture_output=True, timeout=600
        )
        results = area / "conformance-live.json"
        wrapper = Path(__file__).resolve().parent / "conformance-live"
        subprocess.run(
            [SUITE / "run", "--builder", "kpy", "--tool", f"kpy={wrapper}", "--registry", registry.host,
             "--extra=--isolation=live", "--jobs", "2", "--timeout", "300", "--json", results],
            env={**os.environ, "KPY_IMAGE": builders.make(docker), "DOCKER_HOST": docker.socket},
            capture_output=True, check=False, timeout=3000,
        )  # fmt: skip
        cases = json.loads(results.read_text())["results"]
        failed = {case["name"] for case in cases if case["status"] != "PASS"}
        assert failed == OUT_OF_REACH.keys()
        assert len(cases) > 300
