"""Media types of OCI image-spec and docker distribution, and questions about them (N25)."""

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"

DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = DOCKER_LAYER + ".gzip"
DOCKER_FOREIGN_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

DOCKER_SCHEMA1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)

COSIGN_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"

INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
ACCEPT = (*INDEXES, *MANIFESTS)  # N22

MAX_MANIFEST_SIZE = 4 << 20  # the limit distribution-spec recommends to registries
MAX_CONFIG_SIZE = 8 << 20


def is_index(media_type: str) -> bool:
    """Is it an image index or a docker manifest list?"""
    return media_type in INDEXES


def is_manifest(media_type: str) -> bool:
    """Is it an image manifest?"""
    return media_type in MANIFESTS


def is_docker(media_type: str) -> bool:
    """Does it belong to the docker family? One manifest must not mix families."""
    return media_type.startswith("application/vnd.docker.")


def is_foreign(media_type: str) -> bool:
    """A layer that must not be pushed (non-distributable, L13)."""
    return ".foreign." in media_type or ".nondistributable." in media_type


def layer_compression(media_type: str) -> str:
    """`gzip`, `zstd` or `` for a layer media type."""
    if media_type.endswith(("+gzip", ".gzip")):
        return "gzip"
    if media_type.endswith("+zstd"):
        return "zstd"
    return ""


def as_oci_layer(media_type: str) -> str:
    """The OCI name of a docker layer type; others come back unchanged."""
    return {DOCKER_LAYER: OCI_LAYER, DOCKER_LAYER_GZIP: OCI_LAYER_GZIP}.get(media_type, media_type)


def as_docker_layer(media_type: str) -> str:
    """The docker name of an OCI layer type; others (zstd has none) come back unchanged."""
    return {OCI_LAYER: DOCKER_LAYER, OCI_LAYER_GZIP: DOCKER_LAYER_GZIP}.get(media_type, media_type)
