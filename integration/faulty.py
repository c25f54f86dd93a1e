"""Images and registries that are wrong in one way each: the in-process registry of tests/ with scripted faults."""

import gzip
import hashlib
import io
import json
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.registry_server import Corrupt, Cut, Delay, RegistryServer, Status  # noqa: E402

__all__ = ["Corrupt", "Cut", "Delay", "RegistryServer", "Served", "Status", "serve", "sha256", "tar_of"]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
INDEX = "application/vnd.oci.image.index.v1+json"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass(frozen=True)
class Served:
    """An image in a RegistryServer."""

    name: str
    layer: str
    manifest: str


def serve(
    server: RegistryServer, *, layer: bytes = b"", diff_id: str = "", architecture: str = "amd64", index: bool = False
) -> Served:
    """An image of one layer, as `app:1`. `layer` is the tar, or what stands in its place."""
    plain = layer or tar_of({"etc/hello": b"hello\n"})
    blob = gzip.compress(plain, 1)
    digest = server.add_blob("app", blob)
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id or sha256(plain)]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": server.add_blob("app", config), "size": len(config)},
        "layers": [{"mediaType": LAYER, "digest": digest, "size": len(blob)}],
    }
    raw = json.dumps(manifest).encode()
    found = server.add_manifest("app", raw, MANIFEST, "" if index else "1")
    if index:
        entry = {
            "mediaType": MANIFEST,
            "digest": found,
            "size": len(raw),
            "platform": {"os": "linux", "architecture": architecture},
        }
        server.add_manifest("app", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, INDEX, "1")
    return Served(f"{server.host}/app:1", digest, found)
