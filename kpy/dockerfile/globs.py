"""Path patterns: Go's filepath.Match (COPY wildcards) and moby/patternmatcher's (`**`; .dockerignore, --exclude).

Strings only, `/` separates. Matching takes time linear in the pattern and in the name, whatever they are: somebody else
may have written both. A Glob's stars are matched without going back (atomic groups); a PathPattern is a regular expression
as long as it has so few stars that going back costs nothing, else an Automaton.
"""

import re
from dataclasses import dataclass, field

from kpy.dockerfile.forms import FormError
from kpy.dockerfile.linear import DEPTH, LEVEL, LOOPS, REST, Automaton


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern of Go's filepath.Match: `*` `?` `[a-z]` `[^x]` `\\x`; stars do not cross `/` (C04)."""

    pattern: str
    _regex: re.Pattern[str] = field(repr=False, compare=False)

    @staticmethod
    def parse(pattern: str) -> "Glob":
        """Raises FormError for a malformed pattern."""
        chunks: list[str] = [""]
        for token in tokens(pattern):
            if token == "*":
                chunks.append("")
            else:
                chunks[-1] += "[^/]" if token == "?" else token
        first, *rest = chunks
        # The leftmost place for a chunk is as good as any later one, except for the last, which must end the name.
        middle = "".join(f"(?>[^/]*?{chunk})" for chunk in rest[:-1] if chunk)
        last = f"[^/]*{rest[-1]}" if rest else ""
        return Glob(pattern, re.compile(f"{first}{middle}{last}", re.DOTALL))

    def matches(self, name: str) -> bool:
        """Whether the whole name matches."""
        return self._regex.fullmatch(name) is not None


def match(pattern: str, name: str) -> bool:
    """filepath.Match. Raises FormError for a malformed pattern; use `Glob` to match many names."""
    return Glob.parse(pattern).matches(name)


def tokens(pattern: str) -> list[str]:
    """`*`, `?`, or the regular expression of one character. Raises FormError as filepath.Match gives ErrBadPattern."""
    found: list[str] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character in "*?":
            found.append(character)
        elif character == "[":
            token, position = _character_class(pattern, position)
            found.append(token)
        elif character == "\\":
            if position == len(pattern):
                raise _bad(pattern)
            found.append(re.escape(pattern[position]))
            position += 1
        else:
            found.append(re.escape(character))
    return found


def _character_class(pattern: str, position: int) -> tuple[str, int]:
    """The class that starts behind `[`, as a regular expression, and where it ends."""
    negated = pattern.startswith("^", position)
    position += negated
    ranges: list[str] = []
    while not (ranges and pattern.startswith("]", position)):
        low, position = _class_character(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _class_character(pattern, position + 1)
        # An empty range (z-a) matches nothing, and is no error.
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            ranges.append("")
    body = "".join(ranges)
    if not body:
        return ("(?s:.)" if negated else r"(?!)"), position + 1
    return f"[{'^' if negated else ''}{body}]", position + 1


def _class_character(pattern: str, position: int) -> tuple[str, int]:
    character = pattern[position : position + 1]
    if character in ("", "-", "]"):
        raise _bad(pattern)
    if character == "\\":
        position += 1
        character = pattern[position : position + 1]
    if not character or position + 1 >= len(pattern):
        raise _bad(pattern)
    return character, position + 1


def _bad(pattern: str) -> FormError:
    return FormError(f"invalid pattern {pattern!r}: syntax error", hint="escape [ and \\ with a backslash")


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A pattern of moby/patternmatcher, without `!`, already cleaned: as filepath.Match, and `**` for any depth (G05).

    Its four ways to match give different results for odd patterns (`**foo` matches `barfoo`, `**foo*` does not match
    `barfoox`), so they are kept apart as there.
    """

    pattern: str
    _exact: bool = field(compare=False)
    _prefix: str | None = field(compare=False)
    _suffix: str | None = field(compare=False)
    _compiled: "re.Pattern[str] | _Stars | None" = field(compare=False, repr=False)

    @staticmethod
    def parse(pattern: str) -> "PathPattern":
        """Raises FormError for a malformed pattern."""
        found = tokens(pattern)
        special = [token for token in found if token in ("*", "?") or token.startswith(("[", "(?"))]
        plain = not special and "\\" not in pattern
        double = found[:2] == ["*", "*"]
        if plain:
            return PathPattern(pattern, True, None, None, None)
        if double and len(special) == 2 and "\\" not in pattern:
            return PathPattern(pattern, False, None, pattern[2:], None)
        if found[-2:] == ["*", "*"] and len(special) == 2 and "\\" not in pattern:
            return PathPattern(pattern, False, pattern[:-2], None, None)
        parts = _path_tokens(found)
        loops = [part for part in parts if part in LOOPS and part != REST]  # what comes to a REST has matched
        # Going back is quick here: to a slash for DEPTH, to a character of the one component for LEVEL.
        simple = loops in ([], [DEPTH], [LEVEL], [DEPTH, LEVEL])
        compiled = re.compile("".join(parts), re.DOTALL) if simple else _Stars.of(parts)
        return PathPattern(pattern, False, None, None, compiled)

    def matches(self, path: str) -> bool:
        """Whether the path itself matches; parents are the caller's business."""
        if isinstance(self._compiled, _Stars):
            return self._compiled.matches(path)
        if self._compiled is not None:
            return self._compiled.fullmatch(path) is not None
        if self._exact:
            return path == self.pattern
        if self._prefix is not None:
            return path.startswith(self._prefix)
        suffix = self._suffix or ""
        return path.endswith(suffix) or (suffix.startswith("/") and path == suffix[1:])


@dataclass(frozen=True, slots=True)
class _Stars:
    """A path pattern with many stars. Most paths fail for the longest text that all must have, which is quick."""

    needed: str
    automaton: Automaton

    @staticmethod
    def of(parts: list[str]) -> "_Stars":
        texts = [""]
        for part in parts:
            letter = part[-1]
            if part == re.escape(letter):
                texts[-1] += letter
            else:
                texts.append("")
        return _Stars(max(texts, key=len), Automaton(parts))

    def matches(self, path: str) -> bool:
        return self.needed in path and self.automaton.matches(path)


def _path_tokens(found: list[str]) -> list[str]:
    """Regular expressions of one character each, and the loops between them."""
    parts: list[str] = []
    position = 0
    while position < len(found):
        token = found[position]
        if found[position : position + 2] == ["*", "*"]:
            position += 2
            if found[position : position + 1] == ["/"]:
                position += 1
            part = REST if position >= len(found) else DEPTH
        else:
            position += 1
            part = {"*": LEVEL, "?": "[^/]"}.get(token, token)
        # Twice the same star is one star.
        if not (part in (DEPTH, LEVEL) and parts and parts[-1] == part):
            parts.append(part)
    return parts
