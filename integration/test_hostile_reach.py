"""A RUN that sees the builder's process can do nothing to it, and nothing through it: by /proc, and by limits."""

import re
import shutil
import subprocess
from pathlib import Path

import builder as builders
import pytest
from builder import LiveKpy
from servers import Docker, tool
from test_restricted import RESTRICTED

HERE = Path(__file__).resolve().parent
PLACES = {
    "restricted": (["--user", "1000:1000", *RESTRICTED], []),
    "random uid": (["--user", "123456:0", *RESTRICTED], []),
    "no capabilities": (["--user", "0:0", *RESTRICTED], []),
    "shared pids": (["--user", "1000:1000", "--security-opt", "seccomp=unconfined"], ["--isolation=userns"]),
}
"""Where root is emulated, in a container whose processes are seen."""
ADMITTED = {"stat(path, &st)"}
"""Live, by whatever path: what there is can be seen (README)."""


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_done_to_the_builder_by_way_of_its_process(docker: Docker, area: Path, workdir: Path, place: str) -> None:
    options, flags = PLACES[place]
    context, files = workdir / "context", workdir / "files"
    context.mkdir()
    files.mkdir()
    subprocess.run([tool("gcc"), "-O2", "-static", "-o", context / "reach", HERE / "reach_builder.c"], check=True)
    (context / "Dockerfile").write_text('FROM scratch\nCOPY reach /opt/reach\nRUN ["/opt/reach", "/kpy/files"]\nRUN ["/opt/reach", "/kpy/files"]\n')
    (files / "secret").write_text("secret")
    uid, gid = options[1].split(":")
    shutil.chown(files, int(uid), int(gid))
    shutil.chown(files / "secret", int(uid), int(gid))
    (files / "secret").chmod(0o600)
    mode = files.stat().st_mode & 0o7777
    live = LiveKpy(docker, builders.make(docker))

    done = live(
        "build", "--progress", "plain", "-o", "type=cacheonly", *flags, "/kpy/workspace", check=False,
        options=["--volume", f"{context}:/kpy/workspace:ro", "--volume", f"{files}:/kpy/files", *options],
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    said = re.findall(r"^#\d+ [\d.]+ (\w+) (.*)$", done.stderr, re.MULTILINE)
    could = {what for answer, what in said if answer == "DONE"}
    admitted = {f"holder {what}" for what in ADMITTED} if place != "shared pids" else set()
    # How soon it is ended where memory runs out: of who holds the RUN; and root's files in /proc are those of uid 0.
    admitted |= {"shared pids": {"holder open(path, O_WRONLY)"}, "no capabilities": {f"{who} open(path, O_WRONLY)" for who in ("builder", "holder")}}.get(
        place, set()
    )
    assert could <= admitted, done.stderr
    assert [what for answer, what in said if answer == "found" and what != "0"], done.stderr
    assert [what for answer, what in said if answer == "own"] == ["0", "0"]
    assert sorted(path.name for path in files.iterdir()) == ["secret"]
    assert (files / "secret").stat().st_mode & 0o7777 == 0o600
    assert files.stat().st_mode & 0o7777 == mode
