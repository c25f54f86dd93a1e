"""Numbers and PAX records of tar headers, of hostile origin. Knows nothing of entries or streams."""

import struct

from kpy.errors import ContentError

_NS = 1_000_000_000
_LAST_ID = (1 << 32) - 2  # chown(2): -1 is "leave it as it is"
_LAST_BYTE = (1 << 63) - 1  # loff_t
_FIRST_SECOND, _LAST_SECOND = -62135596800, 253402300799  # the years 1 to 9999: those that a date of an image can have


def bad(what: str) -> ContentError:
    """The error for a tar that is not one."""
    return ContentError(f"tar is broken: {what}")


def number(raw: bytes, name: str, *, signed: bool = False) -> int:
    """An octal field, or GNU's base 256. Raises ContentError, also for a negative number unless `signed`."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big", signed=False) & ((1 << (8 * len(raw) - 1)) - 1)
        if raw[0] & 0x40:
            value -= 1 << (8 * len(raw) - 1)
    else:
        digits = raw.partition(b"\0")[0].strip(b" ")
        if not digits:
            return 0
        if not digits.isdigit():
            raise bad(f"{name} is {digits[:16]!r}")
        try:
            value = int(digits, 8)
        except ValueError:
            raise bad(f"{name} is {digits[:16]!r}") from None
    if value < 0 and not signed:
        raise bad(f"{name} is negative")
    if not -(1 << 63) <= value < 1 << 63:
        raise bad(f"{name} is too large")
    return value


def decimal(raw: bytes, name: str) -> int:
    """A number of a PAX record."""
    if not raw.isdigit() or len(raw) > 19:
        raise bad(f"{name} is {raw[:32]!r}")
    return int(raw)


def owner(value: int, name: str) -> int:
    """A user or group that Linux can have, or ContentError."""
    if value > _LAST_ID:
        raise bad(f"{name} is {value}, more than the {_LAST_ID} that Linux allows")
    return value


def length(value: int, name: str) -> int:
    """A number of bytes that a file can have, or ContentError."""
    if value > _LAST_BYTE:
        raise bad(f"{name} is {value}, more than a file can have")
    return value


def moment(value: int) -> int:
    """A time in nanoseconds that is one, or ContentError."""
    if not _FIRST_SECOND * _NS <= value < (_LAST_SECOND + 1) * _NS:
        raise bad(f"mtime is {value // _NS}, outside of the years 1 to 9999")
    return value


def nanoseconds(raw: bytes) -> int:
    """A time of a PAX record, `-1.5`, in nanoseconds; more digits than nine are cut."""
    negative = raw.startswith(b"-")
    seconds, _, fraction = raw.removeprefix(b"-").partition(b".")
    if not seconds.isdigit() or len(seconds) > 18 or not (fraction + b"0").isdigit():
        raise bad(f"mtime is {raw[:32]!r}")
    total = int(seconds) * _NS + int(fraction[:9].ljust(9, b"0"))
    return -total if negative else total


def records(data: bytes) -> dict[str, bytes]:
    """The records of a PAX header; the last of a name counts. Raises ContentError for a wrong length."""
    found: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        if space < 0 or not data[position:space].isdigit():
            raise bad("a PAX record has no length")
        end = position + int(data[position:space])
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n":
            raise bad("a PAX record has a wrong length")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise bad("a PAX record has no key")
        found[key.decode("utf-8", "surrogateescape")] = value
        position = end
    return found


def sum_fits(block: bytes) -> bool:
    """Is the header's checksum right? Some old writers summed signed bytes."""
    digits = block[148:156].strip(b" \0").partition(b"\0")[0]
    if not digits.isdigit():
        return False
    try:
        wanted = int(digits, 8)
    except ValueError:
        return False
    if sum(block) - sum(block[148:156]) + 256 == wanted:
        return True
    signed: tuple[int, ...] = struct.unpack("148b8x356b", block)
    return sum(signed) + 256 == wanted
