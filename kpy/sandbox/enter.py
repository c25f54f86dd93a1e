"""Entering a user namespace, once, first thing in the process: afterwards kpy is root there, may mount and give files
to any mapped user, and everything it makes is owned by the user outside. Knows nothing of builds.
"""

import errno
import os
import pwd
import shutil
import stat
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

ENOUGH = 65534
"""So many ids beside root's an image may use: the last is that of nobody and nogroup, and few have files of higher ones."""

_PROGRAMS = ("newuidmap", "newgidmap")
_PATIENCE = 30.0  # seconds that these may take
_BLOCK = 1 << 16
_PIPE = 4096  # fits a pipe at once
_LIMIT = 1 << 22


@dataclass(frozen=True, slots=True)
class IdMap:
    """The ids that exist in the namespace: (first inside, first outside, how many). `problem`: why one's own is the only
    one."""

    uids: tuple[tuple[int, int, int], ...]
    gids: tuple[tuple[int, int, int], ...]
    problem: SandboxError | None = None

    @property
    def full(self) -> bool:
        """Are there other ids than one's own?"""
        return has_others(list(self.uids), list(self.gids))


def enter(found: IdMap | None = None) -> IdMap:
    """Enter a new user and mount namespace; no thread may have been started yet. `found`: by `rehearse`, a moment ago.

    An ordinary user becomes root, and his subordinate ids the ids from 1 on; who has none, or not enough, or cannot get
    them, is root, and there is nobody else. For root every id is itself: it only gives up its power over the host. Mounts
    are private from now on. Supplementary groups are kept, for the files of the user that are readable by a group. Raises
    SandboxError with a hint; the process is then as it was.
    """
    found = rehearse() if found is None else found
    _enter(list(found.uids), list(found.gids))
    # Where pids are shared with the RUN, which is root in this namespace or has our uid: it reaches nothing by our /proc
    # (ptrace(2), "Ptrace access mode checking": the capability would have to be of the namespace that we began in).
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    return found


def rehearse() -> IdMap:
    """The ids that `enter` would give, found in a fork that enters; this process stays as it is. Raises as `enter` does."""
    found = _wanted()
    try:
        _rehearse(list(found.uids), list(found.gids))
        return found
    except SandboxError as error:
        if found.problem is not None or _maps_itself():
            raise
        alone = _alone(error)
    _rehearse(list(alone.uids), list(alone.gids))  # what this raises is not about ids
    return alone


def _alone(problem: SandboxError) -> IdMap:
    return IdMap(tuple(only(os.geteuid())), tuple(only(os.getegid())), problem)


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
    try:
        if not problem:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
    except OSError:
        problem = "newuidmap or newgidmap gave none, and said nothing"
    if problem:
        raise SandboxError(f"cannot map ids into the user namespace: {problem}", errno=errno.EPERM, hint=_powerless() or _hint(errno.EPERM))
    try:
        make_private()
    except OSError as error:
        raise SandboxError(
            f"the user namespace has no power: {_reason(error)}", errno=error.errno or 0, hint=_hint(error.errno or 0)
        ) from error


def _wanted() -> IdMap:
    if _maps_itself():
        uids, gids = (identity(parse_map(_read(f"/proc/self/{kind}_map"))) for kind in ("uid", "gid"))
        alone = None if has_others(uids, gids) else SandboxError("there is one user only in this user namespace", errno=errno.EPERM)
        return IdMap(tuple(uids), tuple(gids), alone)
    uid, gid = os.geteuid(), os.getegid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    uids = as_root(uid, subordinate(_read("/etc/subuid"), name, uid))
    gids = as_root(gid, subordinate(_read("/etc/subgid"), name, uid))
    problem = _lacking(name or str(uid), uids, gids)
    return _alone(problem) if problem is not None else IdMap(tuple(uids), tuple(gids))


def _lacking(who: str, uids: Ranges, gids: Ranges) -> SandboxError | None:
    """Why a user can have no other ids than his own."""
    for file, rows in (("/etc/subuid", uids), ("/etc/subgid", gids)):
        count = sum(row[2] for row in rows) - 1
        if count < ENOUGH:
            return SandboxError(
                f"{file} gives {who} {count} of the {ENOUGH} ids that images use" if count else f"{file} gives {who} no ids",
                errno=errno.EPERM, hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {who}",
            )  # fmt: skip
    for program in _PROGRAMS:
        if not shutil.which(program):
            hint = "install the package uidmap (Debian, Ubuntu) or shadow-utils (Fedora)"
            return SandboxError(f"{program} is not installed", errno=errno.EPERM, hint=hint)
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
    done = subprocess.run(
        [program, str(target), *numbers], check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise OSError(said or f"{program} ended with {done.returncode}")


def _powerless() -> str:
    """Why newuidmap cannot do what only root can; nothing, when it seems that it could."""
    if _status("NoNewPrivs") == "1":
        return "newuidmap cannot get its rights: this process was started with no_new_privs"
    for program in _PROGRAMS:
        path = shutil.which(program) or ""
        try:
            found = os.stat(path)
            if os.statvfs(path).f_flag & os.ST_NOSUID:
                return f"{path} cannot get its rights: its file system is mounted nosuid"
            if not (found.st_uid == 0 and found.st_mode & stat.S_ISUID) and not _has_capabilities(path):
                return f"{path} has no rights: as root, chmod u+s {path}"
        except OSError:
            continue
    return ""


def _has_capabilities(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


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
