"""heard.py: a terminal that is stopped, and a pipe that nobody reads, do not hold up the end."""

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kpy

CHECKOUT = Path(kpy.__file__).resolve().parents[1]
SOON = 2.0
CODE = """
import contextlib, sys, threading
sys.path.insert(0, sys.argv[2])
from kpy.cli import main, verify
from kpy.cli.working import work
from kpy.errors import InterruptedBuildError
from kpy.events import StepLog, StepStarted, step

def action(report, cancel):
    def say(name):
        with contextlib.suppress(InterruptedBuildError), step(report, name, name):
            for number in range(10**9):
                report(StepLog(name, b"%d " % number * 500 + b"\\n"))
                cancel.check()
    threads = [threading.Thread(target=say, args=[name]) for name in "ab"]
    for thread in threads:
        thread.start()
    print("begun", flush=True)
    for thread in threads:
        thread.join()
    cancel.check()

verify.run = lambda argv, terminal: work(sys.argv[1], terminal, action) or 0
sys.exit(main.main(["verify"]))
"""


@contextmanager
def unread(kind: str) -> Iterator[int]:
    """A descriptor that takes no more from some time on."""
    ours, theirs = os.pipe() if kind == "pipe" else pty.openpty()
    try:
        if kind == "stopped":
            termios.tcflow(theirs, termios.TCOOFF)
        yield theirs
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind in ("pipe", "unread", "stopped") for mode in ("plain", "rawjson", "tty") if (kind, mode) != ("pipe", "tty")],
)
def test_a_signal_ends_it(kind: str, mode: str, number: signal.Signals) -> None:
    def once() -> float:
        with unread(kind) as stderr:
            before = termios.tcgetattr(stderr) if kind != "pipe" else None
            command = [sys.executable, "-c", CODE, mode, CHECKOUT]
            env = {"PATH": os.environ["PATH"], "TERM": "xterm"}
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, env=env) as program:
                assert program.stdout is not None
                try:
                    assert program.stdout.readline() == b"begun\n"
                    time.sleep(0.5)
                    assert program.poll() is None
                    begun = time.monotonic()
                    program.send_signal(number)
                    assert program.wait(30) == 128 + number
                    seconds = time.monotonic() - begun
                finally:
                    program.kill()
            assert before is None or termios.tcgetattr(stderr) == before
            return seconds

    took = [once()]
    while min(took) >= SOON and len(took) < 3:  # others may have the processors
        took.append(once())
    assert min(took) < SOON


def test_all_is_read_by_who_reads_slowly() -> None:
    ours, theirs = os.pipe()
    code = CODE.replace("10**9", "300")
    command = [sys.executable, "-c", code, "plain", CHECKOUT]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs) as program:
        os.close(theirs)
        time.sleep(1.5)
        with open(ours, "rb") as file:
            lines = file.read().splitlines()
        assert program.wait(60) == 0
    for name in (b"#1 ", b"#2 "):
        said = [line.split()[2:] for line in lines if line.startswith(name) and len(line) > 500]
        assert said == [[b"%d" % number] * 500 for number in range(300)]
    assert sum(b"DONE" in line for line in lines) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_terminal_echoes_again_when_the_question_for_a_password_is_interrupted(number: signal.Signals, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        before = termios.tcgetattr(theirs)
        code = "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY); from kpy.cli.main import main; sys.exit(main(['keygen']))"
        command = [sys.executable, "-c", code]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)}
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=tmp_path, start_new_session=True) as program:
            try:
                said = b""
                while b"private key: " not in said:
                    said += os.read(ours, 1000)
                assert termios.tcgetattr(theirs) != before
                program.send_signal(number)
                assert program.wait(20) == 128 + number
            finally:
                program.kill()
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)
    assert list(tmp_path.iterdir()) == []
