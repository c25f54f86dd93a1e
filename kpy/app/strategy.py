"""How RUN is done here: live, chroot or userns. Chosen once, before any thread starts; nobody asks again.

`auto` is the live root in a container of the builder image, and only there: anywhere else that would empty somebody's
machine. Elsewhere, or where that cannot be had, it is a user namespace, which keeps the builder and the image apart. Who
may not give files to others there has root emulated (EXECUTION B), and so has who gets but one id in a user namespace;
where system calls cannot be answered, that is said before the build begins. Where neither is possible, root gets a chroot.
"""

import errno
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kpy.app import walls
from kpy.app.options import Isolation
from kpy.errors import SandboxError, StoreError
from kpy.events import Reporter, Warned
from kpy.linux import capabilities, commandline, libc
from kpy.sandbox.base import Sandbox
from kpy.snapshot.base import Snapshotter
from kpy.solver.content import Layers
from kpy.util.cancel import Cancel
from kpy.util.locks import FileLock, is_held_above

BUNDLE = "/kpy"
"""Where the interpreter of the builder image is, with all that it needs (EXECUTION C)."""

SHELL = "/busybox"
"""Where GitLab's runner looks for a shell, at each script of a job: in the builder image that has one, a link to /kpy/busybox."""

CONSENT = "KPY_DISPOSABLE_ROOT"
"""Set to 1 by the builder image: the root file system is nobody's and may be emptied. The place of the interpreter alone
does not say so: somebody may have copied it to a machine."""

if TYPE_CHECKING:
    from kpy.linux.ledger import Ledger
    from kpy.sandbox.handover import Emulation

RunStrategy = Callable[[], tuple[Snapshotter, Sandbox]]


@dataclass(frozen=True, slots=True)
class Place:
    """What was chosen. `problem`: why no RUN can be done, raised when one is asked for.

    In a user namespace: `overlay`, whether overlayfs takes the state directory; `private_pids`, whether a new /proc
    can be mounted. A container may refuse either (EXECUTION 0, row 4). `ids`: whether files can be given to others; else
    root and all others are emulated (E2, E5). `listener`: the errno that says why that can be in part only. `notes`: what
    the user should know of it before a build begins.
    """

    isolation: str
    problem: SandboxError | None = None
    overlay: bool = True
    private_pids: bool = True
    ids: bool = True
    listener: int = 0
    notes: tuple[Warned, ...] = ()


@dataclass(frozen=True, slots=True)
class Means:
    """What a strategy works with. `state` is kept between builds, `spool` goes with this one; `protected` are
    the absolute paths that the build still needs when a live root has been emptied, `private` those that no RUN of another
    uid than 0 may have; `stack` ends with the build."""

    layers: Layers
    state: Path
    spool: str
    protected: tuple[str, ...]
    private: tuple[str, ...]
    cancel: Cancel
    stack: ExitStack
    report: Reporter


def prepare(isolation: Isolation, variables: Mapping[str, str], state: Path) -> Place:
    """Choose, and change this process as that wants it. No thread may run yet. `state` is the state directory.

    Raises SandboxError only for an isolation that was asked for by name; `auto` keeps it for the first RUN.
    """
    place = _choose(isolation, variables, state)
    if place.problem is not None:
        return place
    open_here = walls.notes(
        place.isolation, walls.look(), ids=place.ids, private_pids=place.private_pids, listens=not place.listener
    )
    return replace(place, notes=(*place.notes, *open_here))


def _choose(isolation: Isolation, variables: Mapping[str, str], state: Path) -> Place:
    if (problem := _no_python()) is not None:
        if isolation != "auto":
            raise problem
        return Place("none", problem)
    match isolation:
        case "userns":
            return _userns(state)
        case "live":
            return _live(variables)
        case "chroot":
            if not _may_chroot():
                raise SandboxError(
                    "--isolation=chroot needs root with CAP_SYS_CHROOT", hint="run as root, or use --isolation=userns"
                )
            return _chroot()
        case _:
            return _auto(variables, state)


def _auto(variables: Mapping[str, str], state: Path) -> Place:
    live = in_bundle() and variables.get(CONSENT) == "1"
    # First what the builder image is made for: where user namespaces may be made, not all that is needed in them always may
    # (podman's pods let one have the namespace and not the mounts).
    ways: list[Callable[[], Place]] = [lambda: _userns(state)]
    if live:
        ways.insert(0, lambda: _live(variables))
    problem = None
    for way in ways:
        try:
            return way()
        except SandboxError as error:
            problem = problem or error
    if _may_chroot() and not live:
        return _chroot()
    return Place("none", _explained(problem, elsewhere=not live))


def _explained(problem: SandboxError | None, *, elsewhere: bool) -> SandboxError | None:
    """With the way out. `elsewhere`: there is one that is always there, for what the place itself would have to allow is
    often not the user's to say."""
    from kpy.linux.probe import can_supervise

    if problem is None:
        return None
    hint = problem.hint
    if can_supervise() == errno.EBUSY:  # nobody may make a user namespace there (kpy.emulation.filter)
        hint = (
            "this is a RUN whose root another builder emulates: build this image before it, and pass it on with "
            "--build-context NAME=docker-image://IMAGE"
        )
    elif elsewhere:
        other = "build in a container of the kpy image: RUN needs no rights there"
        hint = f"{hint}; or {other}" if hint else other
    return SandboxError(problem.message, errno=problem.errno, hint=hint)


def _no_python() -> SandboxError | None:
    """A RUN is started by programs of ours, which need the interpreter that runs us. In what PyInstaller, cx_Freeze, PyOxidizer or
    Nuitka make, sys.executable is the whole program, or nothing: to start it would start another build."""
    if not (hasattr(sys, "frozen") or hasattr(sys, "oxidized") or "__compiled__" in globals()) and os.access(sys.executable or "", os.X_OK):
        return None
    return SandboxError(
        "this kpy is a program without a Python interpreter of its own (PyInstaller or the like), which a RUN needs",
        hint="install kpy with pip, or build in a container of the kpy image",
    )


def in_bundle() -> bool:
    """Is this kpy run by the interpreter of the builder image?"""
    return sys.executable.startswith(BUNDLE + "/")


def _chroot() -> Place:
    """A RUN can leave the directory; it cannot read this process, which may hold credentials, unless it has CAP_SYS_PTRACE."""
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    commandline.hide()
    return Place("chroot")


def _may_chroot() -> bool:
    """Found by doing it: root that another builder emulates is told that it has the capability."""
    from kpy.linux.probe import can_chroot

    held = os.geteuid() == 0 and bool(capabilities.effective() >> capabilities.SYS_CHROOT & 1)
    return held and can_chroot(os.path.dirname(os.path.abspath(__file__))) == 0


def _userns(state: Path) -> Place:
    from kpy.linux.probe import can_fresh_proc, can_overlay
    from kpy.sandbox.enter import enter, rehearse

    found = rehearse()
    overlay = not _have(state) or not found.full or can_overlay(str(state)) == 0  # the store will say what is wrong with it
    place = Place("userns", overlay=overlay, private_pids=can_fresh_proc() == 0, ids=found.full)
    if found.problem is not None:
        why = f"root and all other users are emulated, which takes longer: {found.problem.message}"
        place = _emulated(place)
        place = replace(place, notes=(Warned(why, found.problem.hint), *place.notes))
    enter(found)
    if not place.private_pids:
        commandline.hide()
    return place


def _have(state: Path) -> bool:
    """Is the state directory there, or can it be made?"""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return True


def _emulated(place: Place) -> Place:
    """The same, with what an emulated root has there. Raises SandboxError if there can be none."""
    from kpy.emulation.start import lost
    from kpy.linux.probe import can_filter, can_supervise
    from kpy.sandbox.handover import check_machine

    check_machine()
    number = can_supervise()
    if not number:
        return place
    if refused := can_filter():
        raise SandboxError(f"root cannot be emulated: no filter of system calls is allowed: {os.strerror(refused).lower()}", errno=refused)
    return replace(place, listener=number, notes=(Warned(lost(number)),))


def _live(variables: Mapping[str, str]) -> Place:
    from kpy.linux.namespaces import gives_owners
    from kpy.sandbox.live import harden

    if not in_bundle() or variables.get(CONSENT) != "1":
        raise SandboxError(
            "--isolation=live empties the root file system, which this one does not agree to",
            hint=f"build in a container of the kpy image; it has kpy in {BUNDLE}, and {CONSENT}=1",
        )
    place = Place("live", ids=gives_owners())
    if not place.ids:
        place = _emulated(place)
    harden([BUNDLE])  # all that this process needs: what else is protected is for others
    return place


def strategy(place: Place, means: Means) -> RunStrategy:
    """Makes snapshotter and sandbox when the first RUN needs them."""
    made: list[tuple[Snapshotter, Sandbox]] = []
    makers = {"live": _make_live, "chroot": _make_chroot, "userns": _make_userns}

    def get() -> tuple[Snapshotter, Sandbox]:
        if place.problem is not None:
            raise place.problem
        if not made:
            for note in place.notes:
                means.report(note)
            made.append(makers[place.isolation](place, means))
        return made[0]

    return get


def _make_userns(place: Place, means: Means) -> tuple[Snapshotter, Sandbox]:
    from kpy.linux.ledger import Ledger
    from kpy.sandbox.handover import NONE
    from kpy.sandbox.userns import UsernsSandbox

    scratch = means.state / "scratch"
    scratch.mkdir(mode=0o700, exist_ok=True)
    ledger = None if place.ids else Ledger()
    emulation = NONE if ledger is None else _emulation(ledger, place, means)
    sandbox = UsernsSandbox(str(scratch), private_pids=place.private_pids, emulation=emulation)
    # One directory, scanned before and after: where the state directory is itself on an overlay; and where a ledger says
    # whose files are, for it knows them by their inodes, which an overlay's copies have not.
    if not place.overlay or ledger is not None:
        from kpy.snapshot.directory import DirectorySnapshotter
        from kpy.snapshot.ground import Directory

        root = os.path.join(means.spool, "root")
        os.mkdir(root, 0o755)
        return DirectorySnapshotter(Directory(root, ledger=ledger, own=True), means.layers), sandbox
    from kpy.snapshot.overlay import OverlaySnapshotter
    from kpy.snapshot.stack import Stack

    return OverlaySnapshotter(Stack(str(means.state / "snapshots"), means.cancel, report=means.report), means.layers), sandbox


def _emulation(ledger: "Ledger", place: Place, means: Means) -> "Emulation":
    from kpy.sandbox.handover import Emulation

    return Emulation(ledger, lambda text: means.report(Warned(text)), refused=place.listener)


def _make_live(place: Place, means: Means) -> tuple[Snapshotter, Sandbox]:
    from kpy.linux.ledger import Ledger
    from kpy.sandbox.handover import NONE
    from kpy.sandbox.live import LiveSandbox
    from kpy.snapshot.directory import LIVE_PATHS, DirectorySnapshotter
    from kpy.snapshot.ground import Directory, Ground

    if "/" in means.protected:
        raise SandboxError(
            "the build needs / itself, the root file system that it replaces",
            hint="give the build context, the outputs and kpy's own files directories of their own",
        )
    _take_turn(Path(BUNDLE, "tmp", "live.lock"), means)
    shell = (SHELL,) if os.path.realpath(SHELL).startswith(BUNDLE + "/") else ()
    protected = (*LIVE_PATHS, BUNDLE, *shell, *means.protected)
    ground: Ground = Directory("/")
    emulation = NONE
    if not place.ids:
        from kpy.snapshot.slots import Slots
        from kpy.snapshot.volumes import Volumes

        ledger = Ledger()
        emulation = _emulation(ledger, place, means)
        # Root without rights is no owner of what the builder image has in / either.
        ground = Slots(ledger, protected, Volumes(means.state / "volumes.json"), private=means.private)
    return (
        DirectorySnapshotter(ground, means.layers, protected=protected),
        LiveSandbox(means.spool, protected, emulation, f"{BUNDLE}/tmp/scripts"),
    )


def _take_turn(lock: Path, means: Means) -> None:
    """There is one root: the builds of a container take turns, until the end of `means.stack`."""
    try:
        means.stack.enter_context(FileLock(lock, timeout=0))
        return
    except StoreError:
        if not os.access(lock, os.R_OK | os.W_OK):
            raise
    if is_held_above(lock):
        raise SandboxError(
            "this is a RUN of a build that has the root file system, and there is but one",
            hint="build this image before that one, and pass it on with --build-context NAME=docker-image://IMAGE",
        )
    means.report(Warned("another build has the root file system of this container: waiting for its end"))
    means.stack.enter_context(FileLock(lock, cancel=means.cancel))


def _make_chroot(_: Place, means: Means) -> tuple[Snapshotter, Sandbox]:
    from kpy.sandbox.chroot import ChrootSandbox
    from kpy.snapshot.directory import DirectorySnapshotter
    from kpy.snapshot.ground import Directory

    root = os.path.join(means.spool, "root")
    os.mkdir(root, 0o755)
    return DirectorySnapshotter(Directory(root, own=True), means.layers), ChrootSandbox(means.spool)
