"""Tar headers of entries: USTAR, with a PAX header before it where that cannot say it (L04).

Knows nothing of content or streams. Deterministic: no names of users, no clock; records sorted.
"""

from kpy.errors import ContentError
from kpy.layer import whiteout
from kpy.layer.entry import Entry, Kind

BLOCK = 512
XATTR = "SCHILY.xattr."

_TYPES = {Kind.FILE: b"0", Kind.HARDLINK: b"1", Kind.SYMLINK: b"2", Kind.CHAR: b"3", Kind.BLOCK: b"4", Kind.DIR: b"5",
          Kind.FIFO: b"6", Kind.WHITEOUT: b"0", Kind.OPAQUE: b"0"}  # fmt: skip
_MAX_ID = 0o7777777
_MAX_LONG = 0o77777777777
_NS = 1_000_000_000
_HEAD = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0"
_TAIL = b"%b%bustar\00000" + bytes(64) + b"%07o\0%07o\0%b" + bytes(12)
_BLANK = b"        "


def encode_header(entry: Entry) -> bytes:
    """All header blocks of the entry. Raises ContentError for what no layer may hold."""
    raw = _name(entry)
    records: dict[bytes, bytes] = {}
    prefix = b""
    name = raw
    if len(raw) > 100 or not raw.isascii():
        split = _split(raw)
        if split is None:
            records[b"path"] = raw
            name = _ascii(raw)[:100]
        else:
            prefix, name = split
    link = b""
    if entry.kind in (Kind.SYMLINK, Kind.HARDLINK):
        link = entry.link.encode("utf-8", "surrogateescape")
        if len(link) > 100 or not link.isascii():
            records[b"linkpath"] = link
            link = _ascii(link)[:100]
    size = entry.size if entry.kind is Kind.FILE else 0
    seconds, ns = divmod(entry.mtime, _NS)
    fields = {b"size": size, b"uid": entry.uid, b"gid": entry.gid, b"mtime": seconds}
    for key, limit in ((b"size", _MAX_LONG), (b"uid", _MAX_ID), (b"gid", _MAX_ID), (b"mtime", _MAX_LONG)):
        if not 0 <= fields[key] <= limit:
            records[key] = b"%d" % fields[key]
            fields[key] = 0
    if ns:
        records[b"mtime"] = _time(entry.mtime)
    for key_text, value in entry.xattrs.items():
        records[_xattr_key(key_text, entry)] = value
    if not (0 <= entry.device[0] <= _MAX_ID and 0 <= entry.device[1] <= _MAX_ID):
        raise ContentError(f"{entry.path!r} has the device numbers {entry.device}, which no tar can hold")
    ids = (fields[b"uid"], fields[b"gid"], fields[b"size"], fields[b"mtime"])
    block = _sum(
        _HEAD % (name.ljust(100, b"\0"), entry.mode & 0o7777, *ids),
        _TAIL % (_TYPES[entry.kind], link.ljust(100, b"\0"), *entry.device, prefix.ljust(155, b"\0")),
    )
    return _pax(raw, records) + block if records else block


def _name(entry: Entry) -> bytes:
    path = entry.path
    if whiteout.holds_marker(path):
        raise ContentError(
            f"{path!r} cannot be in a layer: a name that begins with .wh. would be read as a deletion",
            hint="rename the file, or leave it out with .dockerignore or --exclude",
        )
    if entry.kind is Kind.DIR:
        path = f"{path}/" if path else "./"
    elif entry.kind is Kind.WHITEOUT:
        path = whiteout.marker(path)
    elif entry.kind is Kind.OPAQUE:
        path = whiteout.opaque_marker(path)
    return path.encode("utf-8", "surrogateescape")


def _xattr_key(key: str, entry: Entry) -> bytes:
    if "=" in key or "\0" in key:  # a PAX record ends its key at the first "="
        raise ContentError(f"{entry.path!r} has the extended attribute {key!r}, which no tar can hold")
    return (XATTR + key).encode("utf-8", "surrogateescape")


def _split(raw: bytes) -> tuple[bytes, bytes] | None:
    """USTAR's prefix and name, if the name fits so."""
    if len(raw) > 256 or not raw.isascii():
        return None
    cut = raw.rfind(b"/", 0, min(156, len(raw) - 1))
    if cut <= 0 or len(raw) - cut - 1 > 100:
        return None
    return raw[:cut], raw[cut + 1 :]


def _ascii(raw: bytes) -> bytes:
    return raw.decode("ascii", "replace").encode("ascii", "replace")


def _time(mtime: int) -> bytes:
    """A PAX time; as Go, `-1.5` is one and a half second before 1970."""
    seconds, ns = divmod(abs(mtime), _NS)
    return (f"{'-' if mtime < 0 else ''}{seconds}.{ns:09d}").rstrip("0").encode()


def _sum(head: bytes, tail: bytes) -> bytes:
    return b"%b%06o\0 %b" % (head, sum(head) + sum(tail) + 256, tail)


def _pax(raw: bytes, records: dict[bytes, bytes]) -> bytes:
    """A PAX header and its records. Values are raw bytes, as Go writes them, without `hdrcharset`."""
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    name = b"PaxHeaders.0/" + _ascii(raw.rstrip(b"/").rpartition(b"/")[2])[:80]
    head = _HEAD % (name.ljust(100, b"\0"), 0o644, 0, 0, len(body), 0)
    tail = _TAIL % (b"x", bytes(100), 0, 0, bytes(155))
    return _sum(head, tail) + body + bytes(-len(body) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where the length counts its own digits."""
    size = len(key) + len(value) + 3
    total = size + len(str(size))
    total = size + len(str(total))
    return b"%d %b=%b\n" % (total, key, value)
