"""What this host permits, found by doing it in a forked child. Decides nothing, and never goes by versions or by
what /proc/sys says: filters and security modules differ.

Call it early: it forks, so no other thread may run yet.
"""

import ctypes
import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from kpy.linux import libc, mount, overlay, seccomp
from kpy.linux.namespaces import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER
from kpy.linux.syscalls import native

_SAFE = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
_NOTIFICATION_ARGUMENT = 40  # the offset of the second argument of the call in struct seccomp_notif
_ANSWER = 4711
_PATIENCE = 5  # seconds


@dataclass(frozen=True, slots=True)
class Host:
    """The answers: 0 where it works, else the errno that the kernel gave.

    `userns`: user and mount namespaces, with the power to mount in them. `overlay`: overlayfs in one, with its
    directories in the place asked about. `fresh_proc`: a pid namespace in one, with a /proc of its own. `mounting`:
    mounts without a user namespace. `chroot`, `chown`: what these calls say. `container`: is this (probably) one?
    """

    uid: int
    userns: int
    overlay: int
    fresh_proc: int
    mounting: int
    chroot: int
    chown: int
    container: bool


def probe(directory: str) -> Host:
    """Ask everything. `directory` is where snapshots would be; it must exist and be ours."""
    return Host(
        uid=os.geteuid(),
        userns=can_userns(),
        overlay=can_overlay(directory),
        fresh_proc=can_fresh_proc(),
        mounting=can_mount(),
        chroot=can_chroot(directory),
        chown=can_chown(directory),
        container=in_container(),
    )


def can_userns() -> int:
    """May we have a user and a mount namespace, and mount in them? A security module may grant the first only."""

    def attempt() -> None:
        _enter()
        libc.mount(b"tmpfs", b"/tmp", b"tmpfs", _SAFE)

    return attempted(attempt)


def can_overlay(directory: str) -> int:
    """Does overlayfs in a user namespace take this directory, and its xattrs?"""
    with _place(directory) as place:
        if isinstance(place, int):
            return place
        for name in ("lower", "lower/gone", "upper", "work", "root"):
            os.mkdir(os.path.join(place, name))

        def attempt() -> None:
            _enter()
            root = os.path.join(place, "root")
            overlay.mount([os.path.join(place, "lower")], root, upper=os.path.join(place, "upper"),
                          work=os.path.join(place, "work"))  # fmt: skip
            os.rmdir(os.path.join(root, "gone"))
            os.mkdir(os.path.join(root, "gone"))
            if not overlay.is_opaque(os.fsencode(os.path.join(place, "upper", "gone"))):
                raise OSError(errno.EOPNOTSUPP, "no marks")

        return attempted(attempt)


def can_fresh_proc() -> int:
    """May we mount a new /proc for a pid namespace of ours? Not where a container runtime masks parts of its own."""

    def attempt() -> None:
        _enter()
        libc.unshare(CLONE_NEWPID)
        number = attempted(lambda: libc.mount(b"proc", b"/proc", b"proc", _SAFE))
        if number:
            raise OSError(number, "proc")

    return attempted(attempt)


def can_mount() -> int:
    """May we mount without a user namespace?"""

    def attempt() -> None:
        libc.unshare(CLONE_NEWNS)
        mount.make_private()
        libc.mount(b"tmpfs", b"/tmp", b"tmpfs", _SAFE)

    return attempted(attempt)


def can_chroot(directory: str) -> int:
    """May we chroot?"""
    return attempted(lambda: os.chroot(directory))


def can_chown(directory: str) -> int:
    """May we give files in this directory to other users?"""
    with _place(directory) as place:
        return place if isinstance(place, int) else attempted(lambda: os.chown(place, 1, 1))


def can_supervise() -> int:
    """May we answer the system calls of a child, and read what they point to (seccomp user notification)? EBUSY: somebody
    else does so already for us."""
    return attempted(_supervise)


def can_filter() -> int:
    """May we have system calls fail that we name?"""

    def attempt() -> None:
        arch = native()
        if arch is None:
            raise OSError(errno.ENOSYS, "machine")
        seccomp.no_new_privs()
        seccomp.install(seccomp.assemble(arch, {}), arch)

    return attempted(attempt)


def _supervise() -> None:
    """Filter ourselves, and answer the one call of a child of ours, by what its argument points to."""
    arch = native()
    if arch is None:
        raise OSError(errno.ENOSYS, "machine")
    word = ctypes.create_string_buffer(b"kpy", 8)
    asked = arch.numbers["getgroups"]
    seccomp.no_new_privs()
    program = seccomp.assemble(arch, {"getgroups": (seccomp.Rule(seccomp.NOTIFY),)})
    descriptor = seccomp.install_with_listener(program, arch)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(descriptor)  # when nobody else has it, the call fails, and does not wait for ever
            code = 0 if libc.syscall(asked, "getgroups", 8, word) == _ANSWER else 1
        finally:
            os._exit(code)
    signal.alarm(_PATIENCE)  # a kernel that never tells: the probe dies, and that is the answer
    listener = seccomp.Listener(descriptor)
    request = bytes(listener.receive())
    number = int.from_bytes(request[:8], "little")
    address = int.from_bytes(request[_NOTIFICATION_ARGUMENT : _NOTIFICATION_ARGUMENT + 8], "little")
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        if os.pread(memory, 3, address) != b"kpy" or os.pwrite(memory, b"KPY", address) != 3:
            raise OSError(errno.EIO, "memory")
    finally:
        listener.answer(number, _ANSWER, 0)
    _, status = os.waitpid(pid, 0)
    if status:
        raise OSError(errno.EIO, "answer")


def in_container(
    root: str = "/", exists: Callable[[str], bool] = os.path.exists
) -> bool:
    """Do docker, podman or Kubernetes run us? A guess, for messages and for whether `/` is ours to empty."""
    marks = (".dockerenv", "run/.containerenv", "var/run/secrets/kubernetes.io", "run/secrets/kubernetes.io")
    return any(exists(os.path.join(root, mark)) for mark in marks) or _is_overlay(root)


def _is_overlay(root: str) -> bool:
    """Is the root an overlay? Container runtimes make it one; few hosts do (live systems)."""
    with suppress(OSError, IndexError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:
        for line in table:
            fields = line.split()
            if fields[4] == root and fields[fields.index("-") + 1] == "overlay":
                return True
    return False


def attempted(attempt: Callable[[], None]) -> int:
    """The errno of `attempt` in a forked child, 0 if it worked, EIO if it did anything else."""
    pid = os.fork()
    if pid == 0:
        number = errno.EIO
        try:
            attempt()
            number = 0
        except OSError as error:
            number = error.errno or errno.EIO
        finally:
            os._exit(number & 0xFF)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else errno.EIO


def _enter() -> None:
    """A user namespace with only our own id: needs no helper, and is enough to see what the kernel says."""
    uid, gid = os.geteuid(), os.getegid()
    libc.unshare(CLONE_NEWUSER | CLONE_NEWNS)
    for name, content in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(content)
    mount.make_private()


class _place:  # noqa: N801 - used as a function
    """A directory of our own in `directory` for the block, or the errno that forbids it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._path = ""

    def __enter__(self) -> str | int:
        try:
            self._path = tempfile.mkdtemp(prefix="probe-", dir=self._directory)
        except OSError as error:
            return error.errno or errno.EIO
        return self._path

    def __exit__(self, *_: object) -> None:
        # The kernel makes work/work with mode 0; it is ours all the same.
        work = os.path.join(self._path, "work", "work")
        if self._path and os.path.isdir(work):
            os.chmod(work, 0o700)
        if self._path:
            shutil.rmtree(self._path, ignore_errors=True)
