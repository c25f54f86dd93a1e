"""History texts as BuildKit writes them (R22, C32, I01, A13)."""

import sys
from collections.abc import Iterable

from kpy.dockerfile.durations import show_duration
from kpy.oci.config import Healthcheck, History

COMMENT = "buildkit.dockerfile.v0"


def entry(text: str, *, layer: bool, marked: bool) -> History:
    """One entry; the time comes later. BuildKit marks layers in the text, but for those of WORKDIR."""
    return History(created_by=text + (" # buildkit" if marked else ""), comment=COMMENT, empty_layer=not layer)


_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}


def go_quote(text: str, quote: str = '"') -> str:
    """Go's strconv.Quote; a byte that is not UTF-8, read with surrogateescape, is written as such."""
    return quote + "".join("\\" + char if char == quote else _shown(char) for char in text) + quote


def _shown(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    number = ord(char)
    if number < 0x80:
        return f"\\x{number:02x}"
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def go_list(items: Iterable[str], *, quoted: bool = True) -> str:
    """A Go slice as %q or %v prints it: `["a" "b"]` or `[a b]`."""
    return "[" + " ".join(go_quote(item) if quoted else item for item in items) + "]"


def go_healthcheck(check: Healthcheck) -> str:
    """The config's object as Go's %q prints it, field by field: the number of retries comes out as a character."""
    durations = (check.interval, check.timeout, check.start_period, check.start_interval)
    known = check.retries <= sys.maxunicode and not 0xD800 <= check.retries <= 0xDFFF
    retries = go_quote(chr(check.retries) if known else "\ufffd", "'")
    return f"&{{{go_list(check.test)} {' '.join(go_quote(show_duration(item)) for item in durations)} {retries}}}"
