"""Numbers of tar archives, for the fuzzer and for tests: an archive in which chosen fields say something else.

A mutation of single bytes nearly never makes a number that is valid in form and absurd in value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

BLOCK = 512
FIELDS = {"mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12), "mtime": (136, 12), "devmajor": (329, 8), "devminor": (337, 8)}
SPARSE = {"offset": (386, 12), "length": (398, 12), "realsize": (483, 12)}
RECORDS = ("uid", "gid", "size", "mtime", "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.map", "GNU.sparse.major", "SCHILY.devmajor")
EDGES = tuple(
    sign * ((1 << bits) + step)
    for bits in (0, 7, 12, 15, 16, 20, 21, 31, 32, 33, 36, 47, 62, 63, 64, 71, 94, 95)
    for step in (-2, -1, 0, 1)
    for sign in (1, -1)
)
TYPES = b"01234567SxgLKV\0"


@dataclass(frozen=True, slots=True)
class Change:
    """A number of the archive's nth header: of a field in octal or base 256, or of a PAX record before it."""

    header: int
    place: str
    value: int
    form: str  # octal, binary, record


def header(kind: bytes, size: int, name: bytes = b"f") -> bytearray:
    """A header in GNU's format, which has all of the fields."""
    block = bytearray(BLOCK)
    block[: len(name)] = name
    for field, number in {"mode": 0o644, "uid": 0, "gid": 0, "size": size, "mtime": 1_577_836_800}.items():
        at, width = FIELDS[field]
        block[at : at + width] = b"%0*o\0" % (width - 1, number)
    block[156:157] = kind
    block[157:158] = b"t"
    block[257:265] = b"ustar\00000"
    return summed(block)


def summed(block: bytearray) -> bytearray:
    """With the right checksum."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return block


def record(key: str, value: str) -> bytes:
    """One PAX record."""
    tail = f" {key}={value}\n".encode()
    size = len(tail) + 1
    while len(str(size)) + len(tail) != size:
        size = len(str(size)) + len(tail)
    return str(size).encode() + tail


def encoded(value: int, width: int, form: str) -> bytes:
    """A number in a field of a header, as far as it fits."""
    if form == "octal":
        return b"%0*o\0" % (width - 1, abs(value) % (8 ** (width - 1)))
    return (value % (1 << (8 * width - 1)) | 1 << (8 * width - 1)).to_bytes(width)


def archive(kinds: bytes, changes: Sequence[Change]) -> bytes:
    """Small entries of these types, with these numbers in them."""
    out = bytearray()
    for number, kind in enumerate(kinds):
        content = b"content" if kind in b"0S7\0" else b""
        block = header(bytes([kind]), len(content), b"f%d" % number)
        records = b""
        for change in (item for item in changes if item.header == number):
            if change.form == "record" or change.place not in FIELDS | SPARSE:
                records += record(change.place, str(change.value))
            else:
                at, width = (FIELDS | SPARSE)[change.place]
                block[at : at + width] = encoded(change.value, width, change.form)
        if records:
            out += header(b"x", len(records)) + records + bytes(-len(records) % BLOCK)
        out += summed(block) + content + bytes(-len(content) % BLOCK)
    return bytes(out) + bytes(2 * BLOCK)


def from_bytes(data: bytes) -> bytes:
    """An archive that the fuzzer's bytes describe: three types, then six bytes for each change."""
    kinds = bytes(TYPES[byte % len(TYPES)] for byte in data[:3])
    places = sorted({*FIELDS, *SPARSE, *RECORDS})
    changes = []
    for at in range(3, len(data) - 5, 6):
        where, place, form, edge, step, more = data[at : at + 6]
        value = EDGES[edge % len(EDGES)] + step - 128 * (more & 1)
        changes.append(Change(where % 3, places[place % len(places)], value, ("octal", "binary", "record")[form % 3]))
    return archive(kinds, changes[:20])
