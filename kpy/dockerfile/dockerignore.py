""".dockerignore: which paths of a context are left out (G03-G06). Pure: paths are strings, `/` between, no leading `/`.

The last matching pattern wins; a pattern that matches a directory matches all below it; `!` takes paths back in, also
below an excluded directory. Semantics of moby/patternmatcher, as BuildKit's context transfer uses it.
"""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from kpy.dockerfile.forms import SPACE, FormError
from kpy.dockerfile.globs import Glob, PathPattern
from kpy.dockerfile.span import Source, Span
from kpy.errors import DockerfileError

_LIMIT = 4 << 20

State: TypeAlias = tuple[bool, ...]
"""Which patterns match a directory or a parent of it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern; `keep` if it had a `!`. `parts` are its path components then, for `may_include_below`; `line` and `text` say
    where and how it is written, for people."""

    pattern: PathPattern
    keep: bool
    parts: tuple[Glob | None, ...] = field(compare=False, repr=False, default=())
    line: int = field(compare=False, repr=False, default=0)
    text: str = field(compare=False, repr=False, default="")


@dataclass(frozen=True, slots=True)
class Ignore:
    """All patterns, in order, and the file that they are from. The empty one excludes nothing."""

    rules: tuple[Rule, ...] = ()
    name: str = field(compare=False, default="")

    @staticmethod
    def parse(data: bytes, name: str = ".dockerignore") -> "Ignore":
        """Read an ignore file. Raises DockerfileError with file and line."""
        source, numbered = _lines(data, name)
        rules = []
        for number, text in numbered:
            try:
                rules.append(replace(_rule(text), line=number, text=text))
            except FormError as error:
                raise Span(source, number, number).error(error.message, hint=error.hint) from error
        return Ignore(tuple(rules), name)

    @staticmethod
    def of(patterns: Iterable[str]) -> "Ignore":
        """Patterns as such, for COPY --exclude (C21). Raises FormError."""
        stripped = (text.strip(SPACE) for text in patterns)
        return Ignore(tuple(_rule(text) for text in stripped if text))

    def excluded(self, path: str, parent: State = ()) -> tuple[bool, State]:
        """Whether the path is left out, given the state of its directory (empty: it is in the root).

        The second value is the path's own state, for what is below it.
        """
        matched = False
        state = []
        known = parent or (False,) * len(self.rules)
        for rule, match in zip(self.rules, known, strict=True):
            # As in moby: a pattern that could change nothing is not tried.
            if not match and rule.keep == matched:
                match = rule.pattern.matches(path)
            if match:
                matched = not rule.keep
            state.append(match)
        return matched, tuple(state)

    def matches(self, path: str) -> bool:
        """Whether the path is left out. For a walk, `excluded` is cheaper."""
        matched, position = False, 0
        state: State = ()
        while position >= 0:
            position = path.find("/", position)
            head = path if position < 0 else path[:position]
            matched, state = self.excluded(head, state)
            position += position >= 0
        return matched

    def decisive(self, path: str) -> Rule | None:
        """The last pattern that changed whether the path is left out; None if no pattern ever did."""
        state: State = ()
        for position in (place for place, char in enumerate(path) if char == "/"):
            _, state = self.excluded(path[:position], state)
        decided, matched = None, False
        _, state = self.excluded(path, state)
        for rule, match in zip(self.rules, state, strict=True):
            if match and rule.keep == matched:
                decided, matched = rule, not rule.keep
        return decided

    def may_include_below(self, directory: str) -> bool:
        """Whether a walk must go into this excluded directory, because a `!` pattern may match below it."""
        names = directory.split("/")
        return any(rule.keep and _reaches(rule.parts, names) for rule in self.rules)


def _reaches(parts: tuple[Glob | None, ...], names: list[str]) -> bool:
    for part, name in zip(parts, names, strict=False):
        if part is None:
            return True
        if not part.matches(name):
            return False
    return len(parts) >= len(names)


def _rule(text: str) -> Rule:
    keep = text.startswith("!")
    pattern = text[1:].strip(SPACE) if keep else text
    if not pattern:
        raise FormError(f'illegal exclusion pattern: "{text}"', hint="name what to keep after the !")
    pattern = clean(pattern)
    if len(pattern) > 1 and pattern.startswith("/"):
        pattern = pattern[1:]
    found = PathPattern.parse(pattern)
    return Rule(found, keep, _parts(pattern) if keep else ())


def _parts(pattern: str) -> tuple[Glob | None, ...]:
    """The components as globs; None for one with `**`, and for one that is cut within a `[…/…]`."""
    parts: list[Glob | None] = []
    for part in pattern.split("/"):
        try:
            parts.append(None if "**" in part else Glob.parse(part))
        except FormError:
            parts.append(None)
        if parts[-1] is None:
            break
    return tuple(parts)


def clean(path: str) -> str:
    """Go's filepath.Clean. (posixpath.normpath keeps two leading slashes, which POSIX allows.)"""
    return posixpath.normpath("/" + path.lstrip("/") if path.startswith("/") else path)


def _lines(data: bytes, name: str) -> tuple[Source, list[tuple[int, str]]]:
    if len(data) > _LIMIT:
        raise DockerfileError(f"{name} is larger than {_LIMIT >> 20} MiB", file=name)
    # File names are bytes; os.fsdecode gives the same surrogates for those that are not UTF-8.
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    shown = tuple(line.encode("utf-8", "replace").decode("utf-8", "replace") for line in lines)
    numbered = [
        (number, line.strip(SPACE))
        for number, line in enumerate(lines, 1)
        if not line.startswith("#") and line.strip(SPACE)
    ]
    return Source(name, shown), numbered
