"""The sandbox for root where nothing can be mounted but chroot is allowed: RUN sees only its root directory. It has
device nodes there if they may be made, and an empty /proc and /sys: programs that need /proc fail here (the live
strategy has it). Mounts are emulated. The network, hostname and capabilities are the builder's own."""

import os
import stat
from collections.abc import Callable, Sequence

from kpy.errors import SandboxError
from kpy.sandbox.base import Mount, Process
from kpy.sandbox.deputy import confined
from kpy.sandbox.emulate import Shelf, mounted
from kpy.sandbox.ipc import removed
from kpy.sandbox.live import check_limits, check_network, environment
from kpy.sandbox.own import check_lent, hosts_lines
from kpy.sandbox.spawn import Job, Reach, run
from kpy.util.cancel import Cancel
from kpy.util.erase import empty, remove

_NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_CLOSED = ("/proc", "/sys")
_LIMIT = 1 << 20


class ChrootSandbox:
    """Implements `sandbox.base.Sandbox` with chroot(2). `state` is a directory of kpy's own on the file system of the
    roots, outside of them. The snapshotter must protect `dev`, `proc` and `sys` of the roots."""

    def __init__(self, state: str) -> None:
        self._aside = os.path.join(state, "aside")

    def check(self, process: Process, mounts: Sequence[Mount], /) -> None:
        """See Sandbox."""
        check_network(process)
        check_limits(process)
        check_lent(process, shm="")  # its own is a directory on disk
        for mount in mounts:
            if why := _closed(os.path.normpath(mount.target), passing=False):
                raise SandboxError(
                    f"--mount at {mount.target}: {why}", hint="mount it elsewhere, or build where user namespaces are allowed"
                )

    def run(
        self,
        process: Process,
        root: str,
        mounts: Sequence[Mount],
        log: Callable[[bytes], None],
        cancel: Cancel,
        /,
    ) -> int:
        """See Sandbox."""
        if os.path.realpath(root) == "/":
            raise SandboxError("a chroot sandbox does not run in /")
        self.check(process, mounts)
        try:
            _kernel_directories(root)
        except OSError as error:
            raise SandboxError(
                f"cannot make /dev in {root}: {error.strerror}", errno=error.errno or 0
            ) from error
        names = _network_files(process)
        reach = Reach((root,), ())
        with removed(log), mounted([*names, *mounts], Shelf(root, self._aside, closed=_closed, reach=reach), log):
            env = confined(reach, lambda: environment(process, root, _closed))
            return run(Job(process, root, env), log, cancel)


def _closed(path: str, /, *, passing: bool) -> str:
    """See rootpath.Closed: what every RUN finds made anew."""
    is_kernel = any(path == top or path.startswith(top + "/") for top in _CLOSED)
    return "nothing can be mounted there in a chroot" if is_kernel or (path == "/dev" and not passing) else ""


def _kernel_directories(root: str) -> None:
    """Make /proc, /sys and /dev anew: what the last RUN left in them is in no layer and must not be seen."""
    for name in ("proc", "sys", "dev"):
        path = os.path.join(root, name)
        if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
            remove(path)
        if not os.path.isdir(path):
            os.mkdir(path)
        os.chmod(path, 0o755)  # noqa: S103 - a directory of every image
        empty(path)
    dev = os.path.join(root, "dev")
    for name, (major, minor) in _NODES.items():
        path = os.path.join(dev, name)
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        except PermissionError:
            # A user namespace: a file is better than nothing for `> /dev/null`, and never seen by a layer.
            with open(path, "xb"):
                pass
        os.chmod(path, 0o666)  # noqa: S103 - as in every /dev
    for name, link in _LINKS.items():
        os.symlink(link, os.path.join(dev, name))
    for name in ("shm", "pts"):
        os.mkdir(os.path.join(dev, name))
    os.chmod(os.path.join(dev, "shm"), 0o1777)  # noqa: S103 - a directory of every image


def _network_files(process: Process) -> list[Mount]:
    """What a container's runtime would mount, as files of the RUN (R06)."""
    files = {"/etc/resolv.conf": _read("/etc/resolv.conf"), "/etc/hosts": _read("/etc/hosts")}
    files["/etc/hosts"] += b"" if files["/etc/hosts"].endswith(b"\n") else b"\n"
    files["/etc/hosts"] += hosts_lines(process.hosts)
    return [Mount("file", target, data=data, mode=0o644) for target, data in files.items()]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT)
    except OSError:
        return b""
