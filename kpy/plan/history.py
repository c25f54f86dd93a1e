"""History texts as BuildKit writes them (R22, C32, I01, A13)."""

from collections.abc import Iterable

from kpy.oci.config import History

COMMENT = "buildkit.dockerfile.v0"


def entry(text: str, *, layer: bool) -> History:
    """One entry; the time comes later. BuildKit marks its layers in the text, but for those of WORKDIR."""
    mark = " # buildkit" if layer and not text.startswith("WORKDIR ") else ""
    return History(created_by=text + mark, comment=COMMENT, empty_layer=not layer)


def go_quote(text: str) -> str:
    """Go's strconv.Quote, near enough for history."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}
    parts = []
    for char in text:
        if char in escapes:
            parts.append(escapes[char])
        elif ord(char) < 0x20 or ord(char) == 0x7F:
            parts.append(f"\\x{ord(char):02x}")
        else:
            parts.append(char)
    return '"' + "".join(parts) + '"'


def go_list(items: Iterable[str], *, quoted: bool = True) -> str:
    """A Go slice as %q or %v prints it: `["a" "b"]` or `[a b]`."""
    return "[" + " ".join(go_quote(item) if quoted else item for item in items) + "]"
