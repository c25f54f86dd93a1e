"""Here-documents: finding them in a line, and what a RUN with heredocs executes (H01-H09)."""

import re
from dataclasses import dataclass
from typing import TypeAlias

from kpy.dockerfile.instructions import Command, ExecForm, Heredoc, Run, ShellForm
from kpy.dockerfile.words import WordError, expand_words

PIPES = "/dev/pipes"
_HEREDOC = re.compile(r"([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)", re.ASCII)
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)


def parse_heredoc(word: str) -> Heredoc | None:
    """The heredoc that a word starts, without content; None if it starts none. Raises WordError."""
    found = _HEREDOC.fullmatch(word)
    if not found or not found[3]:
        return None
    # The delimiter is read with and without its quotes: any difference means that it is quoted.
    names = expand_words(found[3], {}, skip_unset=True)
    raw = expand_words(found[3], {}, raw_quotes=True, skip_unset=True)
    if len(names) != 1 or len(raw) != 1:
        return None
    quotes, raw_quotes = (sum(text.count(quote) for quote in "'\"") for text in (names[0], raw[0]))
    return Heredoc(names[0], "", quotes == raw_quotes, bool(found[2]), int(found[1][:9] or "0"))


def heredocs_of(line: str) -> list[Heredoc]:
    """The heredocs that a whole line starts, in order, without contents. Raises WordError."""
    if "<<" not in line:
        return []
    try:
        words = expand_words(line, {}, raw_quotes=True, raw_escapes=True, skip_unset=True)
    except WordError:
        return []  # quotes that never end are the shell's business
    return [found for word in words if (found := parse_heredoc(word))]


def chomp(content: str) -> str:
    """Without the leading tabs of every line, as `<<-` has it (H04)."""
    return _LEADING_TABS.sub("", content)


def is_file_name(name: str) -> bool:
    """Whether a delimiter can name the file that holds the body: no path, which could lead elsewhere."""
    return "/" not in name and name not in (".", "..")


@dataclass(frozen=True, slots=True)
class HeredocScript:
    """The body is the text that the shell gets in place of a command: `SHELL + [text]` (H07)."""

    text: str


@dataclass(frozen=True, slots=True)
class HeredocFile:
    """A body with `#!`: written 0755 to `path`, below a read-only mount, and run by `SHELL + [path]` (H07)."""

    name: str
    content: str

    @property
    def path(self) -> str:
        """Where the command sees the file."""
        return f"{PIPES}/{self.name}"


RunForm: TypeAlias = Command | HeredocScript | HeredocFile


def heredoc_shell_text(run: Run) -> RunForm:
    """What a RUN executes.

    Without heredocs: its command. `RUN <<EOF` and nothing else: the body as a script, or as a file if it starts with
    `#!`. Anything beside the heredoc (`RUN python3 <<EOF`): a ShellForm of the command with its bodies put back, for
    the shell to handle (H08). The builder expands nothing in the bodies. Raises DockerfileError if the delimiter of a
    `#!` body cannot name a file.
    """
    if not run.heredocs or isinstance(run.command, ExecForm):
        return run.command
    text = run.command.text
    try:
        alone = parse_heredoc(text) is not None
    except WordError:
        alone = False
    if alone:
        body = run.heredocs[0]
        if body.content.startswith("#!"):
            if not is_file_name(body.name):
                raise run.span.error(f"invalid heredoc: {body.name!r} cannot be the name of a file")
            return HeredocFile(body.name, body.content)
        return HeredocScript(body.content)
    return ShellForm(text + "".join(f"\n{item.raw}{item.name}" for item in run.heredocs))
