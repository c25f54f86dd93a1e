"""reap.ended: a process of a RUN that has its parent trace it ends as any other does, and holds nothing up."""

import os
import sys
from pathlib import Path

import pytest

from kpy.linux.ledger import Ledger
from kpy.sandbox.base import Identity, Process
from kpy.sandbox.handover import NONE, Emulation
from kpy.sandbox.live import LiveSandbox
from kpy.util.cancel import Cancel

PATH = "PATH=/usr/local/bin:/usr/bin:/bin"
BEGIN = """
import ctypes, os, signal, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def trace_me():
    assert libc.ptrace(0, 0, None, None) == 0, os.strerror(ctypes.get_errno())
"""
ATTACKS = {
    "stops": ("trace_me(); os.kill(os.getpid(), signal.SIGSTOP); print('on'); sys.exit(7)", 7, b"on\n"),
    "again and again": ("for _ in range(100):\n    trace_me(); os.kill(os.getpid(), signal.SIGSTOP)\nprint('on')", 0, b"on\n"),
    "executes": ("trace_me(); os.execvp('echo', ['echo', 'on'])", 0, b"on\n"),
    "gets a signal": ("signal.signal(signal.SIGUSR1, lambda *_: os._exit(9)); trace_me(); os.kill(os.getpid(), 10); time.sleep(9)", 9, b""),
    "dies of a signal": ("trace_me(); os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", 143, b""),
    "a thread": (
        ("def one():\n    trace_me(); libc.tgkill(os.getpid(), threading.get_native_id(), 19)\n"
        "t = threading.Thread(target=one); t.start(); t.join(); print('on')"), 0, b"on\n",
    ),
    "an orphan": (
        ("if os.fork() == 0:\n    time.sleep(0.3); trace_me(); os.kill(os.getpid(), signal.SIGSTOP); os._exit(0)\n"
        "if os.fork() == 0:\n    time.sleep(0.3); os._exit(0)\ntime.sleep(0.6); print('on')"), 0, b"on\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("emulated", [False, True])
@pytest.mark.parametrize("attack", ATTACKS)
def test_who_asks_to_be_traced_is_let_go(tmp_path: Path, attack: str, emulated: bool) -> None:
    code, status, output = ATTACKS[attack]
    said: list[bytes] = []
    emulation = Emulation(Ledger()) if emulated else NONE
    process = Process((sys.executable, "-c", BEGIN + code), (PATH, "HOME=/"), "/", Identity(os.getuid(), os.getgid()))
    with Cancel() as cancel:
        ended = LiveSandbox(str(tmp_path), emulation=emulation).run(process, "/", (), said.append, cancel)

    assert (b"".join(said), ended) == (output, status)
