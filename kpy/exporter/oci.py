"""`type=oci`: an OCI image layout, in a tar archive or as a directory (N34).

Writes manifests as they are. Those with docker's media types belong into no layout, and skopeo finds none there:
`convert.to_oci` comes before.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from kpy.events import Reporter, silent, step
from kpy.exporter.archive import destination, layout_members, unlisted, write_tar
from kpy.exporter.base import Artifact, ExportResult, all_blobs, all_manifests
from kpy.oci.reference import Reference
from kpy.store.layout import LayoutRepository
from kpy.util import fs
from kpy.util.cancel import Cancel


@dataclass(frozen=True, slots=True)
class OciArchiveExporter:
    """Writes a tar archive to a file or a stream. On failure there is no file; an old one stays as it was."""

    dest: Path | BinaryIO
    names: tuple[Reference, ...] = ()
    report: Reporter = field(default=silent)
    cancel: Cancel | None = None

    def export(self, artifact: Artifact, /) -> ExportResult:
        """Write the archive: the same artifact and names give the same bytes."""
        with step(self.report, "export oci", "exporting to oci image format"), destination(self.dest, self.cancel) as stream:
            write_tar(layout_members(artifact, self.names), stream)
        paths = (self.dest,) if isinstance(self.dest, Path) else ()
        return ExportResult(artifact.descriptor, tuple(str(name) for name in self.names), paths)


@dataclass(frozen=True, slots=True)
class OciLayoutExporter:
    """Adds to an image layout in a directory, making it if there is none. Names move last."""

    dest: Path
    names: tuple[Reference, ...] = ()
    report: Reporter = field(default=silent)

    def export(self, artifact: Artifact, /) -> ExportResult:
        """Copy the artifact into the layout."""
        layout = LayoutRepository(self.dest)
        layout.remove_stale()
        with step(self.report, "export oci", "exporting to oci image layout"), _nothing_half(self.dest):
            for descriptor, source in all_blobs(artifact).values():
                if not layout.blobs.has(descriptor):
                    with source.open(descriptor) as stream:
                        layout.put(stream, descriptor)
            for item in all_manifests(artifact):
                layout.put_manifest(item.raw, item.media_type)
            for attachment in unlisted(artifact):
                layout.list_untagged(attachment)
            for name in self.names:
                layout.tag(artifact.descriptor, str(name))
            if not self.names:
                layout.list_untagged(artifact.descriptor)
        return ExportResult(artifact.descriptor, tuple(str(name) for name in self.names), (self.dest,))


@contextmanager
def _nothing_half(dest: Path) -> Iterator[None]:
    """A directory that was not there is not there either when the block fails."""
    there = os.path.lexists(dest)
    try:
        yield
    except BaseException:
        if not there:
            with suppress(OSError):
                fs.remove_tree(dest)
        raise
