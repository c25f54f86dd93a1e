"""A tar stream to entries, without seeking; everything in it is an attacker's.

Reads USTAR, V7, PAX, GNU's long names, numbers and sparse files. Refuses what is malformed, too large or of a type
that no file system has. Paths come out cleaned, inside the root (see `kpy.util.paths.clean`); what symlinks among
them mean is the business of whoever applies the entries.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from kpy.errors import ContentError, TooLargeError
from kpy.layer import pax, sparse, whiteout
from kpy.layer.device import PRIVATE_XATTRS
from kpy.layer.entry import Entry, Kind
from kpy.layer.header import BLOCK, XATTR
from kpy.util import paths
from kpy.util.checkpoint import checkpoint
from kpy.util.streams import drain

_CHUNK = 1 << 20
_ZERO_BLOCK = bytes(BLOCK)
_NS = 1_000_000_000
_LAST_MAJOR, _LAST_MINOR = (1 << 12) - 1, (1 << 20) - 1  # include/linux/kdev_t.h
_NO_XATTRS: Mapping[str, bytes] = {}
_KINDS = {b"0": Kind.FILE, b"\0": Kind.FILE, b"7": Kind.FILE, b"S": Kind.FILE, b"1": Kind.HARDLINK, b"2": Kind.SYMLINK,
          b"3": Kind.CHAR, b"4": Kind.BLOCK, b"5": Kind.DIR, b"6": Kind.FIFO}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TarLimits:
    """How much a tar may ask for. `bytes` is of all files together, their holes filled; None is no limit. So many `entries` are
    several times what the largest images have, and who unpacks them remembers some 100 bytes of each. `path_bytes` is four
    times the kernel's PATH_MAX: a RUN may nest deeper than one path reaches; `name_bytes` are of all names and link targets.
    `extended_bytes` is Go's maxSpecialFileSize."""

    entries: int = 2_000_000
    extended_bytes: int = 1 << 20
    path_bytes: int = 1 << 14
    name_bytes: int = 1 << 30
    bytes: int | None = None


DEFAULT_LIMITS = TarLimits()


class _Input:
    """Exact reads from a stream that may give less than it is asked for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._data = b""
        self._position = 0

    def some(self, limit: int) -> bytes:
        """Between 1 and `limit` bytes. Raises ContentError at the end."""
        if self._position >= len(self._data):
            self._fill()
            if not self._data:
                raise ContentError("tar is truncated")
            if len(self._data) <= limit:
                data, self._data = self._data, b""
                return data
        data = self._data[self._position : self._position + limit]
        self._position += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """`size` bytes, no more than one extended header. Raises ContentError at the end."""
        end = self._position + size
        if end <= len(self._data):
            data = self._data[self._position : end]
            self._position = end
            return data
        parts = []
        while size:
            part = self.some(size)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def block(self) -> bytes | None:
        """One block, None at the end of the stream. Raises ContentError for a part of one."""
        if self._position >= len(self._data):
            self._fill()
            if not self._data:
                return None
        return self.exactly(BLOCK)

    def _fill(self) -> None:
        checkpoint()
        self._data = self._stream.read(_CHUNK)
        self._position = 0

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.some(min(size, _CHUNK)))

    def drain(self) -> None:
        """Read on to the end, so that a verifying stream verifies."""
        self._data = b""
        drain(self._stream)


class Content:
    """The content of the entry that came with it, valid until the next entry is asked for."""

    def __init__(self, source: _Input) -> None:
        self._source = source
        self._left = 0  # stored bytes not read yet
        self._padding = 0
        self._segments: list[sparse.Segment] | None = None
        self._size = 0

    def start(self, stored: int, padded: int, size: int, segments: list[sparse.Segment] | None) -> int:
        """For the reader alone: the next entry has this content. Its size."""
        self._left = stored
        self._padding = padded
        self._size = size
        self._segments = segments
        return size

    def _stored(self, limit: int) -> bytes:
        data = self._source.some(min(limit, self._left))
        self._left -= len(data)
        return data

    def chunks(self) -> Iterator[bytes]:
        """All of it, in pieces of at most 1 MiB. Once. Raises ContentError when the tar ends before."""
        if self._segments is not None:
            yield from sparse.expand(self._segments, self._size, self._stored)
            return
        while self._left:
            yield self._stored(_CHUNK)

    def finish(self) -> None:
        """For the reader alone: skip what nobody read."""
        if self._left or self._padding:
            self._source.skip(self._left + self._padding)
            self._left = self._padding = 0


def read_tar(
    stream: BinaryIO, *, layer: bool, limits: TarLimits = DEFAULT_LIMITS
) -> Iterator[tuple[Entry, Content]]:
    """Give the entries in order, each with its content (empty unless it is a FILE), and read the stream to its end.

    With `layer`, marker names become WHITEOUT and OPAQUE, and what AUFS left is skipped; else they are files (C22).
    Global PAX headers are checked and ignored, as in Go's archive/tar and so in docker. Raises ContentError.
    """
    source = _Input(stream)
    content = Content(source)
    headers = _Headers(source, limits)
    count = total = named = 0
    while True:
        checkpoint()  # and not for a read only: so many empty entries are in one
        found = headers.next(content)
        if found is None:
            break
        count += 1
        if count > limits.entries:
            raise ContentError(
                f"tar has more than the {limits.entries} entries that are allowed",
                hint="it is hostile, or should be several layers or archives; the limit keeps memory and inodes from running out",
            )
        named += len(found.path) + len(found.link)
        if named > limits.name_bytes:
            raise ContentError(f"tar has names of more than the {limits.name_bytes} bytes that are allowed")
        total += found.size
        if limits.bytes is not None and total > limits.bytes:  # said before anybody writes it: a sparse file takes no reading
            raise TooLargeError(f"tar has files of more than the {limits.bytes} bytes that are allowed")
        entry = _meaning(found) if layer and whiteout.holds_marker(found.path) else found
        if entry is not None:
            yield entry, content
        content.finish()
    source.drain()


def _meaning(entry: Entry) -> Entry | None:
    marker = whiteout.read_marker(entry.path)
    if marker is None:
        return None
    kind, path = marker
    return Entry(path, kind, entry.mode, entry.uid, entry.gid, 0, entry.mtime)


class _Headers:
    """Gathers the blocks that together describe one entry."""

    def __init__(self, source: _Input, limits: TarLimits) -> None:
        self._source = source
        self._limits = limits

    def next(self, content: Content) -> Entry | None:
        extended: dict[str, bytes] = {}
        while True:
            block = self._source.block()
            if block is None:
                if extended:
                    raise ContentError("tar is truncated")
                return None
            if block == _ZERO_BLOCK:
                second = self._source.block()
                if extended or second not in (None, _ZERO_BLOCK):
                    raise pax.bad("a lone zero block")
                return None
            if not pax.sum_fits(block):
                raise pax.bad("a header has a wrong checksum")
            kind = block[156:157]
            if kind == b"x":
                extended.update(pax.records(self._extended(block)))
            elif kind == b"g":
                pax.records(self._extended(block))
            elif kind == b"L":
                extended["path"] = self._extended(block).partition(b"\0")[0]
            elif kind == b"K":
                extended["linkpath"] = self._extended(block).partition(b"\0")[0]
            elif kind == b"V":  # the label of a volume
                self._source.skip(_padded(pax.number(block[124:136], "size")))
            else:
                return self._entry(block, kind, extended, content)

    def _extended(self, block: bytes) -> bytes:
        size = pax.number(block[124:136], "size")
        if size > self._limits.extended_bytes:
            raise ContentError(
                f"tar has an extended header of {size} bytes, more than the {self._limits.extended_bytes} allowed"
            )
        data = self._source.exactly(_padded(size))
        return data[:size]

    def _entry(self, block: bytes, type_: bytes, extended: dict[str, bytes], content: Content) -> Entry:
        kind = _KINDS.get(type_)
        if kind is None:
            raise ContentError(f"tar has an entry of the unknown type {type_!r}")
        name = extended.get("GNU.sparse.name") or extended.get("path") or _name(block)
        if type_ == b"\0" and name.endswith(b"/"):
            kind = Kind.DIR  # V7 knew no directories
        path = self._path(name)
        if not path and kind is not Kind.DIR:
            raise ContentError(f"tar has the root as {kind.name.lower()}")
        try:
            size = self._size(block, type_, extended, content) if kind is Kind.FILE else content.start(0, 0, 0, None)
            numbers = (
                pax.number(block[100:108], "mode") & 0o7777,
                pax.owner(_field(extended, "uid", block[108:116]), "uid"),
                pax.owner(_field(extended, "gid", block[116:124]), "gid"),
                size,
                pax.moment(_mtime(block, extended)),
            )
            device = _device(kind, block)
        except ContentError as error:
            raise ContentError(f"{error.message} (entry {path[:200]!r})", hint=error.hint) from error
        link = self._link(kind, block, extended, path)
        return Entry(path, kind, *numbers, link, device, _xattrs(extended) if extended else _NO_XATTRS)

    def _size(self, block: bytes, type_: bytes, extended: dict[str, bytes], content: Content) -> int:
        """The size of the file whose content comes next."""
        stored = size = pax.length(_field(extended, "size", block[124:136]), "size")
        padding = -stored % BLOCK
        segments = None
        if type_ == b"S" or "GNU.sparse.major" in extended or "GNU.sparse.map" in extended:
            segments, size, stored = self._sparse(block, type_, extended, stored)
        elif "GNU.sparse.size" in extended or "GNU.sparse.numblocks" in extended:
            raise ContentError("tar has a sparse file of the old PAX format 0.0")
        return content.start(stored, padding, size, segments)

    def _path(self, raw: bytes) -> str:
        if len(raw) >= self._limits.path_bytes:
            raise ContentError(f"tar has a path of {len(raw)} bytes, more than anybody nests directories")
        if b"\0" in raw:
            raise pax.bad("a path with a zero byte")
        return paths.clean(raw.decode("utf-8", "surrogateescape"))

    def _link(self, kind: Kind, block: bytes, extended: dict[str, bytes], path: str) -> str:
        if kind is not Kind.SYMLINK and kind is not Kind.HARDLINK:
            return ""
        raw = extended.get("linkpath") or block[157:257].partition(b"\0")[0]
        if kind is Kind.HARDLINK:
            target = self._path(raw)
        else:
            if len(raw) >= self._limits.path_bytes or b"\0" in raw:
                raise pax.bad(f"the target of symlink {path!r} is too long or has a zero byte")
            target = raw.decode("utf-8", "surrogateescape")
        if not target:
            raise ContentError(f"tar has the link {path!r} without a target")
        return target

    def _sparse(
        self, block: bytes, type_: bytes, extended: dict[str, bytes], stored: int
    ) -> tuple[list[sparse.Segment], int, int]:
        if type_ == b"S":
            segments, size = sparse.old_segments(block, self._source.exactly)
        elif extended.get("GNU.sparse.major", b"0") == b"1":
            size = pax.decimal(extended.get("GNU.sparse.realsize", b""), "size of a sparse file")
            segments, used = sparse.leading_segments(self._source.exactly, stored)
            stored -= used
        else:
            size = pax.decimal(extended.get("GNU.sparse.size", b""), "size of a sparse file")
            segments = sparse.listed_segments(extended.get("GNU.sparse.map", b""))
        sparse.check(segments, size, stored)
        return segments, size, stored


def _padded(size: int) -> int:
    return size + -size % BLOCK


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":  # GNU's magic has blanks here, and times where the prefix would be
        end = 476 if block[508:512] == b"tar\0" else 500  # star
        prefix = block[345:end].partition(b"\0")[0]
        if prefix:
            return prefix + b"/" + name
    return name


def _field(extended: dict[str, bytes], key: str, raw: bytes) -> int:
    if extended:
        value = extended.get(key)
        if value:
            return pax.decimal(value, key)
    return pax.number(raw, key)


def _mtime(block: bytes, extended: dict[str, bytes]) -> int:
    if extended:
        value = extended.get("mtime")
        if value:
            return pax.nanoseconds(value)
    return pax.number(block[136:148], "mtime", signed=True) * _NS


def _device(kind: Kind, block: bytes) -> tuple[int, int]:
    if kind is not Kind.CHAR and kind is not Kind.BLOCK:
        return 0, 0
    major, minor = pax.number(block[329:337], "device"), pax.number(block[337:345], "device")
    if major > _LAST_MAJOR or minor > _LAST_MINOR:
        raise ContentError(f"tar has the device {major}:{minor}, and no such device can be")
    return major, minor


def _xattrs(extended: dict[str, bytes]) -> Mapping[str, bytes]:
    found = {}
    for key, value in extended.items():
        if key.startswith(XATTR) and not key.startswith(PRIVATE_XATTRS, len(XATTR)):
            found[key[len(XATTR) :]] = value
    return found or _NO_XATTRS
