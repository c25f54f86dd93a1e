"""Compressed streams read back: gzip, zstd, and for archives bzip2 and xz. All input is hostile.

Bounded memory whatever the input says, an optional bound on the output, and reading ahead in a thread (the codecs
release the GIL). What was truncated or is corrupt raises ContentError; trailing zeros are padding, anything else
after the end is an error.
"""

import io
import lzma
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Literal, cast

from isal import igzip_lib

from kpy.errors import ContentError, TooLargeError
from kpy.layer.readahead import ChunkReader, ReadAhead
from kpy.util.checkpoint import checkpoint
from kpy.util.streams import pieces

Format = Literal["none", "gzip", "zstd", "bzip2", "xz"]

_ISAL_ERROR = cast(type[Exception], igzip_lib.error)
_INPUT = 256 << 10
_OUTPUT = 1 << 20
_XZ_MEMORY = 256 << 20  # xz -9 wants 65 MiB to read
_ZSTD_WINDOW = 128 << 20  # what zstd itself accepts without --long

_MAGICS: tuple[tuple[bytes, Format], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
)
# A frame that yields 64 times 0xA5, from one RLE block: put behind the input, its output shows that the last frame
# was whole, which python-zstandard's stream_reader does not tell
_SENTINEL = b"\xa5" * 64
_SENTINEL_FRAME = b"\x28\xb5\x2f\xfd\x20\x40" + ((64 << 3) | (1 << 1) | 1).to_bytes(3, "little") + b"\xa5"


def sniff(head: bytes) -> Format:
    """The format that the first bytes show; `none` when they show nothing."""
    # skippable frames may come first in zstd (RFC 8878 3.1.2)
    if len(head) >= 4 and 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18":
        return "zstd"
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    return "none"


def decompressor(
    stream: BinaryIO, *, kind: Format | None = None, limit: int | None = None, read_ahead: bool = True
) -> BinaryIO:
    """The stream decompressed. `kind` None: whatever the first bytes show (media types of images lie at times).

    At most `limit` bytes come out, then TooLargeError. Closing the result closes the stream. With `read_ahead`, a
    thread works up to 8 MiB ahead, and the stream belongs to it.
    """
    source = _Source(stream)
    found = sniff(source.peek(6)) if kind is None else kind
    chunks = _bounded(_FORMATS[found](source), limit)
    if read_ahead and found != "none":
        return cast(BinaryIO, ReadAhead(chunks, stream.close))
    return cast(BinaryIO, ChunkReader(chunks, stream.close))


class _Source:
    """A stream with its first bytes looked at."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._head = b""

    def peek(self, size: int) -> bytes:
        while len(self._head) < size:
            checkpoint()
            more = self._stream.read(size - len(self._head))
            if not more:
                break
            self._head += more
        return self._head

    def read(self, size: int = _INPUT) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        checkpoint()
        return self._stream.read(size)


def _bounded(chunks: Iterator[bytes], limit: int | None) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        checkpoint()
        total += len(chunk)
        if limit is not None and total > limit:
            raise TooLargeError(f"decompressed content is larger than the {limit} bytes that are allowed")
        yield chunk


def _plain(source: _Source) -> Iterator[bytes]:
    yield from pieces(source, _OUTPUT)


def _members(source: _Source, name: str, magic: bytes, new: Callable[[], Any]) -> Iterator[bytes]:
    """Concatenated members of a format whose decoder has the interface of `bz2.BZ2Decompressor`."""
    data = source.read()
    while True:
        checkpoint()  # members may be empty, and many in one read
        decoder = new()
        while not decoder.eof:
            if decoder.needs_input and not data:
                data = source.read()
                if not data:
                    raise ContentError(f"{name} stream is truncated")
            out = _decode(decoder, data, name)
            data = b""
            if out:
                yield out
        data = _next_member(source, decoder.unused_data, name, magic)
        if not data:
            return


def _decode(decoder: Any, data: bytes, name: str) -> bytes:
    try:
        out: bytes = decoder.decompress(data, _OUTPUT)
        return out
    except (_ISAL_ERROR, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise ContentError(f"{name} stream is corrupt: {error}") from error


def _next_member(source: _Source, data: bytes, name: str, magic: bytes) -> bytes:
    """What follows a member, without zeros of padding; empty at the end."""
    data = data.lstrip(b"\0")
    while len(data) < len(magic):
        checkpoint()
        more = source.read()
        if not more:
            break
        data = (data + more).lstrip(b"\0")
    if data and not data.startswith(magic):
        raise ContentError(f"{name} stream is followed by something else")
    return data


def _gzip(source: _Source) -> Iterator[bytes]:
    return _members(
        source, "gzip", b"\x1f\x8b", lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    )


def _bzip2(source: _Source) -> Iterator[bytes]:
    import bz2

    return _members(source, "bzip2", b"BZh", bz2.BZ2Decompressor)


def _xz(source: _Source) -> Iterator[bytes]:
    return _members(
        source, "xz", b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    )


class _WithSentinel:
    """The source, then the sentinel frame, always in one piece with the last bytes of the source: libzstd takes a
    frame whose header came in another piece for the frame that begins the current one."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._next = source.read()
        self._ended = not self._next

    def read(self, size: int = -1) -> bytes:
        if self._ended:
            return b""
        data = self._next
        self._next = self._source.read()
        if not self._next:
            self._ended = True
            data += _SENTINEL_FRAME
        return data


def _zstd(source: _Source) -> Iterator[bytes]:
    import zstandard

    reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(
        cast(Any, _WithSentinel(source)), read_size=2 * _INPUT, read_across_frames=True
    )
    held = b""
    while True:
        checkpoint()
        try:
            data = reader.read(_OUTPUT)
        except (zstandard.ZstdError, MemoryError) as error:
            raise ContentError(f"zstd stream is corrupt: {error}") from error
        if not data:
            break
        held += data
        if len(held) > len(_SENTINEL):
            yield held[: -len(_SENTINEL)]
            held = held[-len(_SENTINEL) :]
    if held != _SENTINEL:  # also when there was nothing at all
        raise ContentError("zstd stream is truncated")


_FORMATS: dict[Format, Callable[[_Source], Iterator[bytes]]] = {
    "none": _plain,
    "gzip": _gzip,
    "zstd": _zstd,
    "bzip2": _bzip2,
    "xz": _xz,
}


def sniff_archive(source: bytes | BinaryIO) -> Format | None:
    """How the tar in `source` is compressed, None if it is no tar: the first header after decompression must parse
    (C22). Give a stream where possible: bzip2 shows nothing before a whole block of up to 900 kB. Closes a stream.
    """
    from kpy.layer.tarread import read_tar

    stream = cast(BinaryIO, io.BytesIO(source)) if isinstance(source, bytes) else source
    head = _Source(stream)
    kind = sniff(head.peek(6))
    try:
        with cast(BinaryIO, ChunkReader(_FORMATS[kind](head), stream.close, chunk=64 << 10)) as plain:
            for _ in read_tar(plain, layer=False):
                return kind
    except ContentError:
        pass
    return None
