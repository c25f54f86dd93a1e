"""`type=local` and `type=tar`: the files of the image, without its layers and its configuration (FEATURES 3.1).

Several platforms have a directory each, such as `linux_amd64`, unless `platform-split=false` puts all into one place. With
an epoch every time is that.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, TypeAlias

from kpy.errors import ContentError, UsageError
from kpy.events import Reporter, Warned, silent, step
from kpy.exporter.archive import destination
from kpy.exporter.base import Artifact, ExportResult
from kpy.layer.entry import Entry, Kind, LayerItem
from kpy.layer.extract import ExtractOptions, place
from kpy.layer.source import FileSource
from kpy.layer.write import stream_tar
from kpy.oci.image import Image
from kpy.solver.lookup import walk
from kpy.util import fs, paths
from kpy.util.cancel import Cancel
from kpy.util.streams import pieces

Files: TypeAlias = Callable[[Image], FileSource]
SECOND = 1_000_000_000
_WEAKENED = "type=tar keeps owners and rights"


@dataclass(frozen=True, slots=True)
class Form:
    """How the files are written. `split` None: a directory for each platform if there are several. `epoch` in seconds.
    Between files `cancel` ends it."""

    files: Files
    split: bool | None = None
    epoch: int | None = None
    cancel: Cancel | None = None


@dataclass(frozen=True, slots=True)
class TarExporter:
    """Writes one tar of all files, with their owners. On failure there is no file; an old one stays as it was."""

    dest: Path | BinaryIO
    form: Form
    report: Reporter = field(default=silent)

    def export(self, artifact: Artifact, /) -> ExportResult:
        """Write it: the same files give the same bytes."""
        with step(self.report, "export tar", "exporting files as tar"), destination(self.dest, self.form.cancel) as stream:
            stream_tar(_items(artifact, self.form), lambda data: _write(stream, data))
        return ExportResult(artifact.descriptor, (), (self.dest,) if isinstance(self.dest, Path) else ())


@dataclass(frozen=True, slots=True)
class LocalExporter:
    """Writes the files into a directory, as the user that we are, over what is there; with `delete` all else that is in the
    directory goes. A directory that was not there is not there after a failure either."""

    dest: Path
    form: Form
    delete: bool = False
    report: Reporter = field(default=silent)

    def export(self, artifact: Artifact, /) -> ExportResult:
        """Write them. Nothing leaves the directory, whatever links are in it or in the image."""
        there = os.path.lexists(self.dest)
        with step(self.report, "export local", f"exporting files to {self.dest}"):
            try:
                with fs.io_errors("write", self.dest):
                    self.dest.mkdir(parents=True, exist_ok=True)
                    options = ExtractOptions(owners=False, set_ids=False, hash_files=False, placeholders=False)
                    placed = place(self._pairs(artifact), os.fspath(self.dest), options)
            except BaseException:
                if not there:
                    with suppress(OSError):
                        fs.remove_tree(self.dest)
                raise
        if placed.weakened:
            # Owners are not the image's: who the program was meant to run as is not who it would run as.
            self.report(Warned(f"{placed.weakened} files are set-uid or set-gid, have capabilities, or are devices: in {self.dest} they give no rights", _WEAKENED))
        lost = placed.lost
        if lost:
            self.report(Warned(f"{len(lost)} attributes of files could not be set, the first is {lost[0].name} of {lost[0].path}"))
        return ExportResult(artifact.descriptor, (), (self.dest,))

    def _pairs(self, artifact: Artifact) -> Iterator[tuple[Entry, "_Opened"]]:
        if self.delete:
            yield Entry("", Kind.OPAQUE), _Opened(None)
        for item in _items(artifact, self.form):
            yield item.entry, _Opened(item)


@dataclass(frozen=True, slots=True)
class _Opened:
    """See layer.extract.FileContent."""

    item: LayerItem | None

    def chunks(self) -> Iterator[bytes]:
        if self.item is not None and self.item.open is not None:
            with self.item.open() as stream:
                yield from pieces(stream)


def check_deletion(dest: str, needed: Iterable[str]) -> None:
    """`mode=delete` empties `dest`: raise UsageError if one of the paths that are needed is it, or is in it."""
    top = os.path.realpath(dest).rstrip("/") + "/"
    for path in needed:
        if (os.path.realpath(path) + "/").startswith(top):
            raise UsageError(
                f"--output type=local,mode=delete would delete {path}", hint="name a directory that holds the result and nothing else"
            )


def _write(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)


def _items(artifact: Artifact, form: Form) -> Iterator[LayerItem]:
    several = len(artifact.images) > 1
    split = several if form.split is None else form.split
    known: dict[str, tuple[str, Kind]] = {}  # which platform a path is of, and what it is there, where they share a place
    for image in artifact.images:
        platform = str(image.config.platform)
        top = platform.replace("/", "_") if split else ""
        if top:
            yield LayerItem(Entry(top, Kind.DIR, 0o755, mtime=(form.epoch or 0) * SECOND))
        for item in _files_of(form.files(image), top, form.epoch):
            if form.cancel is not None:
                form.cancel.check()
            if several and not split:
                kind = item.entry.kind
                other, there = known.setdefault(item.entry.path, (platform, kind))
                if other != platform and (kind, there) != (Kind.DIR, Kind.DIR):
                    raise ContentError(
                        f"cannot write {item.entry.path} of {platform}: that of {other} has its place", hint="leave out platform-split=false"
                    )
            yield item


def _files_of(source: FileSource, top: str, epoch: int | None) -> Iterator[LayerItem]:
    """Everything in a tree, below `top`; names of one file are hard links."""
    first: dict[object, str] = {}
    with source.reading([entry for entry in walk(source, "") if entry.kind is Kind.FILE and entry.size]) as opener:
        for entry in walk(source, ""):
            written = replace(entry, path=paths.join(top, entry.path), mtime=entry.mtime if epoch is None else epoch * SECOND)
            same = source.link_id(entry) if entry.kind is Kind.FILE else None
            if same is not None and same in first:
                yield LayerItem(replace(written, kind=Kind.HARDLINK, link=first[same], size=0, sha256=""))
                continue
            if same is not None:
                first[same] = written.path
            if entry.kind is Kind.FILE and entry.size:
                yield LayerItem(written, lambda entry=entry: opener(entry), alone=same is None)  # type: ignore[misc]
            else:
                yield LayerItem(written, alone=same is None)

