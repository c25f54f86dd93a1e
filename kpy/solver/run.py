"""RUN: mounts made ready, the process run in a snapshot, what changed written as a layer (R01-R24)."""

import errno
import heapq
import json
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

from kpy.errors import StepFailedError
from kpy.events import StepLog
from kpy.layer.entry import Entry, Kind, LayerItem, sort_key
from kpy.layer.tree import Tree
from kpy.linux.users import lookup_user
from kpy.oci.image import Layer
from kpy.plan.model import RunOp, Step
from kpy.sandbox.base import Process
from kpy.solver.build_layer import SECOND, store_layer
from kpy.solver.mounts import make_mounts
from kpy.solver.values import ChainValue, Services, Value

KEPT_OUTPUT = 16 << 10  # bytes of a failed command's output that its error shows
_SHOWN_COMMAND = 1000  # characters of it that the message repeats; the lines of the Dockerfile are below it anyway


def execute_run(step: Step, op: RunOp, inputs: Sequence[Value], services: Services) -> Layer:
    """Run the command and give the layer of its changes.

    Raises StepFailedError with the end of the output when the command fails, SandboxError when it cannot be run.
    """
    parent = inputs[0]
    assert isinstance(parent, ChainValue)
    snapshotter, sandbox = services.strategy()
    tail = Tail(KEPT_OUTPUT)

    def log(data: bytes) -> None:
        tail.add(data)
        services.report(StepLog(step.id, data))

    with ExitStack() as stack:
        mounts, variables = make_mounts(op, inputs, services, stack)
        active = stack.enter_context(snapshotter.prepare(parent.chain, parent.base))
        tree = services.layers.tree(parent.chain)  # after: unpacking makes it on the way
        identity = lookup_user(op.user, tree.content("etc/passwd"), tree.content("etc/group"))
        process = make_process(op, variables).with_identity(identity)
        with services.cancel.holding():
            status = sandbox.run(process, active.root, mounts, log, services.cancel)
        if status:
            raise failure(step, op, status, tail.text())
        layer = store_layer(with_mount_points(snapshotter.changes(active), tree, services), services)
        snapshotter.commit(active, layer)
        return layer


def with_mount_points(items: Iterable[LayerItem], tree: Tree, services: Services) -> Iterator[LayerItem]:
    """The changes, and those of /dev, /proc and /sys that the root does not have: every container runtime makes
    them in the root that it runs in, so BuildKit's layers have them too."""
    made = [
        LayerItem(Entry(name, Kind.DIR, 0o755, mtime=(services.epoch or 0) * SECOND))
        for name in ("dev", "proc", "sys")
        if tree.lookup(name) is None
    ]
    return heapq.merge(items, made, key=lambda item: sort_key(item.entry)) if made else iter(items)


def make_process(op: RunOp, variables: Sequence[str]) -> Process:
    """The process of a RUN, as root; `variables` are those of secrets."""
    network = op.network if op.network in ("none", "host") else "default"
    return Process(
        argv=op.argv,
        env=(*op.env, *op.proxies, *variables),
        cwd=op.cwd,
        network=network,  # type: ignore[arg-type]
        hostname=op.hostname or "buildkitsandbox",
        hosts=op.hosts,
        shm_size=op.shm_size,
        ulimits=op.ulimits,
    )


def failure(step: Step, op: RunOp, status: int, output: str) -> StepFailedError:
    """The error of a command that failed, in BuildKit's words (R21)."""
    # In JSON's quotes, which are nearly Go's %q: the command of a heredoc is one line too.
    command = json.dumps(" ".join(op.argv)[:_SHOWN_COMMAND], ensure_ascii=False)
    error = StepFailedError(
        f"process {command} did not complete successfully: exit code: {status}",
        step=step.name,
        status=status,
        output=output,
        hint=_hint(status, output),
    )
    if step.span is not None:
        step.span.blame(error)
    return error


def _hint(status: int, output: str) -> str:
    if os.strerror(errno.ENOSPC) in output[-2000:]:
        return "a disk is full: that of the store, or what the command has mounted"
    try:
        name = signal.Signals(status - 128).name
    except ValueError:
        return ""
    memory = ", often because memory ran out: see the kernel's log" if name == "SIGKILL" else ""
    return f"exit code {status} means that it was ended by {name}{memory}"


class Tail:
    """The last bytes of a stream."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Append."""
        self._data += data
        if len(self._data) > 2 * self._size:
            del self._data[: -self._size]

    def text(self) -> str:
        """As text, whole lines where it was cut."""
        data = bytes(self._data[-self._size :])
        if len(self._data) > self._size:
            data = data.partition(b"\n")[2]
        return data.decode("utf-8", "replace")
