"""Values as YAML text, always the same way. Writes mappings, lists, text, numbers and booleans; reads nothing.

Text that could be taken for something else by any reader (YAML 1.1 knows dates, octal and base-60 numbers, and six
spellings of true) is quoted.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, TypeGuard

Value: TypeAlias = "str | int | bool | Sequence[Value] | Mapping[str, Value]"

_PLAIN = re.compile(r"(?:--)?[A-Za-z/][A-Za-z0-9_./@+=-]*(?::[A-Za-z0-9_./@+=:-]*[A-Za-z0-9_/@+=-])?")
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def dumps(value: Value) -> str:
    """A document, ending with a newline. Keys keep their order."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Value) -> Iterator[str]:
    """The lines of a value in block style, without indentation."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            if _is_literal(item):
                yield f"{scalar(key)}: |"
                yield from _literal(item)
            elif _is_block(item):
                yield f"{scalar(key)}:"
                yield from map(_indented, _lines(item))
            else:
                yield f"{scalar(key)}: {_flow(item)}"
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for item in value:
            lines = ["|", *_literal(item)] if _is_literal(item) else list(_lines(item))
            yield f"- {lines[0]}"
            yield from (line if _is_literal(item) else _indented(line) for line in lines[1:])
    else:
        yield _flow(value)


def _is_block(value: Value) -> bool:
    return isinstance(value, Mapping | Sequence) and not isinstance(value, str) and bool(value)


def _is_literal(value: Value) -> TypeGuard[str]:
    """Lines of ordinary text, which are best read as they are."""
    if not isinstance(value, str) or value.count("\n") < 2 or not value.endswith("\n"):
        return False
    lines = value[:-1].split("\n")
    return all(line.isascii() and line.isprintable() and line == line.rstrip() for line in lines) and bool(
        lines[0] and lines[-1] and not lines[0].startswith(" ")
    )


def _literal(text: str) -> Iterator[str]:
    yield from map(_indented, text[:-1].split("\n"))


def _indented(line: str) -> str:
    return f"  {line}" if line else ""


def _flow(value: Value) -> str:
    """What stands on one line: a scalar, or something empty."""
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return scalar(value) if isinstance(value, str) else "[]"


def scalar(text: str) -> str:
    """Text, plain where no reader can take it for anything else, else in double quotes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(_ESCAPES.get(letter) or _escaped(letter) for letter in text) + '"'


def _escaped(letter: str) -> str:
    """A letter in double quotes: those that YAML does not print have a number."""
    code = ord(letter)
    if 0x20 <= code < 0x7F or (0xA0 <= code < 0xD800) or (0xE000 <= code < 0xFEFF) or 0xFF00 <= code < 0xFFFE:
        return letter if code not in (0x2028, 0x2029) else f"\\u{code:04x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
