"""Ctrl-C, TERM and KILL at every place of a build: one line, the right exit code, no process, no mount, no tag (issue 2, 7)."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import Delay, RegistryServer, serve
from people import Kpy

STUBBORN = "trap '' INT TERM HUP; (trap '' INT TERM; while :; do sleep 1; done) & echo re''ady; while :; do sleep 1; done"


class Running:
    """A build under way, in a session of its own as a shell starts it."""

    def __init__(self, kpy: Kpy, log: Path, *argv: str | Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [kpy.program, *argv], stdout=out, stderr=subprocess.STDOUT, start_new_session=True, **kpy.spawn()
            )
        self.seen: set[tuple[int, str]] = set()

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + 60
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.01)
        self.seen |= descendants(self.process.pid)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def ends(self, seconds: float = 10) -> int:
        """The exit code; nothing that it started outlives it by more than a moment."""
        self.seen |= descendants(self.process.pid)
        code = self.process.wait(seconds)
        print(self.output)
        end = time.monotonic() + 5
        while alive := self.seen & everybody().keys():
            assert time.monotonic() < end, alive
            time.sleep(0.02)
        return code


def everybody() -> dict[tuple[int, str], int]:
    """All processes that are not zombies, by id and start time; their parents."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found[int(name), fields[19]] = int(fields[1])
    return found


def descendants(ancestor: int) -> set[tuple[int, str]]:
    everyone = everybody()
    found: set[tuple[int, str]] = set()
    parents = {ancestor}
    while new := {key for key, parent in everyone.items() if parent in parents} - found:
        found |= new
        parents = {pid for pid, _ in new}
    return found


def assert_clean(kpy: Kpy, *, after_kill: bool = False) -> None:
    """No mount; and no half-written file, which only a kill leaves for the next build."""
    assert str(kpy.home) not in Path("/proc/self/mountinfo").read_text()
    left = [
        os.path.join(directory, name)
        for directory, names, files in os.walk(kpy.home)
        for name in [*names, *files]
        if ".tmp" in name or "discard-" in name
    ]
    if not after_kill:
        assert left == []


@pytest.fixture(autouse=True)
def hangups() -> Iterator[None]:
    """A hang-up ends what is started, even where the tests run under nohup: kpy leaves an ignored one ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as running:
        yield running


def context(workdir: Path, dockerfile: str) -> Path:
    (workdir / "Dockerfile").write_text(dockerfile)
    return workdir


def one_line(output: str) -> bool:
    return [line for line in output.splitlines() if line.startswith("error: ")] == ["error: interrupted"]


@pytest.mark.parametrize(
    ("number", "group"), [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGHUP, True)]
)
def test_run(kpy: Kpy, workdir: Path, busybox_base: str, number: int, group: bool) -> None:
    path = context(workdir, f"FROM {busybox_base}\nRUN {STUBBORN}\n")
    running = Running(kpy, workdir / "log", "build", "-t", "never", path)
    running.wait_for(" ready")
    (os.killpg if group else os.kill)(running.process.pid, number)
    assert running.ends() == 128 + number
    assert one_line(running.output)
    assert_clean(kpy)
    assert "never" not in kpy("images").stdout
    kpy("build", context(workdir, f"FROM {busybox_base}\nRUN echo works\n"))


def test_twice(kpy: Kpy, workdir: Path, busybox_base: str) -> None:
    path = context(workdir, f"FROM {busybox_base}\nRUN {STUBBORN}\n")
    running = Running(kpy, workdir / "log", "build", path)
    running.wait_for(" ready")
    os.killpg(running.process.pid, signal.SIGINT)
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.ends() == 130
    kpy("build", context(workdir, f"FROM {busybox_base}\nRUN echo works\n"))
    assert_clean(kpy)


def test_killed(kpy: Kpy, workdir: Path, busybox_base: str) -> None:
    """Nobody is left to clean up: the kernel ends the processes, the next build removes the files."""
    path = context(workdir, f"FROM {busybox_base}\nRUN dd if=/dev/zero of=/big bs=1M count=8; {STUBBORN}\n")
    running = Running(kpy, workdir / "log", "build", "-t", "never", path)
    running.wait_for(" ready")
    os.kill(running.process.pid, signal.SIGKILL)
    assert running.ends() == -signal.SIGKILL
    assert_clean(kpy, after_kill=True)
    assert "never" not in kpy("images").stdout
    kpy("build", context(workdir, f"FROM {busybox_base}\nRUN echo works\n"))
    assert_clean(kpy)


@pytest.mark.parametrize("dockerfile", ["COPY Dockerfile /\n", "RUN true\n"], ids=["copy", "run"])
def test_pull_from_a_registry_that_hangs(kpy: Kpy, workdir: Path, server: RegistryServer, dockerfile: str) -> None:
    base = serve(server)
    server.fault(Delay(40), path=base.layer, times=9)
    running = Running(kpy, workdir / "log", "build", context(workdir, f"FROM {base.name}\n{dockerfile}"))
    running.wait_for(" pull ")
    time.sleep(0.5)
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.ends() == 130
    assert one_line(running.output)
    assert_clean(kpy)


def test_add_from_a_server_that_hangs(kpy: Kpy, workdir: Path, server: RegistryServer) -> None:
    server.fault(Delay(40), path="/slow", times=9)
    running = Running(kpy, workdir / "log", "build", context(workdir, f"FROM scratch\nADD http://{server.host}/slow /\n"))
    running.wait_for("/slow")
    time.sleep(0.5)
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.ends() == 130
    assert one_line(running.output)
    assert_clean(kpy)


def test_resolving_at_a_registry_that_hangs(kpy: Kpy, workdir: Path, server: RegistryServer) -> None:
    base = serve(server)
    server.fault(Delay(40), path="/manifests/", times=9)
    running = Running(kpy, workdir / "log", "build", context(workdir, f"FROM {base.name}\nRUN true\n"))
    running.wait_for("load metadata")
    time.sleep(0.5)
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.ends() == 130
    assert one_line(running.output)
    assert_clean(kpy)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_copy_of_a_big_file(kpy: Kpy, workdir: Path, number: int) -> None:
    with (workdir / "big").open("wb") as big:
        for _ in range(30):
            big.write(os.urandom(10 << 20))
    path = context(workdir, "FROM scratch\nCOPY big /\n")
    running = Running(kpy, workdir / "log", "build", "-t", "never", path)
    running.wait_for("COPY big /")
    time.sleep(0.3)
    os.killpg(running.process.pid, number)
    assert running.ends() == (130 if number == signal.SIGINT else -number)
    assert_clean(kpy, after_kill=number == signal.SIGKILL)
    assert "never" not in kpy("images").stdout
    (workdir / "big").write_bytes(b"small")
    kpy("build", path)
    assert_clean(kpy)


@pytest.mark.parametrize("slow", ["/blobs/uploads/", "/manifests/"])
def test_push(kpy: Kpy, workdir: Path, server: RegistryServer, slow: str) -> None:
    server.fault(Delay(40), method="PUT", path=slow, times=9)
    name = f"{server.host}/app:1"
    running = Running(
        kpy, workdir / "log", "build", "--push", "-t", name, context(workdir, "FROM scratch\nCOPY Dockerfile /\n")
    )
    running.wait_for("push")
    time.sleep(0.5)
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.ends() == 130
    assert one_line(running.output)
    assert "1" not in server.repo("app").tags
    assert_clean(kpy)
