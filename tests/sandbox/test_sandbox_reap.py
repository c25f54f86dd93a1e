"""reap.py: processes that fork, hide and stop, ended in a process that is their subreaper (R23)."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kpy.sandbox import reap

CHECKOUT = Path(reap.__file__).resolve().parents[2]
BEGIN = """
import ctypes, json, os, signal, sys, threading, time
sys.path.insert(0, sys.argv[1])
from kpy.sandbox import reap
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
first = os.fork()
if first == 0:
    os.setsid()
"""
END = """
    os._exit(0)
{wait}
begun = time.monotonic()
left = reap.end_children()
seconds = time.monotonic() - begun
try:
    os.waitpid(-1, 0)
    alone = False
except ChildProcessError:
    alone = True
print(json.dumps([list(left), alone, seconds]))
"""
# No chain outlives its count of generations: a test that fails leaves nothing for long.
CHAINS = """
    for _ in range({count}):
        if os.fork() == 0:
            for _ in range(3000):
                {more}
                if os.fork():
                    os._exit(0)
            os._exit(0)
    time.sleep(0.3)
"""
TREE = """
    for _ in range(3):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.setsid()
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(100)
"""
THREAD = """
    def fork():
        if os.fork() == 0:
            time.sleep(100)
        time.sleep(100)
    threading.Thread(target=fork).start()
    time.sleep(100)
"""


def ended(body: str, *, wait: str = "os.waitpid(first, 0)", change: str = "") -> float:
    """Have a process do this, and all that came of it ended; the seconds that took."""
    code = BEGIN + body + END.format(wait=f"{change}\n{wait}")
    done = subprocess.run([sys.executable, "-c", code, CHECKOUT], stdout=subprocess.PIPE, timeout=60, check=True)
    left, alone, seconds = json.loads(done.stdout)
    assert left == []
    assert alone
    return seconds


@pytest.mark.parametrize("more", ["pass", "os.setsid()"], ids=["one group", "a group each"])
@pytest.mark.parametrize("count", [1, 20])
def test_chains_that_fork_and_exit(count: int, more: str) -> None:
    assert ended(CHAINS.format(count=count, more=more)) < 2


@pytest.mark.parametrize(("body"), [TREE, THREAD], ids=["sessions, stopped", "of a thread"])
def test_a_tree_of_processes(body: str) -> None:
    assert ended(body, wait="time.sleep(0.3)") < 2


@pytest.mark.parametrize("body", [CHAINS.format(count=4, more="os.setsid()"), TREE, THREAD])
def test_a_kernel_without_lists_of_children(body: str) -> None:
    assert ended(body, wait="time.sleep(0.5)", change="reap.os.path.exists = lambda path: False") < 4


def test_who_does_not_die_is_named_in_time() -> None:
    nobody = (1 << 22) + 1  # above the highest id that there can be
    begun = time.monotonic()
    assert list(reap.end(lambda: [nobody], lambda: False, 0.05)) == [nobody]
    assert time.monotonic() - begun < 2


def test_children_of_all_threads() -> None:
    with subprocess.Popen(["sleep", "10"]) as program:
        assert program.pid in reap.children(os.getpid())
        program.kill()
