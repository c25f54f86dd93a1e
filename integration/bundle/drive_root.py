"""Drives a snapshotter and its sandbox inside a builder container, without the rest of kpy: for tests.

Reads from standard input `{"strategy": "live"|"chroot", "stages": [{"layers": [tar], "runs": [{...Process, "mounts"}]}]}`,
writes `{"stages": [[{"status", "output", "changes"}]], ...}`. A failed run is not committed. Layers of runs go to
/kpy/state, so that a later stage can name them: "run:STAGE:NUMBER".
"""

import gzip
import hashlib
import json
import os
import sys

sys.path.insert(0, os.environ.get("KPY_CHECKOUT", "/kpy/lib/python3.11"))

from kpy.errors import KpyError
from kpy.layer.extract import extract
from kpy.layer.index import LayerTree
from kpy.layer.write import write_tar
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Layer
from kpy.sandbox.base import Identity, Mount, Process
from kpy.sandbox.chroot import ChrootSandbox
from kpy.sandbox.live import LiveSandbox, harden
from kpy.snapshot.directory import KERNEL_PATHS, LIVE_PATHS, DirectorySnapshotter
from kpy.snapshot.ground import Directory
from kpy.util.cancel import Cancel

STATE = os.environ.get("KPY_HOME", "/kpy/state")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Files:
    """LayerContent of plain files."""

    def __init__(self):
        self.paths = {}
        self.trees = {}
        self.opened = []

    def layer(self, path):
        hasher = hashlib.sha256()
        with self._open(path) as file:
            while block := file.read(1 << 20):
                hasher.update(block)
        digest = Digest("sha256", hasher.hexdigest())
        layer = Layer(Descriptor("application/vnd.oci.image.layer.v1.tar", digest, os.path.getsize(path)), digest)
        self.paths[layer.diff_id] = path
        return layer

    def extract(self, layers, root, options, /):
        return [self._extract(self.paths[layer.diff_id], root, options) for layer in layers]

    def _extract(self, path, root, options):
        self.opened.append(path)
        with self._open(path) as tar:
            return extract(tar, root, options=options).tree

    def layer_tree(self, layer, /):
        return self.trees[layer.diff_id]

    @staticmethod
    def _open(path):
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        return gzip.open(path) if packed else open(path, "rb")


def describe(item):
    entry = item.entry
    line = f"{entry.kind.value} {entry.path}"
    if entry.kind.value not in "wo":
        line += f" {entry.mode:o} {entry.uid}:{entry.gid}"
    return line + (f" -> {entry.link}" if entry.link else "")


def main():
    job = json.load(sys.stdin)
    files = Files()
    if job["strategy"] == "live":
        protected = [*LIVE_PATHS, "kpy"]
        harden(protected)
        snapshotter = DirectorySnapshotter(Directory("/"), files, protected=protected)
        sandbox = LiveSandbox(STATE, protected)
    else:
        os.makedirs(f"{STATE}/root", exist_ok=True)
        snapshotter = DirectorySnapshotter(Directory(f"{STATE}/root"), files, protected=KERNEL_PATHS)
        sandbox = ChrootSandbox(STATE)
    answer = []
    layers = {}
    for stage_number, stage in enumerate(job["stages"]):
        chain = tuple(layers[name] if name in layers else files.layer(name) for name in stage["layers"])
        base = len(chain)
        results = []
        for number, run in enumerate(stage["runs"]):
            result, layer = step(snapshotter, sandbox, files, chain, base, dict(run), f"{stage_number}-{number}")
            results.append(result)
            if layer:
                chain = (*chain, layer)
                layers[f"run:{stage_number}:{number}"] = layer
        answer.append(results)
    json.dump({"stages": answer, "opened": files.opened, "root": sorted(os.listdir(snapshotter.root))}, sys.stdout)


def step(snapshotter, sandbox, files, chain, base, run, name):
    mounts = [Mount(**{**mount, "data": mount.get("data", "").encode()}) for mount in run.pop("mounts", ())]
    for mount in mounts:
        if mount.source.startswith(STATE):
            os.makedirs(mount.source, exist_ok=True)
    process = Process(
        tuple(run.pop("argv")), tuple(run.pop("env", [PATH])), identity=Identity(*run.pop("identity", (0, 0))), **run
    )
    output = []
    try:
        sandbox.check(process, mounts)
        with snapshotter.prepare(chain, base) as active, Cancel() as cancel:
            status = sandbox.run(process, active.root, mounts, output.append, cancel)
            result = {"status": status, "output": b"".join(output).decode(errors="replace")}
            if status:
                return result, None
            changes = []

            def seen():
                for item in snapshotter.changes(active):
                    changes.append(describe(item))
                    yield item

            path = f"{STATE}/layer-{name}.tar"
            with open(path, "wb") as file:
                tree = LayerTree(write_tar(seen(), file.write))
            layer = files.layer(path)
            files.trees[layer.diff_id] = tree
            snapshotter.commit(active, layer)
            return {**result, "changes": changes}, layer
    except KpyError as error:
        return {"error": f"{type(error).__name__}: {error} ({error.hint})", "output": b"".join(output).decode()}, None


main()
