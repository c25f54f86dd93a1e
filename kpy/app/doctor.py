"""What this place allows, what `kpy build` would do with it, and what it looks like (FEATURES section 5).

Everything is found by doing it in forks; nothing here is changed. Must run before any thread.
"""

import errno
import os
import pwd
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kpy.app import statedir, walls
from kpy.app import strategy as strategies
from kpy.app.options import Environment
from kpy.app.world import registry_client, state_directory
from kpy.errors import KpyError, SandboxError, StoreError

NO_RUN = "none"


@dataclass(frozen=True, slots=True)
class Probe:
    """One question. `errno` is 0 where it works; `gives` says what for; `detail` adds to the answer."""

    name: str
    what: str
    errno: int
    gives: str
    detail: str = ""

    @property
    def works(self) -> bool:
        """Does it?"""
        return self.errno == 0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What `kpy build` would do for a RUN: its isolation, and how. `problem`: why there is none, `hint`: what to do.
    `notes`: what it would say before it begins."""

    isolation: str
    how: str = ""
    problem: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()

    @property
    def possible(self) -> bool:
        """Can a RUN be done here?"""
        return not self.problem and self.isolation != NO_RUN


@dataclass(frozen=True, slots=True)
class Facts:
    """What is so, rather than allowed. Sizes in bytes, 0 for no limit; -1 free inodes: the file system does not count.
    `landlock`: its version, 0 for none. `filters`: can system calls be filtered?"""

    system: str
    uid: int
    gid: int
    named: bool
    container: bool
    mapped: bool
    no_new_privileges: bool
    seccomp: bool
    bundle: bool
    apparmor: bool
    state: str
    disk_free: int
    inodes_free: int
    memory_limit: int
    memory_free: int
    landlock: int = 0
    filters: bool = True


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The whole answer."""

    place: tuple[str, str]
    facts: Facts
    probes: tuple[Probe, ...]
    outlook: Outlook
    registries: Mapping[str, str] = field(default_factory=dict, hash=False)

    def works(self, name: str) -> bool:
        """Does the probe of this name?"""
        return any(probe.name == name and probe.works for probe in self.probes)


def diagnose(environment: Environment, registries: tuple[str, ...] = ()) -> Diagnosis:
    """Ask everything; of the network only what `registries` names."""
    state = state_directory(environment)
    refused = _refused(state)
    probes = _probes(str(state), refused)
    facts = _facts(str(state))
    outlook = foresee(lambda: strategies.prepare("auto", environment.variables, state))
    if refused is not None and outlook.possible:  # else it is not the state directory that is to be changed first
        outlook = Outlook(NO_RUN, problem=refused.message, hint=refused.hint)
    reached = {host: _reach(host, environment) for host in registries}
    return Diagnosis(place(facts, {probe.name: probe.works for probe in probes}), facts, probes, outlook, reached)


def _refused(state: Path) -> StoreError | None:
    """Why a build would not keep anything there."""
    try:
        statedir.claim(state, mounted=strategies.in_bundle())
    except StoreError as error:
        return error
    return None


def foresee(prepare: Callable[[], strategies.Place]) -> Outlook:
    """What a build would choose, chosen in a fork that is thrown away: choosing may change the process for good."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.write(write, "\0".join(_answer(prepare)).encode("utf-8", "replace")[:4000])
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        parts = stream.read().decode("utf-8", "replace").split("\0")
    _, status = os.waitpid(pid, 0)
    if status or len(parts) < 4:
        return Outlook(NO_RUN, problem=f"choosing the isolation ended with {os.waitstatus_to_exitcode(status)}")
    isolation, how, problem, hint, *notes = parts
    return Outlook(isolation, how, problem, hint, tuple(notes))


def _answer(prepare: Callable[[], strategies.Place]) -> tuple[str, ...]:
    try:
        chosen = prepare()
    except SandboxError as error:
        return NO_RUN, "", error.message, error.hint
    if chosen.problem is not None:
        return NO_RUN, "", chosen.problem.message, chosen.problem.hint
    how = ""
    if chosen.isolation == "userns":
        how = "layers by overlayfs" if chosen.overlay and chosen.ids else "layers unpacked into one directory"
        how += ", processes of its own" if chosen.private_pids else ", processes shared with this place"
        how += "" if chosen.ids else ", root and other users emulated"
    elif not chosen.ids:
        how = "root and other users emulated"
    notes = [f"{note.message} ({note.hint})" if note.hint else note.message for note in chosen.notes]
    return chosen.isolation, how, "", "", *notes


def _probes(directory: str, refused: StoreError | None) -> tuple[Probe, ...]:
    from kpy.linux import probe, survey

    ids, shown = _ids()
    rows: tuple[tuple[str, str, int, str, str], ...] = (
        ("userns", "user namespace", probe.can_userns(), "RUN apart from the builder: --isolation=userns", ""),
        ("ids", "range of ids in it", ids, "files of several owners, USER, chown", shown),
        ("overlay", "overlayfs in it", probe.can_overlay(directory), "layers mounted, not unpacked: quicker steps", f"in {directory}"),
        ("proc", "fresh /proc in it", probe.can_fresh_proc(), "a RUN sees its own processes only", ""),
        ("mount", "mount outside of it", probe.can_mount(), "(kpy does not need it)", ""),
        ("chroot", "chroot", probe.can_chroot(directory), "RUN in a directory: --isolation=chroot", ""),
        ("chown", "chown to other users", probe.can_chown(directory), "RUN as root in kpy's own container: --isolation=live", ""),
        ("setuid", "setuid to other users", survey.can_setuid(), "USER, su and daemons in a RUN without namespaces", ""),
        ("mknod", "mknod of a device", survey.can_mknod(directory), "devices in images by RUN", ""),
        ("filecap", "file capabilities", survey.can_set_capability(directory), "setcap in a RUN without namespaces", ""),
        ("listener", "seccomp listener", probe.can_supervise(), "an emulated root where nothing else is allowed", ""),
        ("memory", "/proc/PID/mem", survey.can_read_memory(), "the same: arguments of system calls", ""),
        ("network", "network namespace", survey.can_make_network(), "RUN --network=none with a loopback interface", ""),
        ("top", "new directory in /", survey.can_write_top(), "any top-level directory in a live root", ""),
        ("state", "the state directory", _usable(directory, refused), "the store, the cache", refused.message if refused else directory),
    )  # fmt: skip
    return tuple(Probe(name, what, number, gives, detail) for name, what, number, gives, detail in rows)


def _ids() -> tuple[int, str]:
    from kpy.sandbox.enter import rehearse

    try:
        found = rehearse()
    except SandboxError as error:
        return error.errno or errno.EPERM, error.message
    count = sum(row[2] for row in found.uids)
    return (0 if found.full else errno.EPERM), f"{count} uids" if found.problem is None else f"its own only: {found.problem.message}"


def _usable(directory: str, refused: StoreError | None) -> int:
    from kpy.linux.survey import can_write_top

    return can_write_top(directory) or (errno.EPERM if refused is not None else 0)


def _facts(directory: str) -> Facts:
    from kpy.linux import probe, survey

    uid = os.geteuid()
    try:
        pwd.getpwuid(uid)
        named = True
    except KeyError:
        named = False
    disk, inodes = survey.space(directory)
    uids = [line.split() for line in survey.read("/proc/self/uid_map").splitlines()]
    system = "gvisor" if survey.is_gvisor() else sys.platform
    kernel = walls.look()
    return Facts(
        system=system, uid=uid, gid=os.getegid(), named=named, container=probe.in_container(),
        mapped=bool(uids) and uids != [["0", "0", "4294967295"]],
        no_new_privileges=survey.status("NoNewPrivs") == "1", seccomp=survey.status("Seccomp") == "2",
        bundle=strategies.in_bundle(),
        apparmor=survey.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").strip() == "1",
        state=directory, disk_free=disk, inodes_free=inodes or -1,
        memory_limit=survey.memory_limit(), memory_free=survey.memory_free(), landlock=kernel.landlock, filters=kernel.filters,
    )  # fmt: skip


def place(facts: Facts, works: Mapping[str, bool]) -> tuple[str, str]:
    """Which row of FEATURES section 5 this looks like, and its name. A guess, for people: no build goes by it."""
    if facts.system == "gvisor":
        return "E7", "gVisor"
    if facts.system != "linux":
        return "E12", "no Linux"
    root = facts.uid == 0
    # Runtimes mask parts of a container's /proc, and then nobody gets a fresh one: what has it is as good as a host.
    if not facts.container or (works["userns"] and works["proc"] and not root):
        if root:
            return "host", "root on a host"
        if works["ids"]:
            return "E4", "a user of a host, with subordinate ids"
        if works["userns"]:
            return "E5", "a user of a host, without subordinate ids"
        return ("E6", "a user of a host whose AppArmor keeps user namespaces from him") if facts.apparmor else (
            "host", "a user of a host without user namespaces"
        )  # fmt: skip
    if root:
        if works["mount"]:
            return "privileged", "root in a privileged container"
        return ("E3", "root in a container with a user namespace") if facts.mapped else ("E1", "root in an ordinary container")
    if works["userns"]:
        return "unconfined", "a user in a container that allows user namespaces"
    if facts.gid == 0 and not facts.named:
        return "E9", "a random user in a container without rights (OpenShift)"
    return "E2", "a user in a container without rights (Pod Security restricted)"


def _reach(host: str, environment: Environment) -> str:
    """Why a registry cannot be reached with this user's logins; nothing, when it can."""
    try:
        with registry_client(environment, ()) as client:
            client.ping(host)
    except KpyError as error:
        return error.message
    return ""

