"""Starting `supervisor.py`: what it is told, and what it answers. Knows nothing of mounts."""

import functools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from kpy.errors import InterruptedBuildError, SandboxError
from kpy.linux import capabilities, profile
from kpy.linux.null import null
from kpy.sandbox import attend, supervisor
from kpy.sandbox.base import Process
from kpy.sandbox.handover import NONE, Emulation, check_machine, handed, take_back
from kpy.util import children
from kpy.util.cancel import Cancel

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reach:
    """What files a process may use where the kernel can see to it (kpy.linux.landlock.only)."""

    whole: tuple[str, ...]
    programs: tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """A process, its root as this process sees it, and its whole environment.

    With a ledger, root is emulated: the process and all that it starts run as the user that kpy is, and believe to be
    `process.identity`. `run` brings the ledger up to date, in place. See handover.Emulation. `reach` holds for its
    supervisor too, who does things for it.
    """

    process: Process
    root: str
    env: tuple[str, ...] = field(repr=False)
    emulation: Emulation = field(default=NONE, repr=False)
    reach: Reach | None = None


def run(job: Job, log: Callable[[bytes], None], cancel: Cancel) -> int:
    """Run to the end; see Sandbox.run. When this returns or raises, no process of the job is left, whatever it did to its
    supervisor, or it is attend.LeftRunningError."""
    if cancel.is_set:
        raise InterruptedBuildError("interrupted")
    emulated = job.emulation.ledger
    if emulated is not None:
        check_machine()
    outcome_read, outcome_write = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(outcome_read, "rb", buffering=0) as outcome, handed(emulated) as ledger, attend.adopting():
        try:
            program = _start(_spec(job, *ledger), outcome_write, *ledger)
        finally:
            os.close(outcome_write)
        answer = bytearray()
        attend.follow(program, outcome.fileno(), answer, log, cancel)
        if emulated is not None and answer:  # else it was killed, perhaps while it wrote
            take_back(emulated, *ledger)
    if cancel.is_set:
        raise InterruptedBuildError("interrupted")
    return _status(answer, program.returncode, job.emulation.warn)


def may_raise_walls() -> bool:
    """May real root here be filtered and kept apart? Without this capability, only by no_new_privs, with which su and file
    capabilities do not work; what has not got it is a container's, which has a filter."""
    return bool(capabilities.effective() >> capabilities.SYS_ADMIN & 1)


@functools.cache
def network_isolation() -> Literal["namespace", "filter", ""]:
    """How a process here can be without network: in a namespace of its own, under a filter that forbids sockets, or
    not at all. Tried, each in a process of its own."""
    if _works(_ISOLATED):
        return "namespace"
    return "filter" if _works(_FILTERED) else ""


# With CAP_SYS_ADMIN alone there is a namespace, and nobody who may start its loopback interface.
_ISOLATED = """
import ctypes, fcntl, socket, struct
if ctypes.CDLL(None).unshare(0x40000000):
    sys.exit(1)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
"""

# It holds if sockets of the internet are refused and others are not.
_FILTERED = """
import errno, socket
from kpy.linux import socketfilter
socketfilter.apply()
socket.socket(socket.AF_UNIX).close()
try:
    socket.socket(socket.AF_INET)
except OSError as error:
    sys.exit(error.errno != errno.EAFNOSUPPORT)
sys.exit(1)
"""


def _works(code: str) -> bool:
    argv = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, sys.argv[1])\n{code}", _package()]
    with null() as nowhere:
        done = subprocess.run(argv, env=_environment(), stdin=nowhere, stderr=nowhere, check=False)
    return done.returncode == 0


def _package() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(supervisor.__file__))))


def _environment() -> dict[str, str]:
    # Nothing of the builder's own environment, which may hold credentials, reaches what runs in the root.
    return {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}


def _start(spec: bytes, outcome: int, *more: int) -> subprocess.Popen[bytes]:
    # By -c and not -m: kpy need not be installed where an isolated interpreter looks.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from kpy.sandbox.supervisor import main; "
        "main(int(sys.argv[2]), int(sys.argv[3]))"
    )
    # In memory, and not in a pipe: to a supervisor that is stopped or dead we need not write.
    with os.fdopen(os.memfd_create("kpy-spec", os.MFD_CLOEXEC), "w+b") as memory, null() as nowhere:
        memory.write(spec)
        memory.seek(0)
        return children.lead(  # of a session of its own: Ctrl-C at the terminal is ours to pass on
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", code, _package(), str(memory.fileno()), str(outcome)],
            stdin=nowhere,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            cwd="/",
            pass_fds=(memory.fileno(), outcome, *more),
            bufsize=0,
        )


def _spec(job: Job, ledger: int | None = None) -> bytes:
    process = job.process
    return json.dumps(
        {
            "parent": os.getpid(),
            "argv": process.argv,
            "env": job.env,
            "cwd": process.cwd,
            "uid": process.identity.uid,
            "gid": process.identity.gid,
            "groups": process.identity.groups,
            "root": job.root,
            "no_network": network_isolation() if process.network == "none" else "",
            "ulimits": process.ulimits,
            "ledger": ledger,
            "refused": job.emulation.refused,
            "walls": ledger is not None or may_raise_walls(),
            "filter": profile.program().hex(),
            "reach": (job.reach.whole, job.reach.programs, job.reach.names) if job.reach is not None else None,
        }
    ).encode()


def _status(answer: bytes | bytearray, code: int | None, warn: Callable[[str], None]) -> int:
    try:
        outcome = json.loads(answer)
    except ValueError:
        raise SandboxError(
            f"the process that supervises RUN ended with {code}",
            hint="it may have been killed by the command itself, or for want of memory",
        ) from None
    for problem in outcome.get("problems", ()):
        _log.debug("emulated root: %s", problem)
    if outcome.get("warning"):
        warn(outcome["warning"])
    if "status" in outcome:
        return int(outcome["status"])
    number = int(outcome["errno"])
    raise SandboxError(
        f"{outcome['error']}: {os.strerror(number).lower()}" if number else outcome["error"], errno=number
    )
