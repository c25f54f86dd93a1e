"""The conformance suite in restricted containers, as a user who is nobody there, with no capability and no new privileges:
in two that build one case after the other, each with the root file system that the last one has left; with KPY_TEST_ALL
set, each case in a new one (see conformance-live). The engine is all that the user may use.

A case without RUN needs no root file system, and is built by what builds it in test_conformance.py, where the user is
an ordinary one too: those are left out here, unless KPY_TEST_ALL is set, for each takes a second.

What such a container cannot have is named here, each with the kernel's reason. Every other case must pass; one of these
that comes to pass must be taken off the list.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from forked_kpy import contained
from people import User
from servers import Docker, Registry, tool
from test_conformance import SUITE

HERE = Path(__file__).resolve().parent
IMAGE = f"kpy-builder:restricted-{os.environ.get('KPY_TEST_RUN') or os.getpid()}"
OUT_OF_REACH = {
    "fs-hardlink-write": "overlayfs copies up one name of a file of a lower layer, a plain root has one inode for all; which"
    " name was written through, no system call tells later. To have them apart before RUN would show another nlink",
    "run-mount-context-default": "read-only is a mount's (CAP_SYS_ADMIN) or a file system's, and the container's user owns"
    " the copy that stands for the mount. A write is dropped with a warning (test_main_job_live.py)",
    "run-network-none": "lists /sys/class/net, which is the container's: a namespace of its own, and a mount of it, need"
    " CAP_SYS_ADMIN. That nothing is reached is in test_main_job_live.py",
}
# What images have as directories and the runtime mounts things in: as the builder image has them.
PLAIN = {"etc", "usr", "var", "run", "tmp", "home", "root", "opt", "mnt", "srv", "workspace", "kpy", "kroot", "proc", "dev", "sys"}
# Of the suite's bases; and what is no word.
MORE = (
    "absevil", "absolute", "base", "dockerv2", "dots", "escaped-abs", "escaped-dotdot", "escaped-symlink", "evil", "hl", "implied",
    "marker", "plaintar", "special", "stack", "two $HOME", "three\nline", "five-$X",
)  # fmt: skip


def toplevel(suite: Path) -> list[str]:
    """The names that the suite's images have in `/`, at the end or for a while: in each image something else, so that
    none can be a directory from the start. All words of the Dockerfiles are taken that could be such a name."""
    names = {*MORE, "lib", "bin"}
    for description in suite.glob("cases/*/case.json"):
        case = description.parent
        expected = case / "expected.json"
        if expected.is_file():
            names |= {path.strip("/").split("/")[0] for path in json.loads(expected.read_text()).get("diff", {})}
        names |= {item["path"].split("/")[0] for item in json.loads(description.read_text()).get("setup", [])}
        names |= {path.name for path in case.glob("context/*")}
        for path in case.glob("context/**/*"):
            if path.is_file() and path.stat().st_size < 10_000:
                names |= set(re.findall(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*", path.read_text(errors="replace")))
    return sorted(name for name in names - PLAIN if name.strip(".") and len(name) < 60)


def runs(case: Path) -> bool:
    """Is there anything to be run in it? Its files say so, or the history that it must have."""
    texts = (path.read_text(errors="replace") for path in case.rglob("*") if path.is_file() and path.stat().st_size < 100_000)
    return any(re.search(r"\b(?:RUN|ONBUILD)\b", text, re.IGNORECASE) for text in texts)


if SUITE.is_dir() or os.environ.get("CI") == "true":

    @pytest.fixture
    def image(docker: Docker) -> Iterator[str]:
        """The builder image with more names in `/`."""
        links = [f"--toplevel-link={name}" for name in toplevel(SUITE)]
        subprocess.run(
            [sys.executable, HERE / "bundle" / "make-bundle", "--image", IMAGE, *links],
            env={**os.environ, "DOCKER_HOST": docker.socket}, check=True, timeout=600,
        )  # fmt: skip
        yield IMAGE
        docker("image", "rm", "--force", IMAGE)

    def test_all_cases_that_need_no_more_than_a_restricted_container(
        docker: Docker, registry: Registry, area: Path, dev: User, image: str
    ) -> None:
        """E2, P15."""
        suite = area / "conformance-restricted"
        shutil.copytree(SUITE, suite, symlinks=True)
        whole = bool(os.environ.get("KPY_TEST_ALL"))
        for description in [] if whole else list(suite.glob("cases/*/case.json")):
            if not runs(description.parent):
                shutil.rmtree(description.parent)
        wrapper = Path(shutil.copy2(HERE / "conformance-live", area))
        subprocess.run([suite / "bases" / "make-bases", "--push", registry.host], check=True, capture_output=True, timeout=600)
        engine = Path(docker.socket.removeprefix("unix://"))
        with ExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))  # the images' own /var/tmp is not for mounts
            os.chown(home, dev.uid, dev.gid)
            results = home / "results.json"
            if not whole:
                rights = ("--user", f"{dev.uid}:{dev.gid}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
                wrapper = stack.enter_context(contained(home, docker, image, *rights))
            subprocess.run(
                ["/usr/bin/python3", suite / "run", "--builder", "kpy", "--tool", f"kpy={wrapper}", "--registry", registry.host,
                 "--extra=--isolation=live", "--jobs", "2", "--timeout", "300", "--json", results],
                env={"PATH": f"{os.environ['PATH']}:{Path(tool('docker')).parent}", "HOME": str(home), "KPY_IMAGE": image,
                     "KPY_RESTRICTED": "1", "DOCKER_HOST": docker.socket, "TMPDIR": str(home)},
                capture_output=True, check=False, timeout=3000, cwd=home, user=dev.uid, group=dev.gid,
                extra_groups=[engine.stat().st_gid],
            )  # fmt: skip
            cases = json.loads(results.read_text())["results"]
        failed = {case["name"] for case in cases if case["status"] != "PASS"}
        assert failed == OUT_OF_REACH.keys()
        assert len(cases) > (300 if whole else 150)
