"""A RUN in the builder's container connects to its own Unix sockets, and to none of the builder's: not to one that is
mounted below /kpy, whatever the way to it, though both have the same uid."""

import contextlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import builder as builders
import pytest
from builder import LiveKpy
from servers import Docker, tool
from test_restricted import RESTRICTED

HERE = Path(__file__).resolve().parent
PLACES = {
    "restricted": ["--user", "1000:1000", *RESTRICTED],
    "random uid": ["--user", "123456:0", *RESTRICTED],
    "no capabilities": ["--user", "0:0", *RESTRICTED],
}


@pytest.fixture
def files() -> Iterator[Path]:
    """A directory with a short name: addresses are short."""
    with tempfile.TemporaryDirectory(prefix="kpy-", dir="/var/tmp") as name:
        yield Path(name)


@contextlib.contextmanager
def _listening(directory: Path) -> Iterator[list[str]]:
    """Sockets of somebody else; what comes to them."""
    came: list[str] = []
    with socket.socket(socket.AF_UNIX) as stream, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        for name, one in (("stream", stream), ("datagram", datagram)):
            one.bind(str(directory / name))
            (directory / name).chmod(0o777)
        stream.listen(50)

        def note(one: socket.socket, what: str) -> None:
            with contextlib.suppress(OSError):
                while True:
                    if what == "stream":
                        one.accept()[0].close()
                    elif not one.recv(10):
                        return
                    came.append(what)

        threads = [threading.Thread(target=note, args=pair) for pair in ((stream, "stream"), (datagram, "datagram"))]
        for thread in threads:
            thread.start()
        try:
            yield came
        finally:
            for one in (stream, datagram):
                one.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


@pytest.mark.parametrize("place", PLACES)
def test_a_run_connects_to_its_own_sockets_and_to_no_others(docker: Docker, workdir: Path, files: Path, place: str) -> None:
    context = workdir / "context"
    context.mkdir()
    subprocess.run([tool("gcc"), "-O1", "-static", "-pthread", "-o", context / "reach", HERE / "reach_sockets.c"], check=True)
    (context / "Dockerfile").write_text('FROM scratch\nCOPY reach /tmp/reach\nRUN ["/tmp/reach", "/kpy/s"]\n')
    uid, gid = PLACES[place][1].split(":")
    shutil.chown(files, int(uid), int(gid))
    live = LiveKpy(docker, builders.make(docker))

    with _listening(files) as came:
        for name in ("stream", "datagram"):
            shutil.chown(files / name, int(uid), int(gid))
        done = live(
            "build", "--progress", "plain", "-o", "type=cacheonly", "/kpy/workspace", check=False,
            options=["--volume", f"{context}:/kpy/workspace:ro", "--volume", f"{files}:/kpy/s", *PLACES[place]],
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    said = re.findall(r"^#\d+ [\d.]+ (\w+) (.*)$", done.stderr, re.MULTILINE)
    assert [what for answer, what in said if answer == "reached"] == []
    assert came == []
    assert len([what for answer, what in said if answer == "EACCES"]) >= 7, done.stderr
    assert [what for answer, what in said if answer == "tried"] == ["often", "often"]
    own = [what for answer, what in said if answer == "own"]
    assert len(own) >= 4
    assert all(what.endswith(" works") for what in own), own


DATAGRAM = "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind('/tmp/log')"


def test_a_datagram_socket_that_is_not_to_be_had_is_told(docker: Docker, python_base: str, workdir: Path) -> None:
    context = workdir / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f'FROM {python_base}\nRUN python3 -c "{DATAGRAM}" 2>&1 | grep "not supported"\n')
    live = LiveKpy(docker, builders.make(docker))

    done = live("build", "-o", "type=cacheonly", "/kpy/workspace", options=["--volume", f"{context}:/kpy/workspace:ro", *PLACES["restricted"]])

    assert "RUN could not use a datagram Unix socket" in done.stderr
