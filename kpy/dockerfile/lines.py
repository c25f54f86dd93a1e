"""Bytes to logical lines: byte order mark, parser directives, comments, continuations, heredoc bodies (P01-P09, P16).

Knows of instructions only which of them can have heredocs. Lines may be of any length; the file may not.
"""

import json
import re
from dataclasses import dataclass, field, replace

from kpy.dockerfile.forms import SPACE, FormError, json_array, split_flags, split_keyword
from kpy.dockerfile.heredoc import chomp, heredocs_of
from kpy.dockerfile.instructions import Heredoc
from kpy.dockerfile.model import Directives
from kpy.dockerfile.span import Source, Span
from kpy.errors import DockerfileError

MAX_SIZE = 16 << 20
MAX_INSTRUCTIONS = 20_000  # planned within a second; docker takes 127 layers
_BOM = b"\xef\xbb\xbf"
_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+)", re.ASCII)  # of a stripped line
_DIRECTIVES = ("syntax", "escape", "check")
_WITH_HEREDOCS = ("RUN", "COPY", "ADD")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """One instruction: `text` with continuations joined and comments dropped, and its heredocs."""

    text: str
    span: Span
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Lines:
    """A Dockerfile as lines."""

    source: Source
    directives: Directives
    lines: tuple[LogicalLine, ...]


@dataclass
class _Physical:
    """The physical lines, with their ends, and how far we are."""

    source: Source
    lines: list[str] = field(repr=False)
    position: int = 0

    def take(self) -> str | None:
        if self.position == len(self.lines):
            return None
        self.position += 1
        return self.lines[self.position - 1]


def read(data: bytes, name: str, *, directives: bool = True) -> Lines:
    """Read a Dockerfile. Raises DockerfileError. Without `directives` they are comments (ONBUILD triggers)."""
    if len(data) > MAX_SIZE:
        raise DockerfileError(f"{name} is larger than {MAX_SIZE >> 20} MiB", file=name)
    data = data.removeprefix(_BOM)
    if not data:
        raise DockerfileError(f"{name} is empty", file=name)
    # Comments may be in any encoding: only bytes of instructions must be UTF-8.
    text = data.decode("utf-8", "surrogateescape")
    lines = _split(text)
    shown = tuple(_NOT_UTF8.sub("\ufffd", line.rstrip("\r\n")) for line in lines)
    physical = _Physical(Source(name, shown), lines)
    found = _directives(physical) if directives else Directives()
    logical: list[LogicalLine] = []
    while line := _logical(physical, found.escape):
        if len(logical) == MAX_INSTRUCTIONS:
            raise line.span.error(
                f"more than {MAX_INSTRUCTIONS} instructions", hint="put commands into a script that one RUN calls"
            )
        logical.append(line)
    if not logical:
        raise DockerfileError(f"{name}: file with no instructions", file=name)
    return Lines(physical.source, found, tuple(logical))


def _split(text: str) -> list[str]:
    """At line feeds and nothing else; line ends stay, heredoc bodies need them."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _directives(physical: _Physical) -> Directives:
    """Read the region of directives at the top; it ends at the first line that is none (P05)."""
    _refuse_json(physical)
    if physical.lines[0].startswith("#!"):
        physical.position = 1
    shebang, mark = physical.position == 1, "#"
    if "".join(physical.lines[physical.position : physical.position + 1]).startswith("//"):
        mark = "//"
    found: dict[str, str] = {}
    spans: dict[str, Span] = {}
    for number, line in enumerate(physical.lines[physical.position :], physical.position + 1):
        stripped = line.strip(SPACE)
        match = (
            _DIRECTIVE.fullmatch(stripped.removeprefix(mark).lstrip(SPACE))
            if stripped.startswith(mark)
            else None
        )
        key = match[1].lower() if match else ""
        if not match or key not in _DIRECTIVES:
            break
        span = Span(physical.source, number, number)
        if key in found:
            raise span.error(f"only one {key} parser directive can be used")
        found[key], spans[key] = _NOT_UTF8.sub("\ufffd", match[2]), span
        physical.position = number
    # BuildKit reads `syntax` and `check` behind a `#!` line and in `//` lines, but not `escape`.
    escape = found.get("escape", "\\") if mark == "#" and not shebang else "\\"
    if escape not in ("\\", "`"):
        raise spans["escape"].error(f"invalid escape token {escape!r}: it must be ` or \\")
    return Directives(found.get("syntax", "").split(" ")[0], escape, found.get("check", ""), spans)


def _refuse_json(physical: _Physical) -> None:
    """A JSON object with `syntax` (P02) is a document for another frontend."""
    if not physical.lines[0].lstrip(SPACE).startswith("{"):
        return
    try:
        found = json.loads("".join(physical.lines))
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict) and isinstance(found.get("syntax"), str):
        raise Span(physical.source, 1, 1).error(
            f"unsupported syntax: the file is JSON for the frontend {found['syntax']!r}, not a Dockerfile"
        )


def _logical(physical: _Physical, escape: str) -> LogicalLine | None:
    """The next instruction; None at the end."""
    while (line := physical.take()) is not None:
        first = physical.position
        text, continued = continuation(_without_comment(line.rstrip("\r\n").lstrip(SPACE)), escape)
        if not text and not continued:
            continue
        parts = [text]
        while continued and (line := physical.take()) is not None:
            line = line.rstrip("\r\n")
            stripped = line.lstrip(SPACE)
            if stripped and not stripped.startswith("#"):
                text, continued = continuation(line, escape)
                parts.append(text)
        text = "".join(parts)
        if not text.strip(SPACE):
            raise Span(physical.source, first, physical.position).error(
                "unexpected end of file: no instruction follows"
            )
        _check_text(text, Span(physical.source, first, physical.position))
        heredocs = _heredocs(physical, text, first)
        return LogicalLine(text, Span(physical.source, first, physical.position), heredocs)
    return None


def _without_comment(line: str) -> str:
    return "" if line.startswith("#") else line


def continuation(line: str, escape: str) -> tuple[str, bool]:
    """The line without a continuation mark, and whether there was one; a doubled escape is none (P07)."""
    stripped = line.rstrip(" \t")
    if stripped.endswith(escape) and stripped[-2:-1] != escape:
        return stripped[:-1], True
    return line, False


def _check_text(text: str, span: Span) -> None:
    if _NOT_UTF8.search(text):
        raise span.error(
            "invalid text: not UTF-8", hint="save the Dockerfile as UTF-8; only comments may be anything"
        )
    if "\0" in text:
        raise span.error("invalid text: a NUL character")


def _heredocs(physical: _Physical, text: str, first: int) -> tuple[Heredoc, ...]:
    """Take the bodies of the heredocs that `text` starts (H02)."""
    span = Span(physical.source, first, physical.position)
    try:
        started = heredocs_of(text) if _may_have_heredocs(text) else []
    except FormError as error:
        raise span.error(f"invalid heredoc: {error.message}", hint=error.hint) from error
    found = []
    for heredoc in started:
        body: list[str] = []
        while True:
            line = physical.take()
            if line is None:
                raise Span(physical.source, first, physical.position).error(
                    f"unterminated heredoc: no line {heredoc.name!r} follows"
                )
            end = line.rstrip("\r\n")
            if (end.lstrip("\t") if heredoc.chomp else end) == heredoc.name:
                break
            body.append(line)
        raw = "".join(body)
        _check_text(raw, Span(physical.source, first, physical.position))
        found.append(replace(heredoc, content=chomp(raw) if heredoc.chomp else raw, raw=raw))
    return tuple(found)


def _may_have_heredocs(text: str) -> bool:
    """RUN, COPY and ADD, also behind ONBUILD, that are not in JSON form (H01)."""
    if "<<" not in text:
        return False
    keyword, rest = split_keyword(text)
    if keyword.upper() == "ONBUILD":
        keyword, rest = split_keyword(split_flags(rest)[1])
    if keyword.upper() not in _WITH_HEREDOCS:
        return False
    try:
        return json_array(split_flags(rest)[1]) is None
    except FormError:
        return False  # the parser will say what is wrong
