"""RUN in namespaces of its own, by a process that is root in its user namespace (see enter.py): mounts, processes,
network if asked, capabilities and system calls as docker and containerd give them.
"""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kpy.errors import SandboxError
from kpy.linux import capabilities, libc, profile
from kpy.linux.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
)
from kpy.linux.users import home_of
from kpy.sandbox import process as runner
from kpy.sandbox.base import Mount, Process
from kpy.sandbox.carry import brought
from kpy.sandbox.etcfiles import hosts_file, resolver_file
from kpy.sandbox.handover import NONE, Emulation, check_machine
from kpy.sandbox.rlimits import too_high
from kpy.util.cancel import Cancel
from kpy.util.erase import remove
from kpy.util.fs import read_regular

_SHM = 64 << 20
_PASSWD_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class UsernsSandbox:
    """Sandbox for a kpy that entered a user namespace.

    `scratch` is a directory on disk for what is written to `discard` mounts; must be one that overlayfs takes as an
    upper directory. `private_pids` False: there is no pid namespace (a container that masks /proc); leftovers are then
    found and killed one by one, and RUN sees the processes of the container. `emulation`: the namespace has one id, and
    root, with all other users, is emulated; RUN has no real capabilities then.
    """

    scratch: str
    private_pids: bool = True
    emulation: Emulation = NONE

    def check(self, process: Process, mounts: Sequence[Mount], /) -> None:
        """All of it can be run here, but for limits above the user's own: only root of the host may raise them."""
        if self.emulation.ledger is not None:
            check_machine()
        problem = too_high(process.ulimits)
        if problem:
            raise SandboxError(problem, hint="ask for less, or raise the limit of the user who builds")
        for mount in mounts:
            # By the text. Where links of the image lead, and what there is in /sys, is seen when the mount is made.
            if (os.path.normpath(mount.target) + "/").startswith("/proc/"):
                raise SandboxError(f"--mount at {mount.target}: nothing can be mounted in /proc", hint="mount it elsewhere")

    def run(
        self,
        process: Process,
        root: str,
        mounts: Sequence[Mount],
        log: Callable[[bytes], None],
        cancel: Cancel,
        /,
    ) -> int:
        """See Sandbox.run."""
        with self._scratch(mounts) as scratch:
            spec = self._spec(process, root, mounts, scratch)
            with brought(mounts, self.emulation.ledger):
                ended = runner.run(spec, root, log, cancel, self.emulation.ledger)
        if ended.status is None:
            raise SandboxError(ended.problem, errno=ended.errno, hint=_hint(ended))
        if ended.warning:
            self.emulation.warn(ended.warning)
        return ended.status

    @contextmanager
    def _scratch(self, mounts: Sequence[Mount]) -> Iterator[str]:
        if not any(mount.discard for mount in mounts):
            yield ""
            return
        try:
            os.makedirs(self.scratch, exist_ok=True)
            place = tempfile.mkdtemp(prefix="discard-", dir=self.scratch)
        except OSError as error:
            raise SandboxError(
                f"cannot make a directory in {self.scratch}: {os.strerror(error.errno or 0).lower()}", errno=error.errno or 0
            ) from error
        try:
            yield place
        finally:
            try:
                remove(place)
            except OSError:
                pass  # the next prune finds it

    def _spec(self, process: Process, root: str, mounts: Sequence[Mount], scratch: str) -> dict[str, Any]:
        isolated = process.network == "none"
        flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
        flags |= CLONE_NEWPID if self.private_pids else 0
        flags |= CLONE_NEWNET if isolated else 0
        identity = process.identity
        return {
            "unshare": flags,
            "private_pids": self.private_pids,
            "private_network": isolated,
            "root": os.fsencode(root),
            "hostname": os.fsencode(process.hostname),
            "shm_size": process.shm_size or _SHM,
            "files": [
                (b"/etc/resolv.conf", b"" if isolated else resolver_file()),
                (b"/etc/hosts", hosts_file(process.hosts, process.hostname)),
            ],
            "mounts": [_mount(mount) for mount in sorted(mounts, key=_depth)],
            "scratch": os.fsencode(scratch),
            "argv": [os.fsencode(word) for word in process.argv],
            "env": [os.fsencode(item) for item in _with_home(process, root)],
            "cwd": os.fsencode(process.cwd),
            "uid": identity.uid,
            "gid": identity.gid,
            "groups": list(identity.groups),
            "capabilities": capabilities.DEFAULT if self.emulation.ledger is None else 0,
            "ulimits": process.ulimits,
            "refused": self.emulation.refused,
            "filter": profile.program(),
        }


def _depth(mount: Mount) -> list[str]:
    """Parents before what is in them, else in the order given (the sort is stable)."""
    return [part for part in mount.target.split("/") if part]


def _mount(mount: Mount) -> dict[str, Any]:
    return {
        "kind": mount.kind,
        "target": os.fsencode(mount.target),
        "source": os.fsencode(mount.source),
        "base": os.fsencode(mount.trusted),
        "read_only": mount.read_only,
        "discard": mount.discard and not mount.ours,  # an overlay's files are not those that a ledger knows
        "size": mount.size,
        "data": mount.data,
        "mode": mount.mode,
        "uid": mount.uid,
        "gid": mount.gid,
    }


def _with_home(process: Process, root: str) -> list[str]:
    env = [item for item in process.env if item != "HOME="]  # an empty one is as good as none (runc)
    if any(item.startswith("HOME=") for item in env):
        return env
    return [*env, f"HOME={home_of(process.identity.uid, read_in_root(root, '/etc/passwd'))}"]


def read_in_root(root: str, path: str, limit: int = _PASSWD_LIMIT) -> bytes | None:
    """The beginning of a regular file as a process in the root sees it; None if there is none."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Not blocking: it may be a FIFO, which then reads as empty.
        descriptor = libc.open_in_root(directory, os.fsencode(path), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    finally:
        os.close(directory)
    try:
        return read_regular(descriptor, limit)
    except OSError:
        return None


def _hint(ended: runner.Ended) -> str:
    if ended.errno == errno.EINVAL and "not mapped" in ended.problem:
        return "give this user more subordinate ids (usermod --add-subuids, --add-subgids), or use smaller ids"
    if ended.errno in {errno.EPERM, errno.EACCES}:
        return "the kernel or a security module forbids it here; see what kpy says about this host"
    return ""


