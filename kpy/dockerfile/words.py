"""`$NAME`, `${NAME:-word}`, quotes and escapes in the words of instructions (X01-X13), as BuildKit's shell/lex.go.

Pure text: which variables there are, and where a word stands, is the caller's business.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field

from kpy.dockerfile.forms import SPACE, FormError
from kpy.dockerfile.span import suggest
from kpy.dockerfile.substitute import PatternError, TooLongError, replace, trim

_SPECIAL_PARAMETERS = frozenset("@*#?-$!0")
_MAX_DEPTH = 64
_SHOWN = 200
LONGEST = 1 << 20
"""Characters that a word can expand to, unless it is longer as it is written."""

_BLANKS = re.compile(f"[{SPACE}]+")


def brief(text: str) -> str:
    """The beginning of a text, for a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class WordError(FormError):
    """A word cannot be expanded. The caller knows where it stands, and makes a DockerfileError of it."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """The result. `unset` names the variables that were used without a default, and are not set."""

    text: str
    unset: frozenset[str] = frozenset()


def expand(
    word: str,
    env: Mapping[str, str],
    *,
    escape: str = "\\",
    raw_quotes: bool = False,
    raw_escapes: bool = False,
    skip_quotes: bool = False,
    skip_unset: bool = False,
) -> Expansion:
    """Expand a word; blanks stay. Raises WordError.

    `raw_quotes` and `raw_escapes` keep those characters, though they still quote. With `skip_quotes`, quotes are
    ordinary characters. `skip_unset` leaves variables that are not set as they are written.
    """
    lexer = _Lexer(
        word,
        env,
        escape=escape,
        raw_quotes=raw_quotes,
        raw_escapes=raw_escapes,
        skip_unset=skip_unset,
        skip_quotes=skip_quotes,
    )
    text, _ = lexer.until("", raw_escapes=raw_escapes)
    return Expansion(text, frozenset(lexer.unset))


def expand_words(
    word: str,
    env: Mapping[str, str],
    *,
    escape: str = "\\",
    raw_quotes: bool = False,
    raw_escapes: bool = False,
    skip_unset: bool = False,
) -> list[str]:
    """Expand, then split at blanks that are neither quoted nor escaped (X13: EXPOSE). Raises WordError."""
    lexer = _Lexer(
        word, env, escape=escape, raw_quotes=raw_quotes, raw_escapes=raw_escapes, skip_unset=skip_unset
    )
    return lexer.until("", raw_escapes=raw_escapes)[1]


def expand_heredoc(content: str, env: Mapping[str, str]) -> Expansion:
    """Expand the body of a heredoc of COPY or ADD: `\\` escapes whatever the directive says, quotes stay (H06)."""
    return expand(content, env, skip_quotes=True)


class _Text:
    """Gathers text, of so many characters at most. Variables that have others several times grow like powers."""

    def __init__(self, limit: int) -> None:
        self.parts: list[str] = []
        self._left = limit

    def add(self, text: str) -> str:
        self._left -= len(text)
        if self._left < 0:
            raise _too_long()
        self.parts.append(text)
        return text

    def __str__(self) -> str:
        return "".join(self.parts)


def _too_long() -> WordError:
    return WordError(f"it expands to more than {LONGEST >> 20} MiB", hint="do variables contain each other?")


class _Words:
    """Gathers words. Blanks end a word if they are added plain, and are part of it if they are added raw."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.word: list[str] = []

    def plain(self, text: str) -> None:
        first, *rest = _BLANKS.split(text)
        self.word.append(first)
        for part in rest:
            self.finish()
            self.word.append(part)

    def raw(self, text: str) -> None:
        self.word.append(text)

    def finish(self) -> list[str]:
        if any(self.word):
            self.words.append("".join(self.word))
        self.word = []
        return self.words


@dataclass
class _Lexer:
    """Reads one word. `raw_escapes` changes within patterns; `depth` counts substitutions within each other."""

    text: str
    env: Mapping[str, str]
    _: KW_ONLY
    escape: str
    raw_quotes: bool
    raw_escapes: bool
    skip_unset: bool
    skip_quotes: bool = False
    unset: set[str] = field(default_factory=set)
    position: int = 0
    depth: int = 0

    def __post_init__(self) -> None:
        self.limit = max(LONGEST, len(self.text))
        special = "$" + self.escape + ("" if self.skip_quotes else "'\"")
        self.plain = {stop: re.compile(f"[^{re.escape(special + stop)}]+") for stop in ("", "}", "/")}
        self.plain_quoted = re.compile(f'[^{re.escape("$" + self.escape)}"]+')

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def next(self) -> str:
        found = self.text[self.position : self.position + 1]
        self.position += 1
        return found

    def lookup(self, name: str, *, needed: bool) -> str | None:
        value = self.env.get(name)
        if value is None and needed:
            self.unset.add(name)
        return value

    def until(self, stop: str, *, raw_escapes: bool) -> tuple[str, list[str]]:
        """Read to the character `stop`, or to the end."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise WordError(f"syntax error: more than {_MAX_DEPTH} substitutions within each other")
        outer, self.raw_escapes = self.raw_escapes, raw_escapes
        result = _Text(self.limit)
        words = _Words()
        plain = self.plain[stop]
        quoted: dict[str, Callable[[], str]] = {}
        if not self.skip_quotes:
            quoted = {"'": self.single_quoted, '"': self.double_quoted}
        while character := self.peek():
            if character == stop:
                break
            if run := plain.match(self.text, self.position):
                self.position = run.end()
                words.plain(result.add(run[0]))
            elif character == "$":
                words.plain(result.add(self.dollar()))
            elif character in quoted:
                words.raw(result.add(quoted[character]()))
            else:
                words.raw(result.add(self.escaped()))
        if stop and not self.next():
            missing = "'}'" if stop == "}" else "'/' in ${}"
            raise WordError(f"syntax error: missing {missing} in the substitution")
        self.raw_escapes = outer
        self.depth -= 1
        return str(result), words.finish()

    def escaped(self) -> str:
        """An escape and the character behind it; at the end of the word it vanishes."""
        mark = self.next()
        return (mark if self.raw_escapes else "") + self.next()

    def single_quoted(self) -> str:
        begin = self.position + 1
        end = self.text.find("'", begin)
        if end < 0:
            raise WordError("unexpected end of statement while looking for matching single-quote")
        self.position = end + 1
        return self.text[begin - 1 : end + 1] if self.raw_quotes else self.text[begin:end]

    def double_quoted(self) -> str:
        self.position += 1
        mark = '"' if self.raw_quotes else ""
        result = _Text(self.limit)
        result.add(mark)
        while character := self.peek():
            if character == '"':
                self.position += 1
                result.add(mark)
                return str(result)
            if run := self.plain_quoted.match(self.text, self.position):
                self.position = run.end()
                result.add(run[0])
            elif character == "$":
                result.add(self.dollar())
            else:
                self.position += 1
                if self.raw_escapes:
                    result.add(character)
                if self.peek() in ('"', "$", self.escape):
                    result.add(self.next())
                elif self.peek():
                    # Other characters cannot be escaped here: the escape stays.
                    result.add(character)
        raise WordError("unexpected end of statement while looking for matching double-quote")

    def name(self) -> str:
        """A name, a number, or one special parameter; empty if there is none of these."""
        begin = self.position
        first = self.peek()
        if first.isdecimal():
            while self.peek().isdecimal():
                self.position += 1
        elif first in _SPECIAL_PARAMETERS and first:
            self.position += 1
        else:
            while (character := self.peek()) and (
                character.isalpha() or character.isdecimal() or character == "_"
            ):
                self.position += 1
        return self.text[begin : self.position]

    def dollar(self) -> str:
        begin = self.position
        self.position += 1
        if self.peek() == "{":
            self.position += 1
            return self.braces(begin)
        name = self.name()
        if not name:
            return "$"
        value = self.lookup(name, needed=True)
        return self.text[begin : self.position] if value is None and self.skip_unset else value or ""

    def braces(self, begin: int) -> str:
        """What follows `${`."""
        if not self.peek():
            raise WordError("syntax error: missing '}' in the substitution")
        if self.peek() in "{}:":
            raise WordError("syntax error: bad substitution")
        name = self.name()
        modifier = self.next()
        if modifier == ":":
            modifier += self.next()
        kind = modifier[-1:]
        if modifier in ("", ":"):
            raise WordError("syntax error: missing '}' in the substitution")
        if not name:
            raise WordError("syntax error: bad substitution")
        if modifier in (":#", ":%", ":/", ":}") or kind not in "}+-?#%/":
            shown = modifier if modifier.isprintable() else ascii(modifier)
            raise WordError(
                f"unsupported modifier ({shown}) in substitution",
                hint="there are :- - :+ + :? ? # ## % %% / //",
            )
        pattern, every = "", False
        if kind == "/":
            every = self.peek() == "/"
            self.position += every
            pattern, _ = self.until("/", raw_escapes=True)
        word = "" if kind == "}" else self.until("}", raw_escapes=kind in "#%/")[0]
        value = self.lookup(name, needed=kind not in "-+?")
        if value is None and self.skip_unset:
            return self.text[begin : self.position]
        try:
            if kind == "/":
                return replace(value or "", pattern, word, every=every, limit=self.limit)
            return _substitute(name, value, modifier, word, self.env)
        except TooLongError:
            raise _too_long() from None
        except PatternError as error:
            raise WordError(f"invalid pattern ({brief(pattern or word)}) in substitution: {error}") from error


def _substitute(name: str, value: str | None, modifier: str, word: str, env: Mapping[str, str]) -> str:
    """`value` modified by what stands in the braces; None is not set. Raises WordError, PatternError."""
    text = value or ""
    has_value = value is not None and not (modifier.startswith(":") and not text)
    match modifier[-1]:
        case "-":
            return text if has_value else word
        case "+":
            return word if has_value else ""
        case "?":
            if not has_value:
                state = "not set" if value is None else "empty"
                near = suggest(name, env) if value is None else ""
                raise WordError(f"required variable {name} is {state}" + (f": {word}" if word else ""), hint=near)
            return text
        case "#" | "%" as kind:
            return trim(text, word.removeprefix(kind), suffix=kind == "%", longest=word.startswith(kind))
        case _:
            return text
