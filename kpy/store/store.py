"""The state directory: images, trees of layers, cache records, snapshots. Owns where things are and who may clean up.

    version  images/ (an OCI image layout)  trees/<diff_id>  layers/<diff_id>.json  cache/  snapshots/  tmp/  locks/

Safe to share between any number of kpy processes, and to be killed at any moment.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kpy.errors import ContentError, StoreError
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Layer
from kpy.store.layout import LayoutRepository
from kpy.util import canonical, fs
from kpy.util.cancel import Cancel
from kpy.util.checkpoint import checkpoint
from kpy.util.erase import LeftError, in_time
from kpy.util.locks import FileLock

VERSION = 1
_MAX_RECORD = 1 << 20


@dataclass(frozen=True, slots=True)
class TreeWriter:
    """The tree of a layer while it is written: what is in `stream` is kept when `commit` says of which layer it is."""

    stream: BinaryIO
    temporary: str
    trees: Path

    def commit(self, diff_id: Digest) -> None:
        """Keep it."""
        path = self.trees / diff_id.hex
        with fs.io_errors("write", path):
            self.stream.flush()
            os.rename(self.temporary, path)


class Store:
    """The state directory `directory`, made with mode 0700 if it is missing. Raises StoreError if it cannot be used.

    Whoever reads or writes content does so inside `with store.session():`; garbage collection keeps out then.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cache = directory / "cache"
        self.snapshots = directory / "snapshots"
        self.locks = directory / "locks"
        self._trees = directory / "trees"
        self._layers = directory / "layers"
        self._tmp = directory / "tmp"
        self.images = LayoutRepository(directory / "images", lock=self.locks / "index")
        with fs.io_errors("make the state directory", directory):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            for path in (self.cache, self.snapshots, self.locks, self._trees, self._layers, self._tmp):
                os.makedirs(path, mode=0o700, exist_ok=True)
        self._check_version()
        self.images.create()

    def _check_version(self) -> None:
        path = self.directory / "version"
        try:
            text = path.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            with fs.io_errors("write", path):
                fs.write_atomic(path, f"{VERSION}\n".encode())
            return
        except OSError as error:
            raise fs.store_error("read", path, error) from error
        if text != str(VERSION):
            raise StoreError(
                f"the state directory {self.directory} has format {text[:20]!r}, this kpy reads format {VERSION}",
                hint="use another state directory, or remove this one",
            )

    @contextmanager
    def session(self, *, cancel: Cancel | None = None) -> Iterator["Store"]:
        """While the block runs, no garbage is collected. Sessions do not exclude each other."""
        with FileLock(self.locks / "content", shared=True, cancel=cancel):
            yield self

    @contextmanager
    def alone(self, *, timeout: float | None = None, cancel: Cancel | None = None) -> Iterator["Store"]:
        """While the block runs, no session does. Raises StoreError if sessions do not end within `timeout` seconds."""
        with FileLock(self.locks / "content", timeout=timeout, cancel=cancel):
            yield self

    # --- trees and layers, by diff_id

    def open_tree(self, diff_id: Digest) -> BinaryIO | None:
        """The encoded tree of a layer, as it was written, or None."""
        path = self._trees / diff_id.hex
        try:
            return open(path, "rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise fs.store_error("read", path, error) from error

    @contextmanager
    def tree_writer(self) -> Iterator[TreeWriter]:
        """A place for the encoded tree of a layer; nothing is left of it when nobody commits it."""
        with ExitStack() as stack:
            with fs.io_errors("write", self._trees):
                stream, path = stack.enter_context(fs.temporary_file(self._trees))
            yield TreeWriter(stream, path, self._trees)

    def get_layers(self, diff_id: Digest) -> tuple[Descriptor, ...]:
        """The blobs that are known to hold the layer with this diff_id, here or in a registry, oldest first."""
        data = self._get(self._layers / f"{diff_id.hex}.json", _MAX_RECORD)
        try:
            items = json.loads(data) if data else []
            return tuple(Descriptor.from_json(item) for item in items) if isinstance(items, list) else ()
        except (ValueError, RecursionError, ContentError):
            return ()  # what we cannot read, we do not know

    def put_layer(self, layer: Layer) -> None:
        """Remember that this blob holds this diff_id. Tell it only of blobs that were read and found so."""
        with FileLock(self.locks / "layers"):
            known = self.get_layers(layer.diff_id)
            if any(item.digest == layer.descriptor.digest for item in known):
                return
            records = [item.to_json() for item in (*known, layer.descriptor)]
            self._put(self._layers / f"{layer.diff_id.hex}.json", canonical.dumps(records))

    def find_layer(self, diff_id: Digest) -> Layer | None:
        """A layer with this diff_id whose blob is in the store."""
        for descriptor in self.get_layers(diff_id):
            if self.images.blobs.has(descriptor):
                return Layer(descriptor, diff_id)
        return None

    def diff_ids(self) -> Iterator[Digest]:
        """Every diff_id of which the store has a tree or a layer record, sorted."""
        with fs.io_errors("read", self.directory):
            names = {*os.listdir(self._trees), *(n.removesuffix(".json") for n in os.listdir(self._layers))}
        for name in sorted(names):
            try:
                yield Digest("sha256", name)
            except ContentError:
                continue  # a temporary file

    def forget(self, diff_id: Digest) -> int:
        """Remove the tree and the record of a diff_id; says how many bytes that freed."""
        freed = 0
        for path in (self._trees / diff_id.hex, self._layers / f"{diff_id.hex}.json"):
            with fs.io_errors("remove", path):
                try:
                    size = os.stat(path).st_size
                    os.unlink(path)
                    freed += size
                except FileNotFoundError:
                    pass
        return freed

    def _get(self, path: Path, limit: int) -> bytes | None:
        try:
            with open(path, "rb") as stream:
                data = stream.read(limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise fs.store_error("read", path, error) from error
        return data if 0 < len(data) <= limit else None

    def _put(self, path: Path, data: bytes) -> None:
        with fs.io_errors("write", path):
            fs.write_atomic(path, data)

    # --- scratch space

    @contextmanager
    def temporary_directory(self) -> Iterator[Path]:
        """A new empty directory, removed with all in it when the block ends, or later if we are killed."""
        path = self._tmp / secrets.token_hex(8)
        # The lock file comes first and goes last: a directory without a held one is garbage.
        with FileLock(f"{path}.lock", transient=True):
            with fs.io_errors("write", path):
                path.mkdir(mode=0o700)
            try:
                yield path
            finally:
                with fs.io_errors("remove", path), suppress(LeftError):
                    fs.remove_tree(path, look=in_time())

    def remove_stale(self) -> None:
        """Remove what killed processes left: half-written files, scratch directories. Safe at any time."""
        self.images.remove_stale()
        for directory in (self.directory, self.cache, self._trees, self._layers):
            with fs.io_errors("clean", directory):
                fs.remove_stale(directory)
        with fs.io_errors("clean", self._tmp):
            names = {name.removesuffix(".lock") for name in os.listdir(self._tmp)}
        for name in sorted(names):
            try:
                with FileLock(self._tmp / f"{name}.lock", timeout=0, transient=True):
                    fs.remove_tree(self._tmp / name, look=checkpoint)
            except (StoreError, OSError):
                continue  # in use, or not for us to remove
