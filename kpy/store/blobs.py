"""Blobs as files named by their digest. A file that has its name is whole; nothing else ever gets one.

Blobs are not synced to the disk: after a power loss one may be short. Sizes are compared whenever a blob is looked
at, and digests whenever it is read, so that such a file is noticed. The next `put` replaces one of a wrong size;
`remove_broken` makes room for one of a wrong content.
"""

import io
import os
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from kpy.errors import BlobNotFoundError, ContentError, DigestMismatchError, StoreError
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.verify import VerifyingReader
from kpy.util import fs
from kpy.util.streams import drain, pieces

OCTETS = "application/octet-stream"


class BlobWriter(io.RawIOBase):
    """Takes the bytes of one blob, hashing them; `commit()` gives the blob its name. Without it, nothing remains."""

    def __init__(self, stream: BinaryIO, temporary: str, blobs: "BlobDirectory", expected: Descriptor | None) -> None:
        super().__init__()
        self._stream = stream
        self._temporary = temporary
        self._blobs = blobs
        self._expected = expected
        self._algorithm = expected.digest.algorithm if expected else "sha256"
        self._hasher = Digest.of(b"").hasher() if expected is None else expected.digest.hasher()
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        """Take all of `data`. Raises StoreError when the disk does not."""
        try:
            self._stream.write(data)
        except OSError as error:
            raise self._blobs.problem("write a blob in", error) from error
        self._hasher.update(data)
        self._size += len(data)
        if self._expected and self._size > self._expected.size:
            raise DigestMismatchError(
                f"blob {self._expected.digest} is longer than the {self._expected.size} bytes its descriptor says"
            )
        return len(data)

    def commit(self, media_type: str = OCTETS) -> Descriptor:
        """Keep the blob; call it once, after the last write. Raises DigestMismatchError if it is not what was expected."""
        digest = Digest(self._algorithm, self._hasher.hexdigest())
        expected = self._expected
        if expected and (expected.digest, expected.size) != (digest, self._size):
            raise DigestMismatchError(
                f"blob {expected.digest} of {expected.size} bytes does not match its digest: "
                f"the content has {digest} and {self._size} bytes"
            )
        try:
            self._stream.flush()
            if self._blobs.stat(digest) != self._size:
                os.rename(self._temporary, self._blobs.path(digest))
        except OSError as error:
            raise self._blobs.problem("write a blob in", error) from error
        return expected or Descriptor(media_type, digest, self._size)


class BlobDirectory:
    """A BlobStore over `<directory>/<algorithm>/<hex>`. Any number of processes and threads may use it at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._opened: dict[Digest, Descriptor] = {}

    def path(self, digest: Digest) -> str:
        """Where the blob is, or would be."""
        return os.path.join(self.directory, digest.algorithm, digest.hex)

    def problem(self, action: str, error: OSError) -> StoreError:
        """The StoreError for an OSError in this directory."""
        return fs.store_error(action, self.directory, error)

    def stat(self, digest: Digest, /) -> int | None:
        """The size in bytes if the blob is there, else None."""
        try:
            found = os.stat(self.path(digest))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self.problem("read", error) from error
        return found.st_size if modes.S_ISREG(found.st_mode) else None

    def has(self, descriptor: Descriptor) -> bool:
        """Is the blob there, with the size that the descriptor says?"""
        return self.stat(descriptor.digest) == descriptor.size

    def open(self, descriptor: Descriptor, /) -> BinaryIO:
        """A verified stream of the blob."""
        path = self.path(descriptor.digest)
        try:
            # A fifo in a layout that somebody gave us must not block.
            number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BlobNotFoundError(f"blob {descriptor.digest} is not in {self.directory}", str(descriptor.digest)) from error
        except OSError as error:
            raise fs.store_error("read", path, error) from error
        found = os.fstat(number)
        if not modes.S_ISREG(found.st_mode) or found.st_size != descriptor.size:
            os.close(number)
            if not modes.S_ISREG(found.st_mode):
                raise ContentError(f"blob {path} is not a regular file")
            raise DigestMismatchError(
                f"blob {path} has {found.st_size} bytes, not the {descriptor.size} its descriptor says",
                hint="the file is broken: remove it, and build or pull again",
            )
        self._opened[descriptor.digest] = descriptor
        stream = os.fdopen(number, "rb", buffering=0)
        return cast("BinaryIO", VerifyingReader(cast("BinaryIO", stream), descriptor, what=f"blob {path}"))

    def remove_broken(self) -> tuple[Descriptor, ...]:
        """Remove those blobs that were opened here, since the last call, and are not what their names say; which they were.

        For when something could not be read: of a broken blob, that rarely says more than that it is no gzip.
        """
        opened, self._opened = self._opened, {}
        return tuple(descriptor for descriptor in opened.values() if self._remove_if_broken(descriptor))

    def _remove_if_broken(self, descriptor: Descriptor) -> bool:
        path = self.path(descriptor.digest)
        try:
            with open(path, "rb", buffering=0) as stream:
                read = os.fstat(stream.fileno())
                try:
                    drain(VerifyingReader(cast("BinaryIO", stream), descriptor))
                    return False
                except DigestMismatchError:
                    now = os.stat(path)
                    if (now.st_dev, now.st_ino) == (read.st_dev, read.st_ino):  # else another build was faster
                        os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise fs.store_error("repair", path, error) from error
        return True

    @contextmanager
    def writer(self, expected: Descriptor | None = None) -> Iterator[BlobWriter]:
        """A writer for one blob. What was not committed when the block ends is gone, also when we are killed."""
        directory = os.path.join(self.directory, expected.digest.algorithm if expected else "sha256")
        try:
            os.makedirs(directory, exist_ok=True)
            temporary = fs.temporary_file(directory, mode=0o644)
            stream, path = temporary.__enter__()
        except OSError as error:
            raise self.problem("write a blob in", error) from error
        try:
            with BlobWriter(stream, path, self, expected) as found:
                yield found
        finally:
            temporary.__exit__(None, None, None)

    def put(self, stream: BinaryIO, expected: Descriptor | None = None, /) -> Descriptor:
        """Store the stream; with `expected`, one that is there already is not read."""
        if expected and self.has(expected):
            return expected
        with self.writer(expected) as found:
            for data in pieces(stream):
                found.write(data)
            return found.commit()

    def put_bytes(self, data: bytes, media_type: str = OCTETS) -> Descriptor:
        """Store a small blob."""
        return self.put(io.BytesIO(data), Descriptor(media_type, Digest.of(data), len(data)))

    def delete(self, digest: Digest) -> int:
        """Remove a blob; says how many bytes that freed. It is no error if it is not there."""
        size = self.stat(digest) or 0
        with fs.io_errors("remove", self.path(digest)):
            try:
                os.unlink(self.path(digest))
            except FileNotFoundError:
                return 0
        return size

    def digests(self) -> Iterator[tuple[Digest, int]]:
        """Every blob and its size, sorted."""
        for algorithm in ("sha256", "sha512"):
            with fs.io_errors("read", self.directory):
                try:
                    names = sorted(os.listdir(self.directory / algorithm))
                except FileNotFoundError:
                    continue
            for name in names:
                try:
                    digest = Digest(algorithm, name)
                except ContentError:
                    continue  # a temporary file, or not ours
                size = self.stat(digest)
                if size is not None:
                    yield digest, size

    def remove_stale(self) -> None:
        """Remove what killed processes left half-written."""
        for algorithm in ("sha256", "sha512"):
            try:
                fs.remove_stale(self.directory / algorithm)
            except OSError:
                pass  # nothing there, or not for us to clean
