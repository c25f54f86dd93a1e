"""One instruction before it is typed: keyword and arguments, and the two forms that several instructions share."""

from collections.abc import Mapping
from dataclasses import dataclass

from kpy.dockerfile.flags import Flags, Kind, parse_flags
from kpy.dockerfile.forms import SPACE, FormError, json_array, split_blanks, split_flags
from kpy.dockerfile.instructions import Command, ExecForm, ShellForm
from kpy.dockerfile.lines import LogicalLine
from kpy.dockerfile.span import Span


@dataclass(frozen=True, slots=True)
class Line:
    """What a statement is made of: keyword as written, all that follows it, and the logical line of both."""

    keyword: str
    rest: str
    line: LogicalLine
    escape: str

    @property
    def span(self) -> Span:
        """Where it stands."""
        return self.line.span

    @property
    def original(self) -> str:
        """The whole instruction as one line."""
        return self.line.text.strip(SPACE)

    @property
    def name(self) -> str:
        """The keyword in capitals."""
        return self.keyword.upper()

    def flags(self, known: Mapping[str, Kind] | None = None) -> tuple[Flags, str]:
        """The flags, and the arguments behind them."""
        words, rest = split_flags(self.rest)
        return parse_flags(words, known or {}), rest

    def one(self) -> str:
        """The only argument: all text."""
        _, rest = self.flags()
        if not rest:
            raise FormError(f"{self.name} requires exactly one argument")
        return rest


def command(text: str) -> Command:
    argv = json_array(text)
    return ShellForm(text) if argv is None else ExecForm(tuple(argv))


def words_or_json(text: str) -> tuple[list[str], bool]:
    """A JSON array or blank separated words, and which of both."""
    found = json_array(text)
    return (split_blanks(text), False) if found is None else (found, True)
