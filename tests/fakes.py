"""Implementations of our protocols in memory, for tests of any room. No cleverness, no mocks."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, BinaryIO, cast

from kpy.errors import ImageNotFoundError, SandboxError
from kpy.events import Event
from kpy.layer.entry import Entry, Kind, LayerItem, sort_key
from kpy.layer.source import FileSource, Opener, listing_of
from kpy.layer.write import write_tar
from kpy.oci import manifest, mediatype
from kpy.oci.config import History, ImageConfig, RuntimeConfig
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Chain, Image, Layer
from kpy.oci.platform import Platform
from kpy.oci.reference import Reference
from kpy.oci.verify import VerifyingReader
from kpy.plan.model import LINUX_AMD64, BaseImage
from kpy.sandbox.base import Mount, Process, Sandbox
from kpy.snapshot.base import Snapshot, Snapshotter
from kpy.util.cancel import Cancel

T0 = 1_577_836_800_000_000_000
"""2020-01-01 in nanoseconds: the time of what fakes have."""


class RecordingReporter:
    """Keeps every event, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


class MemoryRepository:
    """An oci.content.Repository in memory. `log` holds the digests and tags in the order in which they arrived."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.manifests: dict[Digest, Descriptor] = {}
        self.tagged: dict[str, Digest] = {}
        self.log: list[str] = []
        self.opened: list[Digest] = []
        self._lock = threading.Lock()

    def stat(self, digest: Digest, /) -> int | None:
        data = self.blobs.get(digest)
        return None if data is None else len(data)

    def open(self, descriptor: Descriptor, /) -> BinaryIO:
        data = self.blobs.get(descriptor.digest)
        if data is None:
            raise ImageNotFoundError(f"no blob {descriptor.digest}")
        with self._lock:
            self.opened.append(descriptor.digest)
        return cast("BinaryIO", VerifyingReader(BytesIO(data), descriptor))

    def put(self, stream: BinaryIO, expected: Descriptor | None = None, /) -> Descriptor:
        if expected is None:
            data = stream.read()
            expected = Descriptor("application/octet-stream", Digest.of(data), len(data))
        else:
            data = VerifyingReader(stream, expected).read()
        with self._lock:
            if expected.digest not in self.blobs:
                self.log.append(str(expected.digest))
            self.blobs[expected.digest] = data
        return expected

    def put_bytes(self, data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
        return self.put(BytesIO(data), Descriptor(media_type, Digest.of(data), len(data)))

    def resolve(self, name: str, /) -> Descriptor | None:
        digest = self.tagged.get(name)
        if digest is None and ":" in name:
            digest = Digest.parse(name)
        return self.manifests.get(digest) if digest else None

    def put_manifest(self, raw: bytes, media_type: str, /, tag: str = "") -> Descriptor:
        found = Descriptor(media_type, Digest.of(raw), len(raw))
        with self._lock:
            self.blobs[found.digest] = raw
            self.manifests[found.digest] = found
            if tag:
                self.tagged[tag] = found.digest
            self.log.append(tag or str(found.digest))
        return found

    def referrers(self, subject: Digest, /, artifact_type: str = "") -> Sequence[Descriptor]:
        found = []
        for digest, descriptor in sorted(self.manifests.items()):
            parsed = manifest.parse(self.blobs[digest], descriptor.media_type)
            if parsed.subject is None or parsed.subject.digest != subject:
                continue
            kind = parsed.artifact_type or parsed.config.media_type if isinstance(parsed, manifest.Manifest) else ""
            if not artifact_type or kind == artifact_type:
                found.append(replace(descriptor, annotations=parsed.annotations, artifact_type=kind))
        return found


class MemoryFiles:
    """A layer.source.FileSource in memory. `opened` holds the paths whose content was read."""

    def __init__(self, *entries: Entry, content: Mapping[str, bytes] | None = None, links: Mapping[str, object] | None = None) -> None:
        self.content = dict(content or {})
        self.entries: dict[str, Entry] = {"": Entry("", Kind.DIR, 0o755)}
        self.links = dict(links or {})
        self.opened: list[str] = []
        for entry in entries:
            self.add(entry)

    @staticmethod
    def of(files: "Mapping[str, bytes | str | None]", *, mode: int = 0o644, mtime: int = T0) -> "MemoryFiles":
        """Files by path: bytes are content, a str is the target of a symlink, None makes a directory."""
        found = MemoryFiles()
        for path, what in files.items():
            if what is None:
                found.add(Entry(path, Kind.DIR, 0o755, mtime=mtime))
            elif isinstance(what, str):
                found.add(Entry(path, Kind.SYMLINK, 0o777, link=what, mtime=mtime))
            else:
                found.content[path] = what
                found.add(Entry(path, Kind.FILE, mode, size=len(what), mtime=mtime))
        return found

    def add(self, entry: Entry) -> None:
        """Add an entry, and directories above it where they are missing."""
        above = entry.parent
        if above not in self.entries:
            self.add(Entry(above, Kind.DIR, 0o755, mtime=entry.mtime))
        self.entries[entry.path] = entry

    def lookup(self, path: str, /) -> Entry | None:
        return self.entries.get(path)

    def children(self, path: str, /) -> Sequence[str]:
        return sorted(entry.name for entry in self.entries.values() if entry.path and entry.parent == path)

    def listing(self, path: str, /) -> Iterator[Entry]:
        return listing_of(self, path)

    def link_id(self, entry: Entry, /) -> object | None:
        return self.links.get(entry.path)

    @contextmanager
    def reading(self, entries: Iterable[Entry], /) -> Iterator[Opener]:
        yield self._open

    def _open(self, entry: Entry) -> BinaryIO:
        self.opened.append(entry.path)
        return BytesIO(self.content.get(entry.path, b""))


class KnownImages:
    """A plan.model.ResolveImage that knows the images it was told of. `asked` holds (name, platform) of each call."""

    def __init__(self, content: MemoryRepository | None = None) -> None:
        self.content = content or MemoryRepository()
        self.images: dict[str, dict[Platform, Image]] = {}
        self.asked: list[tuple[str, str]] = []

    def add(
        self, name: str, runtime: RuntimeConfig = RuntimeConfig(), *layers: Sequence[LayerItem],
        platform: Platform = LINUX_AMD64, created: str = "2024-01-01T00:00:00Z", author: str = "",
    ) -> Image:  # fmt: skip
        """An image whose layers hold these items; without any, it has one with a single file."""
        tars = [tar_of(*items) for items in layers or ([file_item("etc/base", name.encode())],)]
        chain = tuple(Layer(self.content.put_bytes(tar, mediatype.OCI_LAYER), Digest.of(tar)) for tar in tars)
        config = ImageConfig(
            platform, runtime, tuple(layer.diff_id for layer in chain),
            tuple(History(created=created, created_by=f"layer of {name}") for _ in chain), created, author,
        )  # fmt: skip
        described = self.content.put_bytes(config.encode(), mediatype.OCI_CONFIG)
        found = manifest.build_manifest(described, [layer.descriptor for layer in chain])
        self.content.put_manifest(found.raw, found.media_type)
        image = Image(found, config, chain, self.content)
        self.images.setdefault(name, {})[platform] = image
        return image

    def __call__(self, name: str, platform: Platform) -> BaseImage:
        self.asked.append((name, str(platform)))
        Reference.parse(name)
        known = self.images.get(name)
        if known is None:
            raise ImageNotFoundError(f"{name}: not found")
        image = known.get(platform) or next(iter(known.values()))
        digest = image.manifest.descriptor.digest
        if len(known) > 1:  # what such a name resolves to is an index: one digest for all platforms
            digest = Digest.of(b"".join(item.manifest.raw for item in known.values()))
        return BaseImage(name, image, digest, other_platform=platform not in known)


def file_item(path: str, content: bytes = b"", *, mode: int = 0o644, mtime: int = T0, **more: Any) -> LayerItem:
    """A file as a layer has it."""
    return LayerItem(Entry(path, Kind.FILE, mode, size=len(content), mtime=mtime, **more), lambda: BytesIO(content))


def dir_item(path: str, *, mode: int = 0o755, mtime: int = T0, **more: Any) -> LayerItem:
    """A directory as a layer has it."""
    return LayerItem(Entry(path, Kind.DIR, mode, mtime=mtime, **more))


def link_item(path: str, target: str) -> LayerItem:
    """A symlink as a layer has it."""
    return LayerItem(Entry(path, Kind.SYMLINK, 0o777, link=target, mtime=T0))


def tar_of(*items: LayerItem) -> bytes:
    """The tar of a layer."""
    out = BytesIO()
    write_tar(items, out.write)
    return out.getvalue()


@dataclass
class FakeRun:
    """One RUN on a FakeMachine, for the function that plays the command."""

    process: Process
    mounts: Sequence[Mount]
    log: Callable[[bytes], None]
    cancel: Cancel
    written: dict[str, LayerItem] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The command, without the shell."""
        return self.process.argv[-1]

    def write(self, path: str, content: bytes, **more: Any) -> None:
        """Change a file."""
        self.written[path] = file_item(path, content, **more)


class FakeMachine:
    """Snapshotter, Sandbox and the Strategy that gives both. A command is played by the function that `commands` has
    for its text; any other writes the file `ran` with its text. `runs` and `prepared` are in the order of arrival."""

    def __init__(self, *, capacity: int = 4) -> None:
        self.capacity_ = capacity
        self.commands: dict[str, Callable[[FakeRun], int]] = {}
        self.runs: list[FakeRun] = []
        self.prepared: list[tuple[Chain, int]] = []
        self.committed: list[Layer] = []
        self.asked = 0
        self.refuse: SandboxError | None = None
        self._roots: dict[str, dict[str, LayerItem]] = {}
        self._lock = threading.Lock()

    def __call__(self) -> "tuple[FakeMachine, FakeMachine]":
        self.asked += 1
        return self, self

    @property
    def capacity(self) -> int:
        return self.capacity_

    @property
    def texts(self) -> list[str]:
        """The commands that ran."""
        return [run.text for run in self.runs]

    @contextmanager
    def prepare(self, chain: Chain, base: int, /) -> Iterator[Snapshot]:
        with self._lock:
            root = f"/root{len(self.prepared)}"
            self.prepared.append((chain, base))
            self._roots[root] = {}
        yield Snapshot(chain, root)

    @contextmanager
    def view(self, chain: Chain, /) -> Iterator[str | None]:
        yield None

    def changes(self, active: Snapshot, /) -> Iterator[LayerItem]:
        yield from sorted(self._roots[active.root].values(), key=lambda item: sort_key(item.entry))

    def commit(self, active: Snapshot, layer: Layer, /) -> None:
        self.committed.append(layer)

    def check(self, process: Process, mounts: Sequence[Mount], /) -> None:
        if self.refuse is not None:
            raise self.refuse

    def run(
        self, process: Process, root: str, mounts: Sequence[Mount], log: Callable[[bytes], None], cancel: Cancel, /
    ) -> int:
        run = FakeRun(process, list(mounts), log, cancel, self._roots[root])
        with self._lock:
            self.runs.append(run)
        command = self.commands.get(run.text)
        if command is not None:
            return command(run)
        run.write("ran", run.text.encode())
        return 0


_files: type[FileSource] = MemoryFiles
_snapshotter: type[Snapshotter] = FakeMachine
_sandbox: type[Sandbox] = FakeMachine
