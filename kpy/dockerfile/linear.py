"""Patterns with any number of stars against a text, in time linear in both. Knows nothing of files or of pattern syntax.

A regular expression tries the places of each star again for each place of the one before: with seven stars, minutes. This
is the other way, that of RE2 and so of Go: all ways to match are followed at once, one character of the text at a time. The
set of ways is the bits of one integer (Baeza-Yates and Gonnet, "A New Approach to Text Searching", 1992).
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

LEVEL: Final = "[^/]*"  # any text in one component
DEPTH: Final = "(?:.*/)?"  # any number of whole components
REST: Final = ".*"  # any text
LOOPS: Final = (LEVEL, DEPTH, REST)
_REMEMBERED = 256  # characters


class Automaton:
    """Matches whole texts against tokens: regular expressions of one character each, and the LOOPS between them.

    What follows a LEVEL is one character; what follows a REST is nothing.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        # Bit n is the nth place in the pattern. A DEPTH has a place of its own, before that of the token after it.
        level: list[int] = []
        depth: list[int] = []
        rest: list[int] = []
        places: dict[str, list[int]] = {}
        here = self._least = 0
        for token in tokens:
            if token == LEVEL:
                level.append(here)
            elif token == REST:
                rest.append(here)
            elif token == DEPTH:
                depth.append(here)
                here += 1
            else:
                places.setdefault(token, []).append(here)
                here += 1
                self._least += 1
        self._level, self._depth, self._any = _bits(level), _bits(depth), _bits([*depth, *rest])
        self._end = here
        self._places = [(token, _class(token), at) for token, at in places.items()]
        self._masks: dict[str, int] = {}

    def matches(self, text: str) -> bool:
        """Does the whole text match?"""
        if len(text) < self._least:
            return False
        ways = 1 | (self._depth & 1) << 1
        for character in text:
            mask = self._masks.get(character)
            if mask is None:
                mask = self._mask(character)
            entered = (ways & mask) << 1
            # Who comes to a DEPTH may go past it at once.
            entered |= (entered & self._depth) << 1
            if character == "/":
                ways = entered | (ways & self._depth) << 1 | ways & self._any
            else:
                ways = entered | ways & (self._any | self._level)
            if not ways:
                return False
        return bool(ways >> self._end & 1)

    def _mask(self, character: str) -> int:
        """The places that this character leads away from."""
        literal = re.escape(character)
        fitting = (
            place
            for token, pattern, at in self._places
            if token == literal or (pattern is not None and pattern.match(character))
            for place in at
        )
        if len(self._masks) >= _REMEMBERED:
            self._masks.clear()
        mask = self._masks[character] = _bits(fitting)
        return mask


def _class(token: str) -> re.Pattern[str] | None:
    """What matches the token, unless it is a literal."""
    return re.compile(token, re.DOTALL) if token.startswith(("[", "(")) else None


def _bits(places: Iterable[int]) -> int:
    found = bytearray()
    for place in places:
        if place >> 3 >= len(found):
            found += bytes((place >> 3) + 1 - len(found))
        found[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(found, "little")
