"""`import` and `images`: what is in the local store, and how a root file system gets there."""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import BinaryIO, cast

from kpy.app.options import Environment, StoredImage
from kpy.app.world import open_store
from kpy.errors import ContentError, ContextError
from kpy.events import Reporter, StepProgress, step
from kpy.layer.compress import Compression, Compressor
from kpy.layer.decompress import decompressor
from kpy.layer.index import index_layer
from kpy.oci import manifest, mediatype
from kpy.oci import platform as platforms
from kpy.oci.config import DEFAULT_PATH, History, ImageConfig, RuntimeConfig
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Layer
from kpy.oci.platform import Platform
from kpy.oci.reference import Reference
from kpy.util import fs, waiting
from kpy.util.cancel import Cancel
from kpy.util.streams import HashingReader, TeeReader, drain


def import_image(
    source: str, reference: Reference, platform: Platform | None, environment: Environment, report: Reporter, cancel: Cancel
) -> Digest:
    """Store the tar (`-`: standard input; plain or compressed) of a root file system as an image of one layer.

    Gives the digest of its manifest. Raises ContextError when it cannot be read, ContentError when it is no tar.
    """
    store = open_store(environment)
    with store.session(cancel=cancel), _open(source, environment) as raw:
        size = 0 if source == "-" else os.fstat(raw.fileno()).st_size
        done = 0

        def count(length: int) -> None:
            nonlocal done
            cancel.check()
            done += length
            report(StepProgress("import", os.path.basename(source), done, size))

        with (
            step(report, "import", f"importing {source} as {reference.familiar}"),
            store.images.writer() as writer,
            store.tree_writer() as tree,
        ):

            def write(data: bytes) -> None:
                writer.write(data)

            counted = cast(BinaryIO, TeeReader(raw, lambda _: None, count))
            with decompressor(counted) as plain, Compressor(Compression(), write, threads=2) as compressor:
                hasher = HashingReader(plain, hashlib.sha256())
                tar = cast(BinaryIO, TeeReader(cast(BinaryIO, hasher), compressor.write, lambda _: None))
                found_any = index_layer(tar, tree.stream) > 0
                drain(hasher)
            if not found_any:
                raise ContentError(f"{source} holds no files: is it a tar of a root file system?")
            descriptor = writer.commit(mediatype.OCI_LAYER_GZIP)
            layer = Layer(descriptor, Digest("sha256", hasher.hexdigest()))
            tree.commit(layer.diff_id)
            store.put_layer(layer)
            config = ImageConfig(
                platform=platform or platforms.host(),
                runtime=RuntimeConfig(env=(f"PATH={DEFAULT_PATH}",)),
                diff_ids=(layer.diff_id,),
                history=(History(created_by=f"kpy import {os.path.basename(source)}"),),
            )
            encoded = config.encode()
            config_descriptor = store.images.blobs.put_bytes(encoded, mediatype.OCI_CONFIG)
            made = manifest.build_manifest(config_descriptor, [descriptor])
            found = store.images.put_manifest(made.raw, made.media_type)
            store.images.tag(Descriptor(made.media_type, found.digest, found.size, config.platform), str(reference))
            return found.digest


def _open(source: str, environment: Environment) -> BinaryIO:
    if source == "-":
        return waiting.source(cast(BinaryIO, os.fdopen(os.dup(environment.stdin.fileno()), "rb", buffering=0)))
    try:
        return waiting.source(open(os.path.join(environment.directory, source), "rb"))
    except OSError as error:
        raise ContextError(f"cannot read {source}: {fs.reason(error)}") from error


def list_images(environment: Environment) -> Sequence[StoredImage]:
    """Every name in the local store, in the order in which they were given."""
    store = open_store(environment)
    images = store.images
    found = []
    for name, descriptor in images.named():
        if name:
            sizes: dict[Digest, int] = {}
            names = _platforms(images.open(descriptor).read(), descriptor, images.open, sizes)
            found.append(StoredImage(name, descriptor.digest, sum(sizes.values()), tuple(names)))
    return found


def _platforms(raw: bytes, descriptor: Descriptor, opener: Callable[[Descriptor], BinaryIO], sizes: dict[Digest, int]) -> list[Platform]:
    parsed = manifest.parse(raw, descriptor.media_type)
    if isinstance(parsed, manifest.Manifest):
        sizes |= {layer.digest: layer.size for layer in parsed.layers}
        return [descriptor.platform] if descriptor.platform else []
    found = []
    for item in parsed.manifests:
        found += _platforms(opener(item).read(), item, opener, sizes)
    return found
