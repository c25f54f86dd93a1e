"""Comments above an instruction: descriptions of stages and arguments, and checks that are switched off there."""

import re
from collections.abc import Iterator

from kpy.dockerfile.forms import SPACE
from kpy.dockerfile.span import Source, Span

_FARTHEST = 1000  # lines; a longer comment has no description at its other end
_CHECK = re.compile(r"check\s*=\s*(.+)", re.IGNORECASE)
_DIRECTIVE = re.compile(r"(?:syntax|escape|check)\s*=", re.IGNORECASE)


def comments_above(span: Span) -> Iterator[tuple[int, str]]:
    """The comments right above an instruction, the nearest first: line number, and text without `#`.

    An empty line ends them. What is right above an instruction and starts with `#` is a comment, whatever came before.
    """
    number = span.first - 1
    while number >= max(1, span.first - _FARTHEST):
        line = span.source.lines[number - 1].strip(SPACE)
        if not line.startswith("#"):
            return
        yield number, line[1:].strip(SPACE)
        number -= 1


def checks_above(span: Span) -> Iterator[tuple[Span, str]]:
    """The values of `# check=` comments right above an instruction, and where they stand (P04)."""
    for number, text in comments_above(span):
        if match := _CHECK.fullmatch(text):
            yield Span(span.source, number, number), match[1]


def description(source: Source, first: int, name: str) -> str:
    """What a comment `# NAME text` right above line `first` says about NAME; empty if there is none."""
    found = ""
    for _, text in comments_above(Span(source, first, first)):
        if name and text.startswith(name + " "):
            found = text[len(name) :].strip(SPACE)
    return found


def last_words(span: Span) -> list[str]:
    """The words of the comment nearest to an instruction; none if it is empty, or there is none.

    Directives are no comments here.
    """
    for _, text in comments_above(span):
        if not _DIRECTIVE.match(text):
            return text.split()
    return []
