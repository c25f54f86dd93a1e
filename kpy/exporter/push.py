"""`type=registry`: push to one or several repositories. Names move last, when all else is there and signed (N28)."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from kpy.errors import InterruptedBuildError, UsageError
from kpy.events import Reporter, StepProgress, silent, step
from kpy.exporter.base import Artifact, ExportResult, all_blobs, all_manifests
from kpy.oci.content import BlobSource, Repository
from kpy.oci.descriptor import Descriptor
from kpy.oci.reference import Reference
from kpy.util.cancel import Cancel
from kpy.util.threads import Pool


class Remote(Repository, Protocol):
    """A repository that blobs are uploaded to."""

    def upload(
        self,
        descriptor: Descriptor,
        open: Callable[[], BinaryIO],  # noqa: A002
        progress: Callable[[int], None],
        mount_from: Sequence[str],
    ) -> str:
        """Make sure that the blob is there: `exists`, `mounted` from one of these repositories of the same registry,
        or `uploaded` from what `open` gives, again if need be. `progress` is told how many bytes are there so far;
        what it raises ends the upload."""
        ...


def never(_descriptor: Descriptor, _target: Reference, /) -> Sequence[str]:
    """Know of no repository to mount from."""
    return ()


@dataclass(frozen=True, slots=True)
class Target:
    """One repository, and the references in it that are to name what is pushed."""

    repository: Remote
    references: tuple[Reference, ...]

    def __post_init__(self) -> None:
        places = {(item.registry, item.repository) for item in self.references}
        if len(places) != 1:
            raise UsageError(f"a push target is one repository, not {len(places)}")

    @property
    def place(self) -> str:
        """registry/repository."""
        return f"{self.references[0].registry}/{self.references[0].repository}"


Sign = Callable[[Repository, Reference, Descriptor], None]


@dataclass(frozen=True, slots=True)
class PushExporter:
    """Pushes an artifact. `sign` is called for each target once all content is there, before any name moves.

    `mount_from(blob, reference)` names repositories of the reference's registry that should have the blob (N11).
    With `by_digest`, no tag is written. Blobs are read from the images' own content, so those of a base image that
    was never stored here pass through without touching the disk.
    """

    targets: tuple[Target, ...]
    report: Reporter = field(default=silent)
    sign: Sign | None = None
    mount_from: Callable[[Descriptor, Reference], Sequence[str]] = field(default=never)
    by_digest: bool = False
    concurrency: int = 4  # N17
    cancel: Cancel | None = None

    def export(self, artifact: Artifact, /) -> ExportResult:
        """Push. When anything fails, no name moved."""
        root = artifact.descriptor
        for target in self.targets:
            for reference in target.references:
                if reference.digest and reference.digest != root.digest:
                    raise UsageError(f"cannot push {root.digest} as {reference}")
        for target in self.targets:
            with step(self.report, f"push {target.place}", f"pushing to {target.place}"):
                self._upload_all(artifact, target)
                for item in all_manifests(artifact):
                    self._check()
                    target.repository.put_manifest(item.raw, item.media_type)
        if self.sign:
            for target in self.targets:
                with step(self.report, f"sign {target.place}", f"signing {target.place}@{root.digest}"):
                    self.sign(target.repository, target.references[0], root)
        names: list[str] = []
        for target in self.targets:
            names.extend(self._name(artifact, target))
        return ExportResult(root, tuple(names))

    def _name(self, artifact: Artifact, target: Target) -> Sequence[str]:
        root = artifact.root
        tagged = [item for item in target.references if item.tag and not self.by_digest]
        for reference in tagged:
            self._check()
            with step(self.report, f"tag {reference}", f"tagging {reference.with_tag(reference.tag)}"):
                target.repository.put_manifest(root.raw, root.media_type, tag=reference.tag)
        if not tagged:
            return (f"{target.place}@{artifact.descriptor.digest}",)
        return [str(item.with_tag(item.tag)) for item in tagged]

    def _check(self) -> None:
        if self.cancel is not None and self.cancel.is_set:
            raise InterruptedBuildError("interrupted: no tag was moved")

    def _upload_all(self, artifact: Artifact, target: Target) -> None:
        """Upload every blob, several at a time; the first failure ends the others."""
        failed = threading.Event()

        def one(descriptor: Descriptor, source: BlobSource) -> None:
            def progress(done: int) -> None:
                if failed.is_set():
                    raise InterruptedBuildError("another upload failed")
                self._check()
                self.report(StepProgress(f"push {target.place}", str(descriptor.digest), done, descriptor.size))

            progress(0)
            target.repository.upload(
                descriptor,
                lambda: source.open(descriptor),
                progress,
                self.mount_from(descriptor, target.references[0]),
            )
            progress(descriptor.size)

        with Pool(self.concurrency, thread_name_prefix="push") as pool:
            # The large ones first: the last to start should not be the one that takes longest.
            blobs = sorted(all_blobs(artifact).values(), key=lambda item: (-item[0].size, item[0].digest))
            futures = [pool.submit(one, descriptor, source) for descriptor, source in blobs]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:  # also when Ctrl-C raises in wait()
                if not all(future.done() and not future.exception() for future in futures):
                    failed.set()
                    pool.shutdown(wait=True, cancel_futures=True)
        _raise_first(futures)


def _raise_first(futures: Sequence[Future[None]]) -> None:
    errors = [e for f in futures if not f.cancelled() and (e := f.exception()) is not None]
    if errors:
        # Those that were stopped because of the first failure are not the news.
        raise next((e for e in errors if not isinstance(e, InterruptedBuildError)), errors[0])
