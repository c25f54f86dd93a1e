"""Builds with a real store and cache, images in memory, and a machine that only pretends to run, for the solver's tests."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kpy.cache.local import LocalCache
from kpy.events import StepFinished, StepStarted
from kpy.layer.compress import Compression
from kpy.layer.source import FileSource
from kpy.layer.tree import Tree
from kpy.oci.digest import Digest
from kpy.oci.image import Image
from kpy.oci.platform import Platform
from kpy.plan.model import Plan
from kpy.solver.assemble import Format, assemble
from kpy.solver.content import Layers
from kpy.solver.hashing import ContentHashes
from kpy.solver.newest import newest_time
from kpy.solver.solve import solve
from kpy.solver.values import ChainValue, Context, FilesValue, Services
from kpy.store.store import Store
from kpy.util.cancel import Cancel
from tests.fakes import T0, FakeMachine, KnownImages, MemoryFiles, RecordingReporter, file_item
from tests.plan.planning import planned


def base_images() -> KnownImages:
    """`base` with a passwd file, and its arm64 brother."""
    images = KnownImages()
    passwd = file_item("etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:7:8::/app:/bin/sh\n")
    images.add("base", _runtime(), [passwd])
    images.add("base", _runtime(), [passwd, file_item("arm", b"")], platform=Platform("linux", "arm64"))
    return images


def _runtime():  # type: ignore[no-untyped-def]
    from kpy.oci.config import RuntimeConfig

    return RuntimeConfig(env=("PATH=/bin",))


@dataclass
class Built:
    """What one build made and said."""

    plan: Plan
    images: list[Image]
    raws: list[bytes]
    reporter: RecordingReporter
    services: Services

    @property
    def image(self) -> Image:
        """The only image."""
        (found,) = self.images
        return found

    @property
    def digests(self) -> list[Digest]:
        """Of the manifests."""
        return [image.manifest.descriptor.digest for image in self.images]

    @property
    def tree(self) -> Tree:
        """The files of the only image."""
        return self.services.layers.tree(self.image.chain)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as JSON."""
        found: dict[str, Any] = json.loads(self.raws[0])
        return found

    def outcomes(self) -> dict[str, str]:
        """`done`, `cached` or `failed` by the name of the step."""
        names = {event.id: event.name for event in self.reporter.of(StepStarted)}
        return {names[event.id]: event.outcome for event in self.reporter.of(StepFinished)}

    def outcome_of_steps(self) -> list[str]:
        """Of those that have a place in a stage, in the order of the plan."""
        known = self.outcomes()
        return [known[step.name] for step in self.plan.steps if step.name.startswith("[")]


class Builder:
    """Builds in one store, as somebody does who builds again and again."""

    def __init__(self, directory: Path, images: KnownImages | None = None, machine: FakeMachine | None = None) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        (directory / "spool").mkdir(exist_ok=True)
        self.images = images or base_images()
        self.machine = machine or FakeMachine()
        self.context: FileSource = MemoryFiles.of({"a": b"A", "d/f": b"F"}, mtime=T0)
        self.contexts: dict[str, FileSource] = {}
        self.secrets: Mapping[str, Callable[[], bytes]] = {}
        self.reporter = RecordingReporter()
        self.options: dict[str, Any] = {}
        self.cancel = Cancel()

    def close(self) -> None:
        """End the last build's flag."""
        self.cancel.__exit__(None, None, None)

    def services(self) -> Services:
        """All that steps need, with caches in memory that are new."""
        self.close()
        self.cancel = Cancel()
        store = Store(self.directory / "store")
        self.reporter = RecordingReporter()
        contexts = {name: Context(files) for name, files in {"": self.context, **self.contexts}.items()}
        return Services(
            store=store,
            cache=LocalCache(store.cache, store.images.blobs.has),
            layers=Layers(store, self.reporter, self.cancel),
            hashes=ContentHashes(store.directory / "hashes", 0),
            strategy=self.machine,
            contexts=contexts,
            report=self.reporter,
            cancel=self.cancel,
            compression=Compression(),
            fetch=lambda op, _: FilesValue(MemoryFiles.of({"file": str(op).encode()})),
            spool=str(self.directory / "spool"),
            secrets=self.secrets,
        )

    def build(self, text: str, *, plan_options: "dict[str, Any] | None" = None, **changes: Any) -> Built:
        """Build a Dockerfile; `changes` are of the services."""
        plan = planned(text, self.images, **(plan_options or {}))
        services = replace(self.services(), **changes)
        values = solve(plan, services)
        images, raws = [], []
        for target in plan.targets:
            value = values[target.step]
            assert isinstance(value, ChainValue)
            newest = newest_time(target.base.created, value, services)
            image, raw = assemble(target, value, services.layers, newest=newest, epoch=services.epoch, form=Format())
            images.append(image)
            raws.append(raw)
        return Built(plan, images, raws, self.reporter, services)
