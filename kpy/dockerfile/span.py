"""Where something stands in a Dockerfile, and how an error shows it (P15)."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

from kpy.errors import DockerfileError, KpyError


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a Dockerfile, by physical line, without line ends. `name` is what errors call the file."""

    name: str
    lines: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Span:
    """Lines `first`..`last` of a source, 1-based, inclusive."""

    source: Source = field(repr=False, compare=False)
    first: int
    last: int

    def excerpt(self, context: int = 2) -> str:
        """The lines, two more on each side, numbered, those meant marked with `>>>`; at most 40 lines."""
        begin, end = max(1, self.first - context), min(len(self.source.lines), self.last + context)
        rows = []
        for number in range(begin, end + 1):
            if self.last - self.first > 32 and self.first + 16 < number < self.last - 16:
                if number == self.first + 17:
                    rows.append("      |     ...")
                continue
            mark = ">>>" if self.first <= number <= self.last else "   "
            rows.append(f"{number:4d} | {mark} {self.source.lines[number - 1][:400]}".rstrip())
        return "\n".join(rows)

    def error(self, message: str, *, hint: str = "") -> DockerfileError:
        """The error to raise for these lines."""
        return DockerfileError(
            message,
            file=self.source.name,
            first_line=self.first,
            last_line=self.last,
            excerpt=self.excerpt(),
            hint=hint,
        )

    def blame(self, error: KpyError, *, step: str = "") -> None:
        """Say that an error came from these lines, and from which step. What it says already stays."""
        if not error.first_line:
            error.file, error.first_line, error.last_line = self.source.name, self.first, self.last
            error.excerpt = self.excerpt()
        error.step = error.step or step


def suggest(word: str, known: Iterable[str]) -> str:
    """`did you mean "x"?` for the known word that is nearest, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'did you mean "{near[0]}"?' if near and near[0] != word else ""
