"""Where content comes from and goes to: the protocols that registry, store and fakes share."""

from collections.abc import Sequence
from typing import BinaryIO, Protocol

from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest


class BlobSource(Protocol):
    """Gives blobs."""

    def open(self, descriptor: Descriptor, /) -> BinaryIO:
        """A stream that is verified: reading past the last byte raises DigestMismatchError unless digest and
        size fit, and never gives more than `size` bytes. The media type says whether it is a manifest.

        Raises ImageNotFoundError when the source does not have it.
        """
        ...


class BlobStore(BlobSource, Protocol):
    """Gives and takes blobs."""

    def stat(self, digest: Digest, /) -> int | None:
        """The size in bytes if the blob is there, else None."""
        ...

    def put(self, stream: BinaryIO, expected: Descriptor | None = None, /) -> Descriptor:
        """Store the stream. Idempotent: returning means the content is stored, not that we stored it.

        With `expected`, content that differs raises DigestMismatchError and is not stored.
        """
        ...


class Repository(BlobStore, Protocol):
    """A remote repository or a local OCI layout: push, pull, import and export are one copy between two."""

    def resolve(self, name: str, /) -> Descriptor | None:
        """The descriptor of a tag or digest, None when there is none."""
        ...

    def put_manifest(self, raw: bytes, media_type: str, /, tag: str = "") -> Descriptor:
        """Store a manifest or index, by digest, or under the tag."""
        ...

    def referrers(self, subject: Digest, /, artifact_type: str = "") -> Sequence[Descriptor]:
        """The manifests whose subject this is (OCI distribution-spec, referrers)."""
        ...
