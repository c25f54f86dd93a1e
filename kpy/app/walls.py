"""What stands between a RUN and what is not its own, on this kernel: what is open without each, for those who build and for
`kpy doctor`. What is done about it is the sandboxes' (kpy.sandbox.walls, kpy.linux.landlock)."""

from dataclasses import dataclass

from kpy.events import Warned
from kpy.linux import landlock, profile, seccomp, survey, syscalls
from kpy.sandbox.spawn import may_raise_walls

NEWEST = "Linux 6.12 or newer, with Landlock among its security modules (lsm=)"

LEVELS = (
    (1, "5.13", ""),  # a RUN could move no file between directories: kpy does not use it
    (2, "5.19", "files"),
    (3, "6.2", "their length"),
    (landlock.WITH_SCOPES, "6.12", "signals and abstract sockets"),
)
"""Of Landlock: the version, the kernel that has it, and what kpy keeps apart by it."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Of this kernel, for this process: the version of its Landlock, 0 for none; whether there are filters of system calls;
    whether one holds already; and whether real root may be put behind these walls (it needs CAP_SYS_ADMIN)."""

    landlock: int
    filters: bool
    filtered: bool
    admin: bool


def look() -> Kernel:
    """Ask it. Nothing is changed."""
    arch = syscalls.native()
    return Kernel(
        landlock=landlock.version(arch) if arch is not None else 0,
        filters=arch is not None and bool(profile.program()) and seccomp.is_there(arch),
        filtered=survey.status("Seccomp") == "2",
        admin=may_raise_walls(),
    )


def describe(version: int) -> str:
    """A version of Landlock, and what is not kept apart."""
    kept = [what for level, _, what in LEVELS if what and version >= level]
    lost = [f"{what} (Linux {kernel})" for level, kernel, what in LEVELS if what and version < level]
    name = f"version {version}" if version else "none"
    return "; ".join([name, *(["kept apart: " + ", ".join(kept)] if kept else []), *(["not kept apart: " + ", ".join(lost)] if lost else [])])


def notes(isolation: str, kernel: Kernel, *, ids: bool, private_pids: bool, listens: bool = True) -> tuple[Warned, ...]:
    """What a RUN can reach here that walls would keep from it, said before the first. `ids`: root is real. `listens`: else
    kpy answers no calls of a RUN."""
    if ids and isolation in ("live", "chroot"):
        return _of_root(kernel)
    found = [] if kernel.filters else [_unfiltered()]
    reached = _reached(isolation, kernel.landlock, private_pids=private_pids, listens=listens)
    if reached:
        found.append(Warned(f"a RUN can {', and '.join(reached)}: {_why(kernel.landlock)}", f"{NEWEST}, keeps that from it"))
    return tuple(found)


def _reached(isolation: str, version: int, *, private_pids: bool, listens: bool) -> list[str]:
    found = []
    if isolation == "live" and version < 2:
        found.append("read and change the files of the builder's uid, its logins and its store among them")
    elif isolation == "live" and version < 3 and not listens:
        found.append("empty files of the builder's uid")
    if isolation == "live" and version < landlock.WITH_UNIX_SOCKETS and not listens:
        found.append("connect to Unix sockets of the builder")
    if version < landlock.WITH_SCOPES:
        if isolation == "live" or not private_pids:
            found.append("stop and kill the builder")
        found.append("connect to abstract Unix sockets (X11, D-Bus) unless it has --network=none")
    return found


def _why(version: int) -> str:
    return f"this kernel's Landlock is version {version}" if version else "this kernel has no Landlock, or it is not enabled"


def _of_root(kernel: Kernel) -> tuple[Warned, ...]:
    found = [] if kernel.filtered or (kernel.filters and kernel.admin) else [_unfiltered()]
    root = Warned(
        "a RUN is root here as the builder is: the builder's files and processes are open to it",
        "build what you do not trust as another uid (--user 1000:1000, Pod Security restricted), or with --isolation=userns",
    )
    return (*found, root)


def _unfiltered() -> Warned:
    return Warned(
        "system calls of a RUN are not filtered: nothing is between it and the whole kernel",
        "use a kernel that has seccomp filters, or a container with its runtime's default profile",
    )
