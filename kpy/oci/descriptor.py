"""Descriptors (OCI image-spec, descriptor.md): what a blob is, and how to know that one has it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kpy.errors import ContentError
from kpy.oci.digest import Digest
from kpy.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Media type, digest and size (bytes) of a blob, with what an index may add."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""
    urls: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The JSON object, in the specification's order."""
        found: dict[str, Any] = {"mediaType": self.media_type}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        found |= {"digest": str(self.digest), "size": self.size}
        if self.urls:
            found["urls"] = list(self.urls)
        if self.annotations:
            found["annotations"] = dict(sorted(self.annotations.items()))
        if self.platform:
            found["platform"] = platform_to_json(self.platform)
        return found

    @staticmethod
    def from_json(data: Any) -> "Descriptor":
        """Read a JSON object of a hostile registry. Raises ContentError."""
        if not isinstance(data, dict):
            raise ContentError("invalid descriptor: not an object")
        size = data.get("size")
        digest = data.get("digest")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0 or not isinstance(digest, str):
            raise ContentError("invalid descriptor: it has no proper digest and size")
        annotations = data.get("annotations") or {}
        urls = data.get("urls") or ()
        return Descriptor(
            media_type=str(data.get("mediaType") or ""),
            digest=Digest.parse(digest),
            size=size,
            platform=platform_from_json(data.get("platform")),
            annotations={str(k): str(v) for k, v in annotations.items()} if isinstance(annotations, dict) else {},
            artifact_type=str(data.get("artifactType") or ""),
            urls=tuple(str(url) for url in urls) if isinstance(urls, list) else (),
        )


def platform_to_json(platform: Platform) -> dict[str, Any]:
    """The platform object of an index entry."""
    found = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        found["os.version"] = platform.os_version
    if platform.variant:
        found["variant"] = platform.variant
    return found


def platform_from_json(data: Any) -> Platform | None:
    """Read the platform object of an index entry; None when there is none that says something."""
    if not isinstance(data, dict) or not (data.get("os") or data.get("architecture")):
        return None
    return Platform.normalised(
        str(data.get("os") or "linux"),
        str(data.get("architecture") or ""),
        str(data.get("variant") or ""),
        str(data.get("os.version") or ""),
    )
