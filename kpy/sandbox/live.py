"""The sandbox of an ordinary container: RUN executes in the container's own root, as root, with the container's own
/proc, /dev, network and capabilities. Nothing can be mounted, so mounts are emulated. Where no network namespace can be
made, `--network=none` forbids all sockets but Unix ones: there is no loopback either, and setuid programs gain nothing.

The builder and the RUN share a container: this keeps honest builds exact and a builder's credentials out of the RUN's
environment and memory reads, but files that the container mounts (a registry's config.json, say) can be read by a RUN
that runs as root.
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import kpy
from kpy.errors import SandboxError
from kpy.linux import capabilities, commandline
from kpy.linux import libc as linux
from kpy.linux.users import home_of
from kpy.sandbox.base import Mount, Process
from kpy.sandbox.deputy import confined
from kpy.sandbox.emulate import Shelf, mounted
from kpy.sandbox.handover import NONE, Emulation
from kpy.sandbox.ipc import removed
from kpy.sandbox.own import FILES, MESSAGE, QUEUES, check_lent, extra_hosts, lent
from kpy.sandbox.rlimits import too_high
from kpy.sandbox.rootpath import Closed, RootPaths, nothing_closed
from kpy.sandbox.slotmounts import is_slot
from kpy.sandbox.spawn import Job, Reach, network_isolation, run
from kpy.sandbox.terminals import exclusive
from kpy.util.cancel import Cancel

_LARGEST_PASSWD = 1 << 24
_KERNEL = ("/proc", "/sys", "/dev")
_LENT = frozenset(f"/{name}" for name in FILES)
_HOSTS = "/etc/hosts"
_MOUNTABLE = "/dev"  # files can be put into it: it is the container's own tmpfs


class LiveSandbox:
    """Implements `sandbox.base.Sandbox` in `/`.

    `state` is a directory of kpy's own that RUNs are told to keep out of and layers never have; `protected` are the
    paths, relative to `/`, that are the builder's: the snapshotter's. In those that are directories no RUN may start,
    and nothing can be mounted for one. `emulation`: whether, and with what, root is only emulated. `scripts` is where a
    heredoc's script is put if this process may not write to /dev: all users of an image must be able to run it there.
    """

    def __init__(
        self, state: str, protected: Sequence[str] = (), emulation: Emulation = NONE, scripts: str = "/dev"
    ) -> None:
        self._aside = os.path.join(state, "aside")
        self._emulation = emulation
        self._scripts = scripts
        paths = ["/" + path.strip("/") for path in protected]
        # What a RUN may not use is in these names of the root: of directories and of files, but for the runtime's own.
        self._tops = frozenset(path.split("/")[1] for path in paths if path not in _LENT)
        self._ours = tuple(path for path in dict.fromkeys(paths) if path not in _KERNEL and not os.path.isfile(path))

    def check(self, process: Process, mounts: Sequence[Mount], /) -> None:
        """See Sandbox."""
        check_network(process)
        check_limits(process)
        check_lent(process)
        if process.hosts and not os.access(_HOSTS, os.W_OK):
            raise SandboxError(
                f"--add-host: {_HOSTS} is the container runtime's, and cannot be written as uid {os.geteuid()}",
                hint="give the hosts to the container instead: hostAliases of the pod, or docker run --add-host",
            )
        if ours := self._builders(process.cwd):
            raise SandboxError(
                f"WORKDIR {process.cwd}: {ours} is the builder's here, nothing in it becomes part of the image",
                hint="start the builder's container with its mounts elsewhere: the build context in /kpy/workspace, say",
            )
        for mount in mounts:
            # By the text. What it turns out to be in the image is looked at when the mount is made.
            if why := self._closed(os.path.normpath(mount.target), passing=False):
                raise SandboxError(
                    f"--mount at {mount.target}: {why}", hint="mount it elsewhere, or build where user namespaces are allowed"
                )

    def _closed(self, path: str, /, *, passing: bool) -> str:
        """See rootpath.Closed: what is the kernel's, or the builder's."""
        kernel = next((top for top in _KERNEL if _at_or_below(path, top)), "")
        if kernel == _MOUNTABLE and (passing or path != kernel):
            kernel = ""
        if closed := kernel or self._builders(path):
            return f"nothing can be mounted in {closed} in this environment"
        if not passing and (inside := next((top for top in self._ours if _at_or_below(top, path)), "")):
            return f"it would hide {inside}, which the build needs"
        return ""

    def _builders(self, path: str) -> str:
        """The directory of the builder's that the path is at or below, or ""."""
        return next((top for top in self._ours if _at_or_below(path, top)), "")

    def run(
        self,
        process: Process,
        root: str,
        mounts: Sequence[Mount],
        log: Callable[[bytes], None],
        cancel: Cancel,
        /,
    ) -> int:
        """See Sandbox. `root` is `/`."""
        if root != "/":
            raise SandboxError(f"a live sandbox runs in / and not in {root}")
        self.check(process, mounts)
        scripts: list[Mount] = []
        if not os.access(_MOUNTABLE, os.W_OK):
            process, mounts, scripts = self._scripts_elsewhere(process, mounts)
        reach = self._reach()
        ledger = self._emulation.ledger
        shelf = Shelf("/", self._aside, ledger, self._closed, reach)
        with contextlib.ExitStack() as stack:
            stack.enter_context(lent())
            stack.enter_context(removed(log, os.geteuid() if ledger is not None else None))
            if scripts:
                stack.enter_context(_directory(self._scripts))
                own = Reach((self._scripts,), ()) if reach is not None else None
                stack.enter_context(mounted(scripts, Shelf(self._scripts, self._aside, ledger, reach=own), log))
            stack.enter_context(mounted(mounts, shelf, log))
            stack.enter_context(extra_hosts(process.hosts))
            stack.enter_context(exclusive())
            reach = self._reach()  # again: a mount may have a name of its own in the root
            env = confined(reach, lambda: environment(process, "/", self._closed))
            reach = reach and _without_message(reach)
            return run(Job(process, "/", env, self._emulation, reach), log, cancel)

    def _reach(self) -> Reach | None:
        """Where root is emulated: the names of the root that are the image's or the runtime's. Those that hold what is the
        builder's, no RUN needs; unless the image has such a directory too, all of which is the RUN's then. Root makes names as it likes, and nothing can be kept from it."""
        ledger = self._emulation.ledger
        if ledger is None:
            return None
        closed = self._tops - {name.strip("/") for name in _KERNEL}
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = sorted(os.listdir("/"))
            whole = [f"/{name}" for name in names if name not in closed or is_slot((root, os.fsencode(name)), ledger)]
        finally:
            os.close(root)
        return Reach(tuple(whole), (*(f"{sys.prefix}/{name}" for name in ("bin", "lib")), self._scripts))

    def _scripts_elsewhere(self, process: Process, mounts: Sequence[Mount]) -> tuple[Process, list[Mount], list[Mount]]:
        """What is to be run below /dev is somewhere else, and runs from there: the process, its other mounts, and these
        with their targets in the directory of scripts."""
        moved = [
            mount for mount in mounts
            if mount.kind == "file" and mount.target.startswith(_MOUNTABLE + "/") and mount.target in process.argv
        ]  # fmt: skip
        names = {mount.target: mount.target.removeprefix(_MOUNTABLE) for mount in moved}
        argv = tuple(self._scripts + names[word] if word in names else word for word in process.argv)
        scripts = [replace(mount, target=names[mount.target]) for mount in moved]
        return replace(process, argv=argv), [mount for mount in mounts if mount not in moved], scripts


def _without_message(reach: Reach) -> Reach:
    """The same, but for the file of the message that Kubernetes shows. Queues are in no directory that the kernel would come
    by on its way up from one: they are in /dev/mqueue, but not opened there."""
    whole = (*reach.whole, f"/{QUEUES}")
    if not os.path.lexists(f"/{MESSAGE}"):
        return replace(reach, whole=whole)
    names = sorted({f"{_MOUNTABLE}/{name}" for name in os.listdir(_MOUNTABLE)} - {f"/{MESSAGE}"})
    return replace(reach, whole=(*(path for path in whole if path != _MOUNTABLE), *names), names=(_MOUNTABLE,))


@contextlib.contextmanager
def _directory(path: str) -> Iterator[None]:
    """Have a directory of the builder's, which every user may enter, while the block runs."""
    try:
        os.makedirs(path, exist_ok=True)
        os.chmod(path, 0o755)  # noqa: S103 - the users of an image run what is in it
    except OSError as error:
        raise SandboxError(f"cannot make {path} for a script: {error.strerror}", errno=error.errno or 0) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(path)


def environment(process: Process, root: str, closed: Closed = nothing_closed) -> tuple[str, ...]:
    """The whole environment of the process: its own, and HOME if that is not in it. The list of users is read as a process
    in the root would, but not from what is closed."""
    env = tuple(item for item in process.env if item != "HOME=")  # an empty one is as good as none (runc)
    if any(item.startswith("HOME=") for item in env):
        return env
    with RootPaths(root, closed) as paths:
        passwd = paths.read("/etc/passwd", _LARGEST_PASSWD)
    return (*env, f"HOME={home_of(process.identity.uid, passwd)}")


def check_limits(process: Process) -> None:
    """Raise SandboxError for limits that this process may not set."""
    problem = too_high(process.ulimits)
    if problem and not capabilities.effective() >> capabilities.SYS_RESOURCE & 1:
        raise SandboxError(problem, hint="ask for less, or start the container with higher limits")


def check_network(process: Process) -> None:
    """Raise SandboxError for `--network=none` where that cannot be had."""
    if process.network == "none" and not network_isolation():
        raise SandboxError(
            "RUN --network=none: this environment allows neither network namespaces nor system call filters",
            hint="drop --network=none, or build where user namespaces are allowed",
        )


def harden(protected: Sequence[str]) -> None:
    """Make this process independent of `/` before it is emptied the first time. Call it from the main thread, before
    any other is started. `protected` are the paths, relative to `/`, that are never emptied.

    - Names of hosts are looked up in files and DNS only: the next image's nsswitch.conf may name modules, which the
      C library would load from the image.
    - This process is no longer dumpable: a RUN of the same user cannot read its memory or /proc/PID/environ, which
      may hold credentials, unless it has CAP_SYS_PTRACE (ptrace(2), "Ptrace access mode checking"). Nor is /proc/PID/cmdline
      what it was: URLs and build arguments may hold passwords.

    Raises SandboxError if what runs kpy (interpreter, libraries, modules) is not all in protected paths.
    """
    outside = _outside(["/" + path.strip("/") for path in protected])
    if outside:
        raise SandboxError(
            f"this kpy would be removed with the root file system: {outside} is part of it",
            hint="build in the kpy image, whose interpreter is in /kpy",
        )
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(AttributeError):  # musl has no NSS
        libc.__nss_configure_lookup(  # noqa: SLF001 - its public name
            b"hosts", b"files dns"
        )
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    commandline.hide()


def _outside(protected: Sequence[str]) -> str:
    """A file that this process needs and that is in none of the paths; "" if there is none."""
    needed = [
        sys.executable,
        os.__file__,
        *kpy.__path__,
        *(path for path in sys.path if os.path.exists(path)),
    ]
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        needed += [
            fields[5].rstrip("\n") for fields in (line.split(maxsplit=5) for line in file) if len(fields) > 5
        ]
    for path in needed:
        real = os.path.realpath(path)
        if (
            path.startswith("/")
            and not path.startswith("/memfd:")
            and not any(_at_or_below(real, top) for top in protected)
        ):
            return path
    return ""


def _at_or_below(path: str, top: str) -> bool:
    path = os.path.normpath(path)
    return path == top or path.startswith(top + "/")
