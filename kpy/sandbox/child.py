"""The program that enters a sandbox and starts the command of a RUN in it. Started by process.py as a program of its
own, because kpy has threads and a fork of it could not go on. Standard library and kpy.linux only, and of them only
what starts fast.

It makes the namespaces and forks the init of the pid namespace, which mounts, changes the root, starts the command,
reaps what is orphaned, and ends with the command: the kernel then kills all that is left (R23). Where the pid
namespace cannot be had, it adopts and kills the leftovers itself.

With a ledger, in the file that the spec names by descriptor, root is emulated (kpy.emulation) by the process that is
the parent of the command: it is inside, so paths and pids are the same to both.

Told by a spec (marshal: bytes, and no import to read it); answers in records on a pipe, see `Control`.
"""

import marshal
import os
import signal
import struct
import sys

from kpy.linux import capabilities, keyring, libc, syscalls
from kpy.linux.namespaces import CLONE_NEWPID
from kpy.sandbox import mounts, program, reap, rlimits, walls
from kpy.sandbox.stubs import Stub, open_target

TYPE_CHECKING = False  # as mypy knows it; importing typing takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from kpy.sandbox.emulated import Emulated

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


class Control:
    """Records to kpy: a length, then fields with NUL between them. `stub` path before after, `exit` status,
    `error` errno text, and of an emulated root `warning` text and `problem` text."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_inheritable(descriptor, False)

    def send(self, *fields: bytes) -> None:
        """One record; small ones are written whole even if others write too."""
        record = b"\0".join(fields)
        os.write(self._descriptor, struct.pack("<I", len(record)) + record)

    def error(self, text: str, number: int) -> None:
        """Say that the sandbox cannot be."""
        self.send(b"error", b"%d" % number, os.fsencode(text[:2000]))


def main(spec_fd: int, control_fd: int) -> None:
    """Run what the spec says and end. Never returns to the caller with a sandbox half made."""
    with os.fdopen(spec_fd, "rb") as stream:
        spec = marshal.loads(stream.read())  # noqa: S302 - it is kpy that wrote it
    control = Control(control_fd)
    os.umask(0o022)
    # No process of the RUN, which may have our uid, may look into these: they hold the secrets of the spec.
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != spec["parent"]:
        os._exit(1)  # it died before we could ask to die with it
    _leave_keys(control)
    try:
        libc.unshare(spec["unshare"])
        mounts.isolate()
    except OSError as error:
        control.error(f"cannot isolate the RUN: {mounts.reason(error)}", error.errno or 0)
        os._exit(1)
    if spec["unshare"] & CLONE_NEWPID:
        _outer(spec, control)
    else:
        _run(spec, control)
    sys.stdout.flush()
    os._exit(0)


def _leave_keys(control: Control) -> None:
    """The keys of who builds are not the RUN's."""
    arch = syscalls.native()
    try:
        if arch is not None:
            keyring.leave(arch)
    except OSError as error:
        control.error(f"cannot give the RUN a session keyring of its own: {mounts.reason(error)}", error.errno or 0)
        os._exit(1)


def _outer(spec: "dict[str, Any]", control: Control) -> None:
    """Fork the init and wait for it: when it is gone, so is all that it held."""
    alive, ours = os.pipe2(os.O_CLOEXEC)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    init = os.fork()
    if init == 0:
        os.close(ours)
        _guarded(spec, control, alive)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(init, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.waitpid(init, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _guarded(spec: "dict[str, Any]", control: Control, alive: int) -> None:
    """The init: whatever happens, it never returns into the code of its parent."""
    try:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.set_blocking(alive, False)
        try:
            os.read(alive, 1)
            os._exit(1)  # end of file: the parent died before we could ask to die with it
        except BlockingIOError:
            pass
        _run(spec, control)
    except BaseException as error:
        control.error(f"{type(error).__name__}: {error}", 0)
    finally:
        os._exit(0)


def _run(spec: "dict[str, Any]", control: Control) -> None:
    """Enter the root, start the command, reap until it ends, end the rest, and say how it ended."""
    private = bool(spec["private_pids"])
    if not private:
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    emulated = _emulated(spec)
    keep_apart = None if private else _keeping_apart()
    try:
        _enter(spec, control, emulated)
        alone = keep_apart is not None and keep_apart() == "signals"
    except mounts.Refused as error:
        control.error(error.text, error.number)
        return
    except OSError as error:
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        control.error(f"cannot make the sandbox: {mounts.reason(error)}{where}", error.errno or 0)
        return
    sys.path.clear()  # nothing of the image's is ever imported
    sys.path_importer_cache.clear()
    # Those that a RUN may send, or have the kernel send (SIGXCPU). It has its own again.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    pid = os.fork()
    if pid == 0:
        _become(spec, control, emulated)
    running = [pid]
    if not private:
        _end_on_signal(running)
    if emulated is not None:
        # As an ordinary user's: what is done for a RUN is not done with more rights than it has. But for its memory,
        # which a security module (Yama) may want this capability for.
        capabilities.limit(1 << capabilities.SYS_PTRACE)
    status = emulated.follow(pid) if emulated is not None else None
    status = _reap(pid) if status is None else status
    running.clear()
    left = 0 if private else len(reap.end_children(alone=alone))
    if left:  # kpy looks for them, and says what it finds
        control.error(f"{left} processes of RUN did not end", 0)
        return
    if emulated is not None:
        if private:
            _kill_all()
        _finish(emulated, control)
    control.send(b"exit", b"%d" % status)


def _end_on_signal(running: list[int]) -> None:
    """From now on SIGTERM, and the end of kpy, kill those who run, and so end all."""

    def stop(*_: object) -> None:
        for pid in running:
            os.kill(pid, signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGTERM)


def _emulated(spec: "dict[str, Any]") -> "Emulated | None":
    """Made before the root is changed, with all that it imports: afterwards a module would be the image's."""
    if spec["ledger"] is None:
        return None
    from kpy.sandbox.emulated import Emulated

    return Emulated(spec["ledger"], spec["uid"], spec["gid"], _groups(spec), spec["refused"])


def _finish(emulated: "Emulated", control: Control) -> None:
    """Write the ledger, and say what was amiss."""
    emulated.finish(mounts.passing())
    if emulated.warning:
        control.send(b"warning", os.fsencode(emulated.warning))
    for problem in emulated.problems:
        control.send(b"problem", os.fsencode(problem[:2000]))


def _kill_all() -> None:
    """All in the pid namespace but this one, its init: at once, and none can fork any more."""
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def _enter(spec: "dict[str, Any]", control: Control, emulated: "Emulated | None") -> None:
    made: list[Stub] = []
    root = spec["root"]
    hostname = spec["hostname"]
    if spec["private_network"]:
        _loopback_up()
    try:
        stage = mounts.Stage(root, made, emulated.tell if emulated is not None else None)
        mounts.populate(stage, spec)
    finally:
        for stub in made:
            control.send(b"stub", stub.path, b"%d" % stub.before, b"%d" % stub.after)
    mounts.change_root(stage)
    libc.sethostname(hostname)
    # As runc does; it stays in the layer. Links of the image are followed in the root, and those of /proc are not: where pids
    # are shared, they would lead to the root of others.
    top = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(open_target(top, spec["cwd"], directory=True, made=[]))
    finally:
        os.close(top)


def _reap(pid: int) -> int:
    while True:
        gone = reap.ended()
        if gone is not None and gone[0] == pid:
            return gone[1]


def _become(spec: "dict[str, Any]", control: Control, emulated: "Emulated | None") -> None:
    """In the last fork: take the identity and become the command."""
    try:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)  # Python ignores some, and so may who started kpy (nohup, cron)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setsid()
        _take_limits(spec)
        if spec["private_pids"] and emulated is None:  # else it is kept apart from more than sockets
            walls.close_abstract_sockets()
        walls.filter_calls(spec["filter"])  # while we may: as root of the namespace, without no_new_privs
        if emulated is None:
            _take_identity(spec)
        else:
            capabilities.limit(0)
            if not emulated.confine():
                raise mounts.Refused("root cannot be emulated in a RUN whose root is", 0)
        if not spec["private_pids"]:
            libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)  # after the ids: a change of them clears it
        program.execute(spec["argv"], spec["env"])
    except program.CannotStart as error:
        os.write(2, os.fsencode(error.text) + b"\n")
        os._exit(error.status)
    except mounts.Refused as error:
        control.error(error.text, error.number)
    except walls.CannotRaise as error:
        control.error(str(error), error.number)
    except BaseException as error:
        control.error(f"{type(error).__name__}: {error}", 0)
    finally:
        os._exit(126)


def _keeping_apart() -> "Callable[[], str] | None":
    """Where pids are shared, root of this namespace could stop or kill the builder, which is in it too. What keeps this
    process and the RUN from that, made before the root is changed, with all that it imports; it gives what
    landlock.keep_apart does. While a process is root here it needs no no_new_privs for Landlock, so su still works."""
    from kpy.linux import landlock

    arch = syscalls.native()
    return None if arch is None else lambda: landlock.keep_apart(arch)


def _take_limits(spec: "dict[str, Any]") -> None:
    cwd = spec["cwd"]
    # Before the ids, as runc does: a WORKDIR that the user may not enter is still where the command starts.
    try:
        top = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        place = libc.open_in_root(top, cwd, os.O_PATH | os.O_DIRECTORY)
        os.fchdir(place)
        os.close(place)
        os.close(top)
    except OSError as error:
        raise program.CannotStart(f"chdir to {os.fsdecode(cwd)}: {mounts.reason(error)}", program.NOT_FOUND) from error
    try:
        rlimits.apply(spec["ulimits"])
    except rlimits.NotAllowed as error:
        raise mounts.Refused(error.text, 0) from error
    capabilities.limit_bounding(spec["capabilities"])


def _take_identity(spec: "dict[str, Any]") -> None:
    uid, gid, keep = spec["uid"], spec["gid"], spec["capabilities"]
    held = capabilities.permitted()
    try:
        os.setgroups(_groups(spec))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        text = f"cannot become user {uid}:{gid}: such ids are not mapped into the user namespace"
        raise mounts.Refused(text, error.errno or 0) from error
    capabilities.limit(keep & held if uid == 0 else 0)


def _groups(spec: "dict[str, Any]") -> list[int]:
    """The primary group is a supplementary one too, lest setgid programs lose it (CVE-2022-36109)."""
    return sorted({spec["gid"], *spec["groups"]})


def _loopback_up() -> None:
    import fcntl
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


