"""Sparse files of GNU tar: their maps, and the content with its holes (C17: written out, no builder keeps holes)."""

from collections.abc import Callable, Iterator

from kpy.errors import ContentError
from kpy.layer import pax
from kpy.util.checkpoint import checkpoint

MAX_SIZE = 64 << 30  # a header of 512 bytes must not keep us busy for days
_MAX_SEGMENTS = 100_000
_ZEROS = bytes(1 << 20)

Segment = tuple[int, int]  # offset in the file, length


def check(segments: list[Segment], size: int, stored: int) -> None:
    """Raise ContentError unless the segments are in order, inside the file, and as long as what is stored."""
    if size > MAX_SIZE:
        raise ContentError(f"tar has a sparse file of {size} bytes, more than the {MAX_SIZE} that are allowed")
    end = 0
    for offset, length in segments:
        if offset < end or offset + length > size:
            raise pax.bad("the map of a sparse file is out of order")
        end = offset + length
    if sum(length for _, length in segments) != stored:
        raise pax.bad("the map of a sparse file does not fit its content")


def old_segments(block: bytes, take: Callable[[int], bytes]) -> tuple[list[Segment], int]:
    """Segments and real size from a header of type `S`, with the blocks that follow it."""
    size = pax.number(block[483:495], "size of a sparse file")
    segments = _table(block[386:482])
    extended = block[482] != 0
    while extended:
        more = take(512)
        segments += _table(more[:504])
        extended = more[504] != 0
        if len(segments) > _MAX_SEGMENTS:
            raise pax.bad("a sparse file has too many segments")
    return segments, size


def _table(raw: bytes) -> list[Segment]:
    found: list[Segment] = []
    for start in range(0, len(raw), 24):
        if raw[start : start + 1] in (b"\0", b""):
            break
        offset = pax.number(raw[start : start + 12], "sparse offset")
        found.append((offset, pax.number(raw[start + 12 : start + 24], "sparse length")))
    return found


def listed_segments(value: bytes) -> list[Segment]:
    """Segments of `GNU.sparse.map` (PAX format 0.1): `offset,length,offset,length`."""
    numbers = [pax.decimal(part, "sparse map") for part in value.split(b",")] if value else []
    if len(numbers) % 2 or len(numbers) > 2 * _MAX_SEGMENTS:
        raise pax.bad("the map of a sparse file is odd")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def leading_segments(take: Callable[[int], bytes], stored: int) -> tuple[list[Segment], int]:
    """Segments of PAX format 1.0, which stand before the content; and how many bytes they took."""
    used = 0
    text = b""

    def line() -> int:
        nonlocal used, text
        while b"\n" not in text:
            if used + 512 > stored or len(text) > 64:
                raise pax.bad("the map of a sparse file has no end")
            text += take(512)
            used += 512
        first, _, text = text.partition(b"\n")
        return pax.decimal(first, "sparse map")

    count = line()
    if count > _MAX_SEGMENTS:
        raise pax.bad("a sparse file has too many segments")
    return [(line(), line()) for _ in range(count)], used


def expand(segments: list[Segment], size: int, read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The whole content: what is stored, and zeros between."""
    position = 0
    for offset, length in [*segments, (size, 0)]:
        while position < offset:
            checkpoint()
            hole = min(len(_ZEROS), offset - position)
            yield _ZEROS[:hole]
            position += hole
        left = length
        while left:
            data = read(min(left, len(_ZEROS)))
            left -= len(data)
            position += len(data)
            yield data
