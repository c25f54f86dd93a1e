"""From a reference to one image: through an index, for a platform, with its configuration (N22-N25).

Works on any `Repository`. Fetches manifests and the config, never layers.
"""

from dataclasses import dataclass, field

from kpy.errors import ContentError, ImageNotFoundError
from kpy.oci import config as configs
from kpy.oci import manifest as manifests
from kpy.oci import mediatype
from kpy.oci import platform as platforms
from kpy.oci.config import ImageConfig
from kpy.oci.content import Repository
from kpy.oci.descriptor import Descriptor
from kpy.oci.manifest import Index, Manifest
from kpy.oci.platform import Platform
from kpy.oci.reference import Reference
from kpy.registry.repository import RemoteRepository

REFERENCE_TYPE = "vnd.docker.reference.type"  # BuildKit: attestation manifests in an index carry it
_CONFIG_TYPES = (mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG, "application/octet-stream", "")
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image, pinned. `reference` holds the digest of what its name means: the index, if there is one.

    `fits` is false when the image is a single one, for another platform: then warn (N24).
    """

    reference: Reference
    index: Descriptor | None
    manifest: Manifest
    config: ImageConfig
    config_raw: bytes = field(repr=False)
    platform: Platform
    fits: bool = True


def resolve_image(repository: Repository, reference: Reference, platform: Platform) -> ResolvedImage:
    """The image that the reference means on the platform.

    Raises ImageNotFoundError, naming the reference, when it or the platform is not there, and ContentError
    for what is no image.
    """
    top = repository.resolve(reference.name)
    if top is None:
        if isinstance(repository, RemoteRepository):
            missing = repository.not_found(reference.name)
            raise ImageNotFoundError(
                f"{reference.familiar}: not found", method=missing.method, url=missing.url,
                status=missing.status, code=missing.code, hint=missing.hint,
            )  # fmt: skip
        raise ImageNotFoundError(f"{reference.familiar}: not found")
    found, through_index = _follow(repository, reference, top, platform)
    if found.config.media_type not in _CONFIG_TYPES:
        raise ContentError(f"{reference.familiar} is not an image but an artifact of type {found.config.media_type}")
    raw = fetch_small(repository, found.config, mediatype.MAX_CONFIG_SIZE, f"the configuration of {reference.familiar}")
    config = configs.parse(raw)
    if len(config.diff_ids) != len(found.layers):
        raise ContentError(
            f"{reference.familiar} has {len(found.layers)} layers, but its configuration lists {len(config.diff_ids)}"
        )
    return ResolvedImage(
        reference=reference.at(top.digest),
        index=top if through_index else None,
        manifest=found,
        config=config,
        config_raw=raw,
        platform=config.platform,
        fits=through_index or not config.platform.architecture or platforms.matches(platform, config.platform),
    )


def fetch_manifest(repository: Repository, descriptor: Descriptor, what: str) -> manifests.ManifestOrIndex:
    """Fetch and read a manifest or index. It is verified against the descriptor."""
    raw = fetch_small(repository, descriptor, mediatype.MAX_MANIFEST_SIZE, what)
    return manifests.parse(raw, descriptor.media_type)


def fetch_small(repository: Repository, descriptor: Descriptor, limit: int, what: str) -> bytes:
    """Fetch what has to fit into memory, verified; ContentError when its descriptor says more than `limit`."""
    if descriptor.size > limit:
        raise ContentError(f"{what} is larger than {limit >> 20} MiB")
    with repository.open(descriptor) as stream:
        return stream.read()


def _follow(
    repository: Repository, reference: Reference, descriptor: Descriptor, platform: Platform
) -> tuple[Manifest, bool]:
    through_index = False
    for _ in range(_DEEPEST):
        found = fetch_manifest(repository, descriptor, f"the manifest of {reference.familiar}")
        if isinstance(found, Manifest):
            return found, through_index
        through_index = True
        descriptor = choose(found, platform, reference)
    raise ContentError(f"{reference.familiar}: indexes within indexes, more than {_DEEPEST} deep")


def images_of(index: Index) -> list[Descriptor]:
    """The entries of an index that are images: no attestations, nothing for unknown platforms (N23)."""
    return [
        item
        for item in index.manifests
        if item.media_type in mediatype.ACCEPT
        and REFERENCE_TYPE not in item.annotations
        and not (item.platform and "unknown" in (item.platform.os, item.platform.architecture))
    ]


def choose(index: Index, platform: Platform, reference: Reference) -> Descriptor:
    """The entry for the platform. Raises ImageNotFoundError that lists those offered."""
    offered = images_of(index)
    position = platforms.best_match(platform, [item.platform for item in offered])
    if position is not None:
        return offered[position]
    names = sorted({str(item.platform) for item in offered if item.platform})
    hint = f"it has {', '.join(names[:20])}{', …' if len(names) > 20 else ''}" if names else "its index is empty"
    raise ImageNotFoundError(f"{reference.familiar}: no image for {platform}", code="PLATFORM_UNKNOWN", hint=hint)
