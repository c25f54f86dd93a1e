"""attend.py: a RUN that kills or stops its supervisor; and what else this process has started (R23)."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpy.errors import InterruptedBuildError, SandboxError
from kpy.sandbox import attend
from kpy.sandbox.base import Identity, Process
from kpy.sandbox.live import LiveSandbox
from kpy.util import children
from kpy.util.cancel import Cancel

PATH = "PATH=/usr/local/bin:/usr/bin:/bin"
# Its own parent's death would end the first process of a RUN: it lets another do the work.
LEAVES = "(setsid sh -c 'sleep 100 & sleep 100 & exec sleep 100' &); sleep 100 & "


def run(tmp_path: Path, script: str, cancel: Cancel, log: list[bytes]) -> int:
    process = Process(("/bin/sh", "-c", script), (PATH, "HOME=/"), "/", Identity(os.getuid(), os.getgid()))
    return LiveSandbox(str(tmp_path)).run(process, "/", (), log.append, cancel)


def strays() -> list[int]:
    """Children that lead or follow a session that is not ours, as the kernel lists them."""
    done = subprocess.run(["ps", "-o", "pid=,sid=,stat=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False)
    rows = [line.split() for line in done.stdout.splitlines()]
    return [int(pid) for pid, session, _ in rows if int(session) != os.getsid(0)]


@pytest.fixture
def others() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Programs of this process's that have nothing to do with RUNs."""
    programs = [children.lead(["sleep", "100"]), subprocess.Popen(["sleep", "100"])]
    yield programs
    for program in programs:
        program.kill()
        program.wait()


def test_nothing_outlives_a_supervisor_that_was_killed(tmp_path: Path, others: list["subprocess.Popen[bytes]"]) -> None:
    begun = time.monotonic()
    with Cancel() as cancel, pytest.raises(SandboxError, match="supervises RUN ended with -9"):
        run(tmp_path, f"{LEAVES} sleep 0.1; kill -9 $PPID; sleep 100", cancel, [])

    assert time.monotonic() - begun < 5
    assert strays() == [others[0].pid]
    assert [program.poll() for program in others] == [None, None]


def test_the_orphans_of_others_stay(tmp_path: Path) -> None:
    """As process 1 of a container we get those of `docker exec`; here, those of a program that is not kpy's."""
    pid = tmp_path / "pid"

    def start() -> None:
        subprocess.run(["sh", "-c", f"setsid sh -c 'echo $$ > {pid}; exec sleep 100' &"], check=True)

    timer = threading.Timer(0.3, start)
    timer.start()
    with Cancel() as cancel:
        assert run(tmp_path, f"{LEAVES} sleep 1", cancel, []) == 0
    timer.join()
    orphan = int(pid.read_text())
    assert strays() == [orphan]
    os.kill(orphan, 9)
    os.waitpid(orphan, 0)


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    """Who uses kpy as a library may have programs in sessions of their own."""
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as program:
        with Cancel() as cancel, pytest.raises(SandboxError):
            run(tmp_path, f"{LEAVES} kill -9 $PPID; sleep 100", cancel, [])

        assert strays() == [program.pid]
        assert program.poll() is None
        program.kill()


def test_its_output_is_all_there(tmp_path: Path) -> None:
    log: list[bytes] = []
    with Cancel() as cancel, pytest.raises(SandboxError):
        run(tmp_path, "echo last words; kill -9 $PPID; sleep 100", cancel, log)

    assert b"".join(log) == b"last words\n"


def test_runs_beside_it_go_on(tmp_path: Path) -> None:
    """One's supervisor is killed; what the other left so far is its own supervisor's."""
    status: list[int] = []
    with Cancel() as cancel:
        script = f"{LEAVES} sleep 1.5; exit 7"
        beside = threading.Thread(target=lambda: status.append(run(tmp_path / "b", script, cancel, [])))
        beside.start()
        time.sleep(0.5)
        with pytest.raises(SandboxError):
            run(tmp_path / "a", f"{LEAVES} kill -9 $PPID; sleep 100", cancel, [])
        assert status == []
        beside.join()

    assert status == [7]
    assert strays() == []


def test_a_supervisor_that_was_stopped_goes_on(tmp_path: Path) -> None:
    begun = time.monotonic()
    with Cancel() as cancel:
        assert run(tmp_path, f"{LEAVES} kill -STOP $PPID; exit 3", cancel, []) == 3

    assert time.monotonic() - begun < 5
    assert strays() == []


def test_a_supervisor_that_is_always_stopped_can_be_cancelled(tmp_path: Path) -> None:
    begun = time.monotonic()
    with Cancel() as cancel:
        threading.Timer(0.5, cancel.set).start()
        with pytest.raises(InterruptedBuildError):
            run(tmp_path, f"{LEAVES} setsid sh -c 'while :; do kill -STOP '$PPID'; done' & wait", cancel, [])

    assert time.monotonic() - begun < 5
    assert strays() == []


def test_output_without_end_does_not_keep_it(tmp_path: Path) -> None:
    begun = time.monotonic()
    with Cancel() as cancel:
        threading.Timer(0.3, cancel.set).start()
        with pytest.raises(InterruptedBuildError):
            run(tmp_path, "yes & setsid yes & wait", cancel, [])

    assert time.monotonic() - begun < 5


def test_signals_do_not_end_a_supervisor(tmp_path: Path) -> None:
    """SIGXCPU is the kernel's, for a limit that a RUN of the same uid can set."""
    signals = "HUP INT QUIT USR1 USR2 ALRM PIPE XCPU XFSZ VTALRM PROF TSTP TTIN POLL"
    with Cancel() as cancel:
        assert run(tmp_path, f"for name in {signals}; do kill -$name $PPID; done; exit 5", cancel, []) == 5


def test_the_end_of_kpy_ends_a_run(tmp_path: Path) -> None:
    """Even if nobody tells its supervisor, which then has time to end all."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.path.insert(0, sys.argv[2]);"
        "import test_sandbox_attend as tests; from pathlib import Path;"
        "tests.run(Path(sys.argv[3]), tests.LEAVES + 'echo $$; exec sleep 100', tests.Cancel(), tests.Written())"
    )
    here = Path(__file__).resolve()
    argv = [sys.executable, "-c", code, here.parents[2], here.parent, tmp_path]
    with attend.adopting():
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as kpy:
            assert kpy.stdout is not None
            assert int(kpy.stdout.readline()) > 0
            kpy.kill()
        end = time.monotonic() + 5
        while any(os.waitpid(pid, os.WNOHANG) == (0, 0) for pid in strays()):
            assert time.monotonic() < end
            time.sleep(0.01)


class Written(list[bytes]):
    """A log that is seen at once."""

    def append(self, data: bytes) -> None:
        os.write(1, data)


def test_what_cannot_be_ended_is_an_error() -> None:
    with attend.adopting():
        with children.lead(["/bin/sh", "-c", "sleep 100 >/dev/null & exit"]):
            pass
        assert len(strays()) == 1
        with pytest.raises(attend.LeftRunningError, match=r"1 processes of RUN cannot be ended: \w+ \(\d+\)"):
            attend.sweep(seconds=-1)

        attend.sweep()
        assert strays() == []


def test_all_that_lead_a_session_are_known() -> None:
    """Else a sweep would take them for a RUN's."""
    house = Path(attend.__file__).resolve().parents[1]
    using = {path.name for path in house.rglob("*.py") if "start_new_session" in path.read_text()}
    assert using == {"children.py"}
