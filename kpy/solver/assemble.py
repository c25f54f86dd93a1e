"""A chain and a configuration to an image. The same input gives the same bytes: no clock is read.

`created` is SOURCE_DATE_EPOCH, or else the newest time in what this build added (A16, L07): it follows from the
layers, so that a build from cache gives the digest of the build before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from kpy.errors import ContentError
from kpy.events import Warned
from kpy.oci import mediatype
from kpy.oci.config import History, ImageConfig
from kpy.oci.content import BlobSource
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Image
from kpy.oci.manifest import build_manifest
from kpy.plan.model import Target
from kpy.solver.values import ChainValue

SECOND = 1_000_000_000
MOST_LAYERS = 127  # the limit of docker's overlay2


@dataclass(frozen=True, slots=True)
class Format:
    """OCI or docker media types, and annotations of the manifest."""

    docker: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)


def too_deep(layers: int) -> Warned | None:
    """What to tell the user of an image with so many layers, if anything (L12)."""
    if layers <= MOST_LAYERS:
        return None
    return Warned(
        f"the image has {layers} layers; docker runs images of at most {MOST_LAYERS}",
        "join RUN instructions, or COPY the result of this stage into a new one",
    )


def rfc3339(seconds: int) -> str:
    """A time as configurations have it."""
    return datetime.fromtimestamp(max(0, min(seconds, 253402300799)), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def normalised_history(base: ImageConfig, layers: int) -> tuple[History, ...]:
    """The base's history with as many layers as the base has: missing entries are added, too many marked empty (L06)."""
    history = list(base.history)
    have = sum(not item.empty_layer for item in history)
    if have < layers:
        history = [History(created=base.created) for _ in range(layers - have)] + history if history else [
            History(created=base.created) for _ in range(layers)
        ]
    for position in range(len(history) - 1, -1, -1):
        if have <= layers:
            break
        if not history[position].empty_layer:
            history[position] = replace(history[position], empty_layer=True)
            have -= 1
    return tuple(history)


def assemble(
    target: Target, value: ChainValue, content: BlobSource, *, newest: int, epoch: int | None, form: Format
) -> tuple[Image, bytes]:
    """The image of a target and the bytes of its configuration. `newest` is in seconds. Raises ContentError."""
    created = rfc3339(newest if epoch is None else epoch)
    base = target.base
    history = [replace(item, created=created) for item in target.history]
    built = len(value.chain) - value.base
    if sum(not item.empty_layer for item in history) != built:
        raise ContentError("internal error: the history does not fit the layers")
    config = ImageConfig(
        platform=target.platform,
        runtime=target.runtime,
        diff_ids=tuple(layer.diff_id for layer in value.chain),
        history=(*normalised_history(base, value.base), *history),
        created=created,
        author=target.author,
        extra=base.extra,
    )
    raw = config.encode()
    docker = form.docker
    media_type = mediatype.DOCKER_CONFIG if docker else mediatype.OCI_CONFIG
    manifest = build_manifest(
        Descriptor(media_type, Digest.of(raw), len(raw)),
        _descriptors([layer.descriptor for layer in value.chain], docker=docker),
        media_type=mediatype.DOCKER_MANIFEST if docker else mediatype.OCI_MANIFEST,
        annotations=form.annotations,
    )
    return Image(manifest, config, value.chain, content), raw


def _descriptors(layers: Sequence[Descriptor], *, docker: bool) -> list[Descriptor]:
    """The layers with media types of one family (N25)."""
    change = mediatype.as_docker_layer if docker else mediatype.as_oci_layer
    found = []
    for layer in layers:
        media_type = change(layer.media_type)
        if docker and not mediatype.is_docker(media_type) and not mediatype.is_foreign(media_type):
            raise ContentError(f"the docker format has no layers of type {layer.media_type}", hint="use OCI media types")
        found.append(Descriptor(media_type, layer.digest, layer.size, urls=layer.urls))
    return found
