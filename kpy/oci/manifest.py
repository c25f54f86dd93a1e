"""Manifests and indexes (OCI image-spec, manifest.md and image-index.md). Raw bytes are kept, never re-encoded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kpy.errors import ContentError
from kpy.oci import mediatype
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.util import canonical


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image (or artifact). `digest` is that of `raw`, whatever the fields say."""

    raw: bytes = field(repr=False)
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of this manifest (no platform)."""
        return Descriptor(self.media_type, Digest.of(self.raw), len(self.raw))


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests, usually one for each platform."""

    raw: bytes = field(repr=False)
    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of this index."""
        return Descriptor(self.media_type, Digest.of(self.raw), len(self.raw))


ManifestOrIndex: TypeAlias = Manifest | Index


def parse(raw: bytes, media_type: str = "") -> ManifestOrIndex:
    """Read a manifest or an index. `media_type`, from a descriptor or header, must agree with the content.

    Raises ContentError, also for docker schema 1 (N22), which has no content-addressed layers.
    """
    if len(raw) > mediatype.MAX_MANIFEST_SIZE:
        raise ContentError(f"the manifest is larger than {mediatype.MAX_MANIFEST_SIZE >> 20} MiB")
    try:
        data = canonical.loads(raw)
    except ValueError as error:
        raise ContentError(f"the manifest is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ContentError("the manifest is not a JSON object")
    media_type = media_type.partition(";")[0].strip()
    inner = str(data.get("mediaType") or "")
    if media_type in mediatype.DOCKER_SCHEMA1 or data.get("schemaVersion") == 1:
        raise ContentError(
            "the image has a docker schema 1 manifest, which is not supported",
            hint="push the image again with a current tool",
        )
    known = media_type in mediatype.ACCEPT
    if known and inner and inner != media_type:
        raise ContentError(f"the manifest says it is {inner}, but was served as {media_type}")
    kind = media_type if known else inner
    if "manifests" in data and ("layers" in data or "config" in data):
        raise ContentError("the manifest is both an image and an index")  # GHSA-mc8v-mgrf-8f4m
    if not kind:
        kind = mediatype.OCI_INDEX if "manifests" in data else mediatype.OCI_MANIFEST
    annotations = _annotations(data)
    subject = Descriptor.from_json(data["subject"]) if data.get("subject") else None
    if mediatype.is_index(kind):
        return Index(raw, kind, _descriptors(data, "manifests"), subject, annotations)
    if mediatype.is_manifest(kind):
        if "config" not in data:
            raise ContentError("the manifest has no config")
        config = Descriptor.from_json(data["config"])
        return Manifest(
            raw, kind, config, _descriptors(data, "layers"), subject, annotations, str(data.get("artifactType") or "")
        )
    raise ContentError(f"{kind!r} is neither an image manifest nor an index")


def _descriptors(data: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
    items = data.get(key)
    if items is None:
        items = []  # BuildKit writes null when there is none
    if not isinstance(items, list):
        raise ContentError(f"the manifest's {key} is not a list")
    return tuple(Descriptor.from_json(item) for item in items)


def _annotations(data: dict[str, Any]) -> dict[str, str]:
    found = data.get("annotations") or {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def build_manifest(
    config: Descriptor,
    layers: Sequence[Descriptor],
    *,
    media_type: str = mediatype.OCI_MANIFEST,
    annotations: Mapping[str, str] | None = None,
    subject: Descriptor | None = None,
    artifact_type: str = "",
) -> Manifest:
    """Encode a manifest. The layers' media types must already be of the manifest's family."""
    data: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
    if artifact_type:
        data["artifactType"] = artifact_type
    data["config"] = config.to_json()
    data["layers"] = [layer.to_json() for layer in layers]
    if subject:
        data["subject"] = subject.to_json()
    if annotations:
        data["annotations"] = dict(sorted(annotations.items()))
    raw = canonical.dumps(data)
    return Manifest(raw, media_type, config, tuple(layers), subject, dict(annotations or {}), artifact_type)


def build_index(
    manifests: Sequence[Descriptor],
    *,
    media_type: str = mediatype.OCI_INDEX,
    annotations: Mapping[str, str] | None = None,
) -> Index:
    """Encode an index."""
    data: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [item.to_json() for item in manifests],
    }
    if annotations:
        data["annotations"] = dict(sorted(annotations.items()))
    return Index(canonical.dumps(data), media_type, tuple(manifests), None, dict(annotations or {}))
