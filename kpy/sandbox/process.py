"""Starting the program that enters a sandbox, and following it: output, records, cancellation. Knows nothing of what
it mounts."""

import logging
import marshal
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kpy.errors import InterruptedBuildError, SandboxError
from kpy.linux.ledger import Ledger
from kpy.sandbox import stubs
from kpy.sandbox.handover import handed, take_back
from kpy.sandbox.stubs import Stub
from kpy.util.cancel import Cancel

_log = logging.getLogger(__name__)
_BLOCK = 1 << 16
_PATIENCE = 5.0  # seconds that a cancelled sandbox has to end, before it is killed itself
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

    When this returns or raises, no process of it is left. Raises InterruptedBuildError when cancelled.
    """
    if cancel.is_set:
        raise InterruptedBuildError("interrupted")
    # In memory and not on disk, argv or environment: it has secrets.
    spec_fd = os.memfd_create("kpy-sandbox")
    control_read, control_write = os.pipe2(os.O_CLOEXEC)
    with (
        os.fdopen(spec_fd, "w+b") as memory,
        os.fdopen(control_read, "rb", buffering=0) as control,
        handed(ledger) as more,
    ):
        try:
            memory.write(marshal.dumps({**spec, "parent": os.getpid(), "ledger": more[0] if more else None}))
            memory.seek(0)
            program = _start(spec_fd, control_write, *more)
        finally:
            os.close(control_write)
        records = bytearray()
        try:
            with program:
                try:
                    _follow(program, control.fileno(), records, log, cancel)
                except BaseException:
                    program.send_signal(signal.SIGTERM)
                    raise
                finally:
                    _end(program)
                _drain(program, log)
        finally:
            _remove_stubs(root, _parse(bytes(records)))
        if ledger is not None:
            take_back(ledger, *more)
    if cancel.is_set:
        raise InterruptedBuildError("interrupted")
    return _ended(_parse(bytes(records)), program.returncode)


def _start(spec: int, control: int, *more: int) -> subprocess.Popen[bytes]:
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", _CODE, package, str(spec), str(control)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"LC_ALL": "C"},  # nothing of the builder's own environment
        cwd="/",
        pass_fds=(spec, control, *more),
        start_new_session=True,  # Ctrl-C at the terminal is ours to pass on
        bufsize=0,
    )


def _follow(
    program: subprocess.Popen[bytes], control: int, records: bytearray, log: Callable[[bytes], None], cancel: Cancel
) -> None:
    """Pass output on until the program closes its end of `control`; then nothing of the sandbox runs any more, even
    if somebody else still holds the pipe of the output."""
    assert program.stdout is not None
    output = program.stdout.fileno()
    poll = select.poll()
    for descriptor in (output, control, cancel.fileno()):
        poll.register(descriptor, select.POLLIN)
    cancelled = False
    while True:
        ready = {descriptor for descriptor, _ in poll.poll(_PATIENCE * 1000 if cancelled else None)}
        if not ready:
            program.kill()  # it takes its init along (PR_SET_PDEATHSIG)
            continue
        if cancel.fileno() in ready:
            program.send_signal(signal.SIGTERM)
            poll.unregister(cancel.fileno())
            cancelled = True
        if output in ready:
            block = os.read(output, _BLOCK)
            if block:
                log(block)
            else:
                poll.unregister(output)
        if control in ready:
            block = os.read(control, _BLOCK)
            if not block:
                return
            records += block


def _end(program: subprocess.Popen[bytes]) -> None:
    try:
        program.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()


def _drain(program: subprocess.Popen[bytes], log: Callable[[bytes], None]) -> None:
    """What is still in the pipe."""
    assert program.stdout is not None
    output = program.stdout.fileno()
    os.set_blocking(output, False)
    while True:
        try:
            block = os.read(output, _BLOCK)
        except BlockingIOError:
            return
        if not block:
            return
        log(block)


def _parse(data: bytes) -> list[list[bytes]]:
    found, at = [], 0
    while at + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, at)
        found.append(data[at + 4 : at + 4 + size].split(b"\0"))
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
