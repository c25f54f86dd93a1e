"""Compression: reproducible whatever the threads (L11), read by others; decompression of hostile streams."""

import bz2
import gzip
import io
import lzma
import random
import subprocess
import threading

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kpy.errors import ContentError, UsageError
from kpy.layer.compress import Compression, Compressor
from kpy.layer.decompress import decompressor

DATA = random.Random(1).randbytes(300_000) + b"text and more text\n" * 200_000 + bytes(2 << 20)


def compress(data, compression, *, threads=2, chunk=1 << 18):
    out = io.BytesIO()
    with Compressor(compression, out.write, threads=threads) as compressor:
        for start in range(0, len(data), chunk):
            compressor.write(data[start : start + chunk])
    return out.getvalue()


def expand(data, **more):
    with decompressor(io.BytesIO(data), **more) as stream:
        return stream.read()


@pytest.mark.parametrize("level", [None, 0, 1, 2, 3, 6, 9])
def test_gzip_is_the_same_for_all_threads_and_read_by_all(level):
    packed = compress(DATA, Compression("gzip", level), threads=1)
    assert packed == compress(DATA, Compression("gzip", level), threads=4, chunk=777_777)
    assert packed[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    assert gzip.decompress(packed) == DATA
    assert subprocess.run(["gzip", "-dc"], input=packed, capture_output=True, check=True).stdout == DATA
    assert expand(packed) == DATA


@pytest.mark.parametrize("level", [None, 1, 9])
def test_zstd_is_the_same_for_all_threads(level):
    packed = compress(DATA, Compression("zstd", level), threads=1)
    assert packed == compress(DATA, Compression("zstd", level), threads=3, chunk=777_777)
    assert expand(packed) == DATA
    assert subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout == DATA


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("data", [b"", b"x"])
def test_tiny(kind, data):
    assert expand(compress(data, Compression(kind))) == data


def test_levels_are_checked():
    for kind, level in (("gzip", 10), ("zstd", 0), ("none", 1), ("lz4", None)):
        with pytest.raises(UsageError):
            Compression(kind, level)
    assert len({Compression("gzip").identity, Compression("gzip", 6).identity, Compression("zstd").identity}) == 3


FORMATS = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("kind", FORMATS)
def test_members_truncation_corruption_garbage(kind):
    data = DATA[:400_000]
    packed = FORMATS[kind](data)
    assert expand(packed) == data
    assert expand(packed + packed, kind=kind) == data + data
    for cut in (1, 9, len(packed) // 2, len(packed) - 1):
        with pytest.raises(ContentError, match="truncated|corrupt"):
            expand(packed[:cut], kind=kind)
    with pytest.raises(ContentError):
        expand(packed + b"garbage!")
    broken = bytearray(packed)
    broken[len(broken) // 2] ^= 0xFF
    with pytest.raises(ContentError, match="corrupt|truncated|followed"):
        if expand(bytes(broken)) != data:  # zstd and its like without a checksum may not notice
            raise ContentError("corrupt")


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
def test_zeros_after_the_end_are_padding(kind):
    assert expand(FORMATS[kind](b"data") + bytes(512)) == b"data"


@pytest.mark.parametrize("kind", FORMATS)
def test_bombs_stop_at_the_limit(kind):
    bomb = FORMATS[kind](bytes(16 << 20))
    with pytest.raises(ContentError, match="larger than the 1000000 bytes"):
        expand(bomb, limit=1_000_000)


def test_large_windows_are_refused():
    params = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    packed = zstandard.ZstdCompressor(compression_params=params).compressobj()
    data = packed.compress(b"x") + packed.flush()
    with pytest.raises(ContentError, match="zstd stream is corrupt"):
        expand(data)


def test_truncated_zstd_is_found_in_every_place():
    packed = zstandard.ZstdCompressor().compress(b"abc" * 50 + random.Random(2).randbytes(100))
    for cut in range(len(packed)):
        with pytest.raises(ContentError):
            expand(packed[:cut], kind="zstd")


def test_errors_of_the_source_come_through():
    class Failing(io.RawIOBase):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        decompressor(Failing(), kind="gzip").read()


def test_closing_early_ends_the_thread_and_closes_the_source():
    source = io.BytesIO(gzip.compress(bytes(64 << 20)))
    stream = decompressor(source)
    assert stream.read(10) == bytes(10)
    stream.close()
    assert source.closed
    assert not [thread for thread in threading.enumerate() if thread.name == "kpy-read-ahead"]


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=400), kind=st.sampled_from([*FORMATS, None]))
def test_fuzz_raises_nothing_else(data, kind):
    for hostile in (data, FORMATS["gzip"](b"x" * 99)[: len(data)] + data, FORMATS["zstd"](b"x" * 99)[: len(data)] + data):
        try:
            expand(hostile, kind=kind, limit=1 << 24)
        except ContentError:
            pass
