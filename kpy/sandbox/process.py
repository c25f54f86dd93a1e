"""Starting the program that enters a sandbox: what it is told, and the records that it answers. Knows nothing of what it
mounts."""

import logging
import marshal
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kpy.errors import InterruptedBuildError, SandboxError
from kpy.linux.ledger import Ledger
from kpy.linux.null import null
from kpy.sandbox import attend, stubs
from kpy.sandbox.handover import handed, take_back
from kpy.sandbox.stubs import Stub
from kpy.util import children
from kpy.util.cancel import Cancel

_log = logging.getLogger(__name__)
# By -c and not -m: kpy need not be installed where an isolated interpreter looks, and without `site` it starts in half
# the time.
_CODE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from kpy.sandbox.child import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended: the exit code of the command, None if there is none, and what refused the sandbox. `warning`: what
    the RUN lacked, for the user."""

    status: int | None
    problem: str = ""
    errno: int = 0
    warning: str = ""


def run(
    spec: Mapping[str, Any], root: str, log: Callable[[bytes], None], cancel: Cancel, ledger: Ledger | None = None
) -> Ended:
    """Run the sandbox to its end, pass its output to `log` as it comes, and remove its stubs in `root`. With a ledger, root
    is emulated there, and the ledger brought up to date.

    When this returns or raises, no process of it is left, or it is attend.LeftRunningError. Raises InterruptedBuildError
    when cancelled.
    """
    if cancel.is_set:
        raise InterruptedBuildError("interrupted")
    control_read, control_write = os.pipe2(os.O_CLOEXEC)
    with (
        os.fdopen(control_read, "rb", buffering=0) as control,
        handed(ledger) as more,
        attend.adopting(),
    ):
        try:
            data = marshal.dumps({**spec, "parent": os.getpid(), "ledger": more[0] if more else None})
            program = _start(data, control_write, *more)
        finally:
            os.close(control_write)
        said = bytearray()
        try:
            attend.follow(program, control.fileno(), said, log, cancel)
        except attend.LeftRunningError:
            raise  # its stubs are in use
        except BaseException:
            _remove_stubs(root, _parse(said))
            raise
        records = _parse(said)
        _remove_stubs(root, records)
        if ledger is not None and any(fields[0] == b"exit" for fields in records):  # else it was killed, perhaps while it wrote
            take_back(ledger, *more)
    if cancel.is_set:
        raise InterruptedBuildError("interrupted")
    return _ended(records, program.returncode)


def _start(spec: bytes, control: int, *more: int) -> subprocess.Popen[bytes]:
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # In memory and not on disk, argv or environment: it has secrets.
    with os.fdopen(os.memfd_create("kpy-sandbox", os.MFD_CLOEXEC), "w+b") as memory, null() as nowhere:
        memory.write(spec)
        memory.seek(0)
        return children.lead(  # of a session of its own: Ctrl-C at the terminal is ours to pass on
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", _CODE, package, str(memory.fileno()), str(control)],
            stdin=nowhere,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"LC_ALL": "C"},  # nothing of the builder's own environment
            cwd="/",
            pass_fds=(memory.fileno(), control, *more),
            bufsize=0,
        )


def _parse(data: bytearray) -> list[list[bytes]]:
    found, at = [], 0
    while at + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, at)
        found.append(bytes(data[at + 4 : at + 4 + size]).split(b"\0"))
        at += 4 + size
    return found


def _remove_stubs(root: str, records: list[list[bytes]]) -> None:
    made = [Stub(fields[1], int(fields[2]), int(fields[3])) for fields in records if fields[0] == b"stub"]
    if made:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stubs.remove(descriptor, made)
        finally:
            os.close(descriptor)


def _ended(records: list[list[bytes]], code: int) -> Ended:
    for fields in records:
        if fields[0] == b"error":
            return Ended(None, os.fsdecode(fields[2]), int(fields[1]))
    warning = ""
    for fields in records:
        if fields[0] == b"problem":
            _log.debug("emulated root: %s", os.fsdecode(fields[1]))
        elif fields[0] == b"warning":
            warning = os.fsdecode(fields[1])
        elif fields[0] == b"exit":
            return Ended(int(fields[1]), warning=warning)
    raise SandboxError(
        f"the process that holds the sandbox together was killed (it ended with {code})",
        hint="perhaps for want of memory: see the kernel's log",
    )
