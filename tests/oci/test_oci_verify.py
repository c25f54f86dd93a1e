"""The verifying reader (N26): the right bytes pass, in whatever pieces; nothing else is ever called right."""

import io
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.errors import DigestMismatchError
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.verify import VerifyingReader


class Pieces(io.BytesIO):
    """Gives at most `most` bytes a read, as sockets do."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(data)
        self.most = most

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(self.most, size) if size is not None and size >= 0 else self.most)


def reader(data: bytes, digest_of: bytes, size: int | None = None, most: int = 1 << 20) -> VerifyingReader:
    described = Descriptor("x/y", Digest.of(digest_of), len(digest_of) if size is None else size)
    return VerifyingReader(cast(BinaryIO, Pieces(data, most)), described)


@given(st.binary(max_size=200), st.integers(1, 50), st.lists(st.integers(0, 40), max_size=5))
def test_the_right_bytes_pass(data: bytes, most: int, sizes: list[int]) -> None:
    stream = reader(data, data, most=most)
    got = b"".join(stream.read(size) for size in sizes) + stream.read()
    assert got == data
    assert stream.read() == b""


@given(st.binary(max_size=100), st.binary(max_size=100), st.integers(1, 50))
def test_other_bytes_never_do(data: bytes, wanted: bytes, most: int) -> None:
    if data == wanted:
        return
    stream = reader(data, wanted, most=most)
    got = b""
    with pytest.raises(DigestMismatchError):
        while piece := stream.read(7):
            got += piece
    assert len(got) <= len(wanted)


@pytest.mark.parametrize(
    ("data", "size", "words"),
    [(b"abc", 4, "ends after 3 of 4 bytes"), (b"abcd", 3, "longer than the 3 bytes"), (b"abX", 3, "does not match its digest")],
)
def test_what_is_wrong_is_said(data: bytes, size: int, words: str) -> None:
    with pytest.raises(DigestMismatchError, match=words):
        reader(data, b"abc", size).read()


def test_an_empty_blob_is_checked_too() -> None:
    with pytest.raises(DigestMismatchError, match="longer"):
        reader(b"x", b"").read()


def test_through_a_buffer_and_closed_with_it() -> None:
    inner = Pieces(b"line\nmore", 3)
    with io.BufferedReader(VerifyingReader(cast(BinaryIO, inner), Descriptor("", Digest.of(b"line\nmore"), 9))) as stream:
        assert stream.readline() == b"line\n"
        assert stream.read() == b"more"
    assert inner.closed
