"""Images and indexes to put into the fake registry."""

import json

from kpy.oci import mediatype
from tests.registry_server import RegistryServer, digest_of


def add_image(
    server: RegistryServer, name: str, tag: str = "", *, arch: str = "amd64", variant: str = "", layers: int = 1,
    docker: bool = False, **extra,
) -> dict:  # fmt: skip
    """Put an image into the registry; gives its descriptor as JSON."""
    blobs = [f"layer {number} of {name} for {arch}{variant}".encode() for number in range(layers)]
    config = {
        "os": "linux", "architecture": arch, "config": {"Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(blob) for blob in blobs]}, **extra,
    }  # fmt: skip
    if variant:
        config["variant"] = variant
    raw = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.DOCKER_MANIFEST if docker else mediatype.OCI_MANIFEST,
        "config": {
            "mediaType": mediatype.DOCKER_CONFIG if docker else mediatype.OCI_CONFIG,
            "digest": server.add_blob(name, raw), "size": len(raw),
        },
        "layers": [
            {"mediaType": mediatype.DOCKER_LAYER_GZIP if docker else mediatype.OCI_LAYER_GZIP,
             "digest": server.add_blob(name, blob), "size": len(blob)} for blob in blobs
        ],
    }  # fmt: skip
    digest = server.add_manifest(name, manifest, manifest["mediaType"], tag)
    platform = {"os": "linux", "architecture": arch, **({"variant": variant} if variant else {})}
    return {
        "mediaType": manifest["mediaType"], "digest": digest, "size": len(json.dumps(manifest).encode()), "platform": platform
    }  # fmt: skip


def add_index(server: RegistryServer, name: str, tag: str, entries: list[dict], media_type: str = mediatype.OCI_INDEX) -> str:
    return server.add_manifest(name, {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}, media_type, tag)
