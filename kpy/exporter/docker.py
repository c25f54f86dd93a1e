"""`type=docker`: an archive that `docker load` and `podman load` take (N34).

It is an OCI image layout with docker's manifest.json in it, as BuildKit and current `docker save` write it: old
dockers read manifest.json, those with the containerd image store read the layout.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from kpy.errors import ContentError, UsageError
from kpy.events import Reporter, silent, step
from kpy.exporter.archive import blob_path, destination, layout_members, write_tar
from kpy.exporter.base import Artifact, ExportResult
from kpy.oci import mediatype
from kpy.oci.image import Image
from kpy.oci.reference import Reference
from kpy.util import canonical
from kpy.util.cancel import Cancel


@dataclass(frozen=True, slots=True)
class DockerArchiveExporter:
    """Writes a docker archive to a file or a stream. On failure there is no file; an old one stays as it was."""

    dest: Path | BinaryIO
    names: tuple[Reference, ...] = ()
    report: Reporter = field(default=silent)
    cancel: Cancel | None = None

    def export(self, artifact: Artifact, /) -> ExportResult:
        """Write the archive. The format holds one platform and no attestations."""
        check_platforms(len(artifact.images))
        image = artifact.images[0]
        alone = Artifact((image,), annotations=artifact.annotations)
        members = layout_members(alone, self.names)
        members["manifest.json"] = docker_manifest(image, self.names)
        with step(self.report, "export docker", "exporting to docker image format"), destination(self.dest, self.cancel) as stream:
            write_tar(members, stream)
        paths = (self.dest,) if isinstance(self.dest, Path) else ()
        return ExportResult(alone.descriptor, tuple(str(name) for name in self.names), paths)


def check_platforms(count: int) -> None:
    """Raise UsageError if it is more than the format holds."""
    if count != 1:
        raise UsageError(f"the docker archive format holds one platform, not {count}", hint="build one platform, or use type=oci")


def docker_manifest(image: Image, names: tuple[Reference, ...]) -> bytes:
    """docker's manifest.json. Raises ContentError for layers that the format cannot hold."""
    for layer in image.manifest.layers:
        if mediatype.layer_compression(layer.media_type) == "zstd":
            # moby reads zstd from 23.0 on; 20.10 takes the blob for a broken tar.
            raise ContentError(
                f"layer {layer.digest} is compressed with zstd, which the docker archive format does not have",
                hint="use compression=gzip with force-compression=true, or type=oci",
            )
        if mediatype.is_foreign(layer.media_type):
            raise ContentError(
                f"layer {layer.digest} is not distributable: a docker archive would miss it", hint="push it instead"
            )
    found = {
        "Config": blob_path(image.manifest.config),
        "RepoTags": [name.with_tag(name.tag).familiar for name in names if name.tag],
        "Layers": [blob_path(layer) for layer in image.manifest.layers],
    }
    return canonical.dumps([found])
