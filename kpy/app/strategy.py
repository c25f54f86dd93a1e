"""How RUN is done here: live, chroot or userns. Chosen once, before any thread starts; nobody asks again.

`auto` prefers a user namespace: it is the only one that keeps the builder and the image apart. In a container whose
image is kpy's own, where neither namespaces nor mounts are allowed, it is the live root; elsewhere chroot.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kpy.app.options import Isolation
from kpy.errors import SandboxError
from kpy.linux import capabilities
from kpy.sandbox.base import Sandbox
from kpy.snapshot.base import Snapshotter
from kpy.solver.content import Layers

BUNDLE = "/kpy"
"""Where the interpreter of the builder image is (EXECUTION C)."""

RunStrategy = Callable[[], tuple[Snapshotter, Sandbox]]


@dataclass(frozen=True, slots=True)
class Place:
    """What was chosen. `problem`: why no RUN can be done, raised when one is asked for."""

    isolation: str
    problem: SandboxError | None = None


def prepare(isolation: Isolation) -> Place:
    """Choose, and enter the user namespace if that is it. No thread may run yet.

    Raises SandboxError only for an isolation that was asked for by name; `auto` keeps it for the first RUN.
    """
    if isolation == "userns":
        return _userns()
    if isolation == "live":
        return Place("live")
    if isolation == "chroot":
        if not capabilities.effective() >> capabilities.SYS_CHROOT & 1:
            raise SandboxError("--isolation=chroot needs CAP_SYS_CHROOT", hint="run as root, or use --isolation=userns")
        return Place("chroot")
    if in_bundle() and os.geteuid() == 0:
        return Place("live")
    try:
        return _userns()
    except SandboxError as error:
        if os.geteuid() == 0 and capabilities.effective() >> capabilities.SYS_CHROOT & 1:
            return Place("chroot")
        return Place("none", error)


def in_bundle() -> bool:
    """Is this kpy run by the interpreter of the builder image?"""
    return sys.executable.startswith(BUNDLE + "/")


def _userns() -> Place:
    from kpy.sandbox.enter import enter

    enter()
    return Place("userns")


def strategy(place: Place, state: Path, layers: Layers) -> RunStrategy:
    """Makes snapshotter and sandbox when the first RUN needs them."""
    made: list[tuple[Snapshotter, Sandbox]] = []

    def get() -> tuple[Snapshotter, Sandbox]:
        if place.problem is not None:
            raise place.problem
        if not made:
            made.append(_make(place.isolation, state, layers))
        return made[0]

    return get


def _make(isolation: str, state: Path, layers: Layers) -> tuple[Snapshotter, Sandbox]:
    if isolation == "userns":
        from kpy.sandbox.userns import UsernsSandbox
        from kpy.snapshot.overlay import OverlaySnapshotter
        from kpy.snapshot.stack import Stack

        scratch = state / "scratch"
        scratch.mkdir(mode=0o700, exist_ok=True)
        return OverlaySnapshotter(Stack(str(state / "snapshots")), layers), UsernsSandbox(str(scratch))
    from kpy.snapshot.directory import LIVE_PATHS, DirectorySnapshotter

    if isolation == "live":
        from kpy.sandbox.live import LiveSandbox, harden

        protected = (*LIVE_PATHS, BUNDLE.strip("/"), str(state).strip("/"))
        harden(protected)
        return DirectorySnapshotter("/", layers, protected=protected), LiveSandbox(str(state), protected)
    from kpy.sandbox.chroot import ChrootSandbox

    root = state / "root"
    root.mkdir(mode=0o755, exist_ok=True)
    return DirectorySnapshotter(str(root), layers), ChrootSandbox(str(state))
