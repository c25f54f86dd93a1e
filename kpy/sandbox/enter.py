"""Entering a user namespace, once, first thing in the process: afterwards kpy is root there, may mount and give files
to any mapped user, and everything it makes is owned by the user outside. Knows nothing of builds.
"""

import errno
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from typing import NoReturn

from kpy.errors import SandboxError
from kpy.linux import capabilities, libc
from kpy.linux.mount import make_private
from kpy.linux.namespaces import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    Ranges,
    as_root,
    dump_map,
    has_others,
    identity,
    only,
    parse_map,
    subordinate,
)

Subordinates = list[tuple[int, int]]

_BLOCK = 1 << 16
_PIPE = 4096  # fits a pipe at once
_LIMIT = 1 << 22


@dataclass(frozen=True, slots=True)
class IdMap:
    """The ids that exist in the namespace: (first inside, first outside, how many)."""

    uids: tuple[tuple[int, int, int], ...]
    gids: tuple[tuple[int, int, int], ...]

    @property
    def full(self) -> bool:
        """Are there other ids than one's own?"""
        return has_others(list(self.uids), list(self.gids))


def enter() -> IdMap:
    """Enter a new user and mount namespace; no thread may have been started yet.

    An ordinary user becomes root, and his subordinate ids the ids from 1 on; who has none is root, and there is nobody
    else. For root every id is itself: it only gives up its power over the host. Mounts are private from now
    on. Supplementary groups are kept, for the files of the user that are readable by a group. Raises SandboxError with a
    hint; the process is then as it was.
    """
    uids, gids = _wanted_maps()
    _rehearse(uids, gids)
    _enter(uids, gids)
    return IdMap(tuple(uids), tuple(gids))


def _rehearse(uids: Ranges, gids: Ranges) -> None:
    """Do it in a fork first: a process that entered and got no ids could neither go on nor come back."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            _enter(uids, gids)
            os.write(write, b"\0\0")
        except SandboxError as error:
            os.write(write, f"{error.message}\0{error.errno}\0{error.hint}".encode()[:_PIPE])
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        answer = stream.read(_BLOCK).decode("utf-8", "replace")
    os.waitpid(pid, 0)
    message, _, rest = answer.partition("\0")
    number, _, hint = rest.partition("\0")
    if message or not answer:
        raise SandboxError(message or "cannot enter a user namespace", errno=int(number or 0), hint=hint)


def _enter(uids: Ranges, gids: Ranges) -> None:
    helper = _Helper(uids, gids)
    try:
        libc.unshare(CLONE_NEWUSER | CLONE_NEWNS)
    except OSError as error:
        helper.abandon()
        raise SandboxError(
            f"cannot create a user namespace: {_reason(error)}", errno=error.errno or 0, hint=_hint(error.errno or 0)
        ) from error
    problem = helper.finish()
    if problem:
        raise SandboxError(f"cannot map ids into the user namespace: {problem}", errno=errno.EPERM, hint=_hint(errno.EPERM))
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        make_private()
    except OSError as error:
        raise SandboxError(
            f"the user namespace has no power: {_reason(error)}", errno=error.errno or 0, hint=_hint(error.errno or 0)
        ) from error


def _wanted_maps() -> tuple[Ranges, Ranges]:
    if _maps_itself():
        return identity(parse_map(_read("/proc/self/uid_map"))), identity(parse_map(_read("/proc/self/gid_map")))
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    users = subordinate(_read("/etc/subuid"), name, uid)
    groups = subordinate(_read("/etc/subgid"), name, uid)
    problem = _lacking(name or str(uid), users, groups)
    if problem is None:
        return as_root(uid, users), as_root(os.getegid(), groups)
    if uid == 0 and not capabilities.effective():  # only emulated, or in a container without any: no emulation below that
        raise SandboxError(
            "root has no capabilities here, and so cannot be given more ids",
            errno=errno.EPERM,
            hint="in a RUN of another build whose own root is emulated: build this image before it, and pass it on with "
            "--build-context NAME=docker-image://IMAGE; in a container: run it with capabilities, or as another user than root",
        )
    if uid == 0:
        raise problem
    return only(uid), only(os.getegid())


def _lacking(who: str, users: Subordinates, groups: Subordinates) -> SandboxError | None:
    """Why a user can have no other ids than his own."""
    if not users or not groups:
        file = "/etc/subgid" if users else "/etc/subuid"
        return SandboxError(
            f"user {who} needs subordinate ids to run RUN: {file} has none for him",
            hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {who}",
        )
    missing = [program for program in ("newuidmap", "newgidmap") if not shutil.which(program)]
    if missing:
        return SandboxError(
            f"{missing[0]} is not installed", hint="install the package uidmap (Debian, Ubuntu) or shadow-utils (Fedora)"
        )
    return None


def _maps_itself() -> bool:
    """May we write any map, without newuidmap (user_namespaces(7), permissions)? True of root, in most containers too."""
    needed = 1 << capabilities.SETUID | 1 << capabilities.SETGID | 1 << capabilities.SETFCAP
    return os.geteuid() == 0 and capabilities.effective() & needed == needed


class _Helper:
    """A fork that stays outside and writes the maps of its parent, for what is inside may not (user_namespaces(7))."""

    def __init__(self, uids: Ranges, gids: Ranges) -> None:
        self._answer, answer = os.pipe2(os.O_CLOEXEC)
        go, self._go = os.pipe2(os.O_CLOEXEC)
        target = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._go)
            _help(target, uids, gids, go, answer)
        os.close(answer)
        os.close(go)

    def abandon(self) -> None:
        """There is nothing to map."""
        os.close(self._go)
        os.close(self._answer)
        os.waitpid(self._pid, 0)

    def finish(self) -> str:
        """Have the maps written; what went wrong, or nothing."""
        os.write(self._go, b"x")
        os.close(self._go)
        with os.fdopen(self._answer, "rb") as stream:
            answer = stream.read(_BLOCK)
        _, status = os.waitpid(self._pid, 0)
        text = answer.decode("utf-8", "replace").strip().replace("\n", "; ")
        return text or ("" if status == 0 else f"the helper ended with {os.waitstatus_to_exitcode(status)}")


def _help(target: int, uids: Ranges, gids: Ranges, go: int, answer: int) -> NoReturn:
    try:
        if os.read(go, 1):
            for kind, program, rows in (("gid", "newgidmap", gids), ("uid", "newuidmap", uids)):
                _write_map(target, kind, program, rows)
    except BaseException as error:
        os.write(answer, str(error).encode()[:2000])
        os._exit(1)
    os._exit(0)


def _write_map(target: int, kind: str, program: str, rows: Ranges) -> None:
    alone = rows == only(os.geteuid() if kind == "uid" else os.getegid())
    if alone and kind == "gid":
        with open(f"/proc/{target}/setgroups", "wb", buffering=0) as file:
            file.write(b"deny")
    if alone or _maps_itself():
        with open(f"/proc/{target}/{kind}_map", "wb", buffering=0) as file:
            file.write(dump_map(rows).encode())
        return
    numbers = [str(number) for row in rows for number in row]
    done = subprocess.run([program, str(target), *numbers], check=False, capture_output=True)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise OSError(said or f"{program} ended with {done.returncode}")


def _hint(number: int) -> str:
    """Why the kernel refused, from the switches that are known to."""
    if number == errno.EINVAL:
        return "it must be done before any thread is started: this is an error of kpy"
    if _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").strip() == "1":
        return (
            "AppArmor forbids it to ordinary programs (Ubuntu 23.10 and later): as root, "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile for kpy that has `userns,`"
        )
    if _read("/proc/sys/kernel/unprivileged_userns_clone").strip() == "0":
        return "as root: sysctl kernel.unprivileged_userns_clone=1"
    if _read("/proc/sys/user/max_user_namespaces").strip() == "0" or number == errno.ENOSPC:
        return "as root: sysctl user.max_user_namespaces=15000"
    if _status("Seccomp") == "2":
        return "a seccomp filter forbids it, as in most containers: run the container with seccomp=unconfined"
    if _status("NoNewPrivs") == "1":
        return "newuidmap cannot get its rights: this process was started with no_new_privs"
    return ""


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()


def _status(field: str) -> str:
    for line in _read("/proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_LIMIT)
    except OSError:
        return ""


def rehearse() -> IdMap:
    """The ids that `enter` would give, found in a fork that enters; this process stays as it is. Raises as `enter` does."""
    uids, gids = _wanted_maps()
    _rehearse(uids, gids)
    return IdMap(tuple(uids), tuple(gids))
