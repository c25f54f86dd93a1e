"""The program that runs one process in `/` or in a chroot, where nothing can be mounted or unshared, and leaves no
process behind. It is a program of its own because it must be the parent of every orphan and kill them all, and kpy
itself has other children. It imports little: it must start, and soon, after `/` was emptied.

Started with two descriptors: the spec (JSON) is read from the first to its end, and the outcome is written to the
second: `{"status": N}`, or `{"error": text, "errno": N}` when the environment refused. SIGTERM kills everything, and so
does the end of kpy. A RUN may have our uid, and kill or stop us: kpy expects that (attend.py).

With a ledger, in the file that the spec names by descriptor, root is emulated (kpy.emulation), by this process; the
file holds the new ledger at the end, and the outcome may have a `warning`, and `problems` for developers.
"""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import struct
from collections.abc import Sequence
from typing import Any, NoReturn

from kpy.linux import keyring, landlock, libc, seccomp, socketfilter, syscalls
from kpy.linux.namespaces import CLONE_NEWNET
from kpy.sandbox import reap, walls
from kpy.sandbox.emulated import Emulated
from kpy.sandbox.program import NOT_FOUND, CannotStart, execute
from kpy.sandbox.rlimits import NotAllowed, apply

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


class _Refused(Exception):
    """The environment refuses something that the spec asks for."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(what)
        self.number = number


def main(spec_fd: int, outcome_fd: int) -> None:
    """The program."""
    with os.fdopen(spec_fd, "rb") as file:
        spec = json.load(file)
    os.set_inheritable(outcome_fd, False)
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    # No process of the RUN, which may have our uid, may trace us: it could do through us what its filter forbids.
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    running: list[int] = []
    stopped = _stop_on_signal(running)
    if os.getppid() != spec["parent"]:
        return  # it died before we could ask to be told
    kept = ""
    try:
        _leave_keys()
        if spec["reach"] is not None:
            kept = _confine(*spec["reach"])
    except _Refused as error:
        os.write(outcome_fd, _refusal(error))
        return
    emulated = None
    if spec["ledger"] is not None:
        emulated = Emulated(
            spec["ledger"], spec["uid"], spec["gid"], _groups(spec), spec["refused"], sockets=_must_keep_sockets(kept),
            whole=spec["reach"] and spec["reach"][0],
        )  # fmt: skip
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(outcome_fd)
        _become(spec, write, emulated)
    os.close(write)
    running.append(child)
    if stopped:  # the signal came before the child was there to be killed
        os.kill(child, signal.SIGKILL)
    status = emulated.follow(child) if emulated is not None else None
    with os.fdopen(read, "rb") as file:
        refused = file.read()
    status = _wait(child) if status is None else status
    running.clear()
    left = reap.end_children(alone=kept == "signals")
    outcome: dict[str, Any] = {"status": status}
    if left:  # kpy looks for them, and says what it finds
        outcome = {"error": f"{len(left)} processes of RUN did not end", "errno": 0}
    elif emulated is not None:
        emulated.finish()
        outcome |= {"warning": emulated.warning, "problems": emulated.problems}
    os.write(outcome_fd, refused or json.dumps(outcome).encode())


def _stop_on_signal(running: list[int]) -> list[int]:
    """From now on SIGTERM, and the end of kpy, kill those who run, and so end all; those signals are in the list that this
    gives. Others, which a RUN of our uid may send, or have the kernel send (SIGXCPU), do nothing."""
    stopped: list[int] = []

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        for pid in running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGTERM)
    return stopped


def _confine(whole: Sequence[str], programs: Sequence[str], names: Sequence[str]) -> str:
    """Keep this process, and so the RUN for which it does things, from the files of the builder. We do what the RUN asks:
    what only its own process could not reach, it would reach through us. A kernel without Landlock keeps nothing; one that
    has it and refuses is an error, for a RUN must not be less confined than it was said to be. Gives what
    landlock.only does."""
    arch = syscalls.native()
    if arch is None:
        raise _Refused("files cannot be kept from a RUN on this kind of machine", errno.ENOSYS)
    try:
        seccomp.no_new_privs()
        return landlock.only(arch, whole, programs, names)
    except OSError as error:
        raise _Refused("cannot keep the builder's files from the RUN", error.errno or 0) from error


def _leave_keys() -> None:
    """The keys of who builds are not the RUN's."""
    arch = syscalls.native()
    try:
        if arch is not None:
            keyring.leave(arch)
    except OSError as error:
        raise _Refused("cannot give the RUN a session keyring of its own", error.errno or 0) from error


def _must_keep_sockets(kept: str) -> bool:
    """Are there files that are kept from the RUN, but not sockets?"""
    arch = syscalls.native()
    return bool(kept) and arch is not None and not landlock.keeps_sockets(arch)


def _refusal(refused: "_Refused | walls.CannotRaise") -> bytes:
    return json.dumps({"error": str(refused), "errno": refused.number}).encode()


def _become(spec: dict[str, Any], report: int, emulated: Emulated | None) -> NoReturn:
    """In the child: take the identity and the root, and exec. Never returns."""
    try:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)  # Python ignores some, and so may who started kpy (nohup, cron)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setsid()
        os.umask(0o022)
        _enter(spec)
        if emulated is None:
            if spec["walls"]:
                walls.close_abstract_sockets()
                walls.filter_calls(bytes.fromhex(spec["filter"]))
            _take_ids(spec)
            _forbid_sockets(spec)
        else:
            _forbid_sockets(spec)
            seccomp.no_new_privs()
            walls.filter_calls(bytes.fromhex(spec["filter"]))
            if not emulated.confine():
                _take_ids(spec)
        # A change of ids clears it, so last: nothing outlives us even when we are killed.
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        execute([os.fsencode(part) for part in spec["argv"]], [os.fsencode(item) for item in spec["env"]])
    except CannotStart as error:
        _cannot(error.text, error.status)
    except (_Refused, walls.CannotRaise) as refused:
        os.write(report, _refusal(refused))
    except BaseException as error:  # the child must never run the parent's code
        os.write(report, json.dumps({"error": f"{type(error).__name__}: {error}", "errno": 0}).encode())
    os._exit(1)


def _enter(spec: dict[str, Any]) -> None:
    if spec["no_network"] == "namespace":
        try:
            libc.unshare(CLONE_NEWNET)
        except OSError as error:
            raise _Refused("cannot make a network namespace", error.errno or 0) from error
        _loopback_up()
    try:
        if spec["root"] != "/":
            os.chroot(spec["root"])
        os.chdir("/")
    except OSError as error:
        raise _Refused(f"cannot change the root to {spec['root']}", error.errno or 0) from error
    # Before the ids, as runc does: a WORKDIR that the user may not enter is still where the process starts.
    try:
        os.chdir(spec["cwd"])
    except OSError as error:
        _cannot(f"chdir to {spec['cwd']}: {os.strerror(error.errno or 0).lower()}", NOT_FOUND)
    try:
        apply(spec["ulimits"])
    except NotAllowed as error:
        raise _Refused(error.text, 0) from error


def _take_ids(spec: dict[str, Any]) -> None:
    uid, gid = spec["uid"], spec["gid"]
    try:
        if os.geteuid() == 0:
            os.setgroups(_groups(spec))
        if (os.getgid(), os.getegid()) != (gid, gid):
            os.setresgid(gid, gid, gid)
        if (os.getuid(), os.geteuid()) != (uid, uid):
            os.setresuid(uid, uid, uid)
    except OSError as error:
        raise _Refused(f"cannot become user {uid}:{gid}", error.errno or 0) from error


def _forbid_sockets(spec: dict[str, Any]) -> None:
    if spec["no_network"] == "filter":
        try:
            socketfilter.apply()
        except OSError as error:
            raise _Refused("cannot forbid sockets", error.errno or 0) from error


def _groups(spec: dict[str, Any]) -> list[int]:
    """As runc: the primary group is among them."""
    return sorted({spec["gid"], *spec["groups"]})


def _cannot(text: str, status: int) -> NoReturn:
    os.write(2, text.encode("utf-8", "surrogateescape") + b"\n")
    os._exit(status)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _wait(child: int) -> int:
    """Reap until the child ends; the exit code as a shell gives it."""
    while True:
        gone = reap.ended()
        if gone is not None and gone[0] == child:
            return gone[1]
