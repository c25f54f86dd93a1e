"""File modes as chmod(1) writes them: octal, or symbolic as `u=rwX,go=rX` (C09). Umask is 0."""

import re
from dataclasses import dataclass

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_ACTION = re.compile(r"([-+=])([ugo](?![rwxXst])|[rwxXst]*)")
_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


@dataclass(frozen=True, slots=True)
class Mode:
    """A parsed mode: `octal` if it is a number, else the clauses of a symbolic one."""

    octal: int | None
    clauses: tuple[tuple[str, str, str], ...] = ()

    def apply(self, mode: int, *, is_dir: bool) -> int:
        """The new permission bits (07777) of a file that has `mode`."""
        if self.octal is not None:
            return self.octal
        for who, operator, what in self.clauses:
            mode = _apply(mode, who, operator, what, is_dir=is_dir)
        return mode


def parse_mode(text: str) -> Mode:
    """Read a mode. Raises ValueError when it is none."""
    if re.fullmatch(r"[0-7]{1,5}", text) and int(text, 8) <= 0o7777:
        return Mode(int(text, 8))
    clauses: list[tuple[str, str, str]] = []
    for part in text.split(","):
        match = _CLAUSE.fullmatch(part)
        if match is None:
            raise ValueError(text)
        who = match[1] or "a"
        for operator, what in _ACTION.findall(match[2]):
            clauses.append((who, operator, what))
    return Mode(None, tuple(clauses))


def _apply(mode: int, who: str, operator: str, what: str, *, is_dir: bool) -> int:
    people = "ugo" if "a" in who else who
    mask = special = 0
    for person in people:
        bits = 0
        if what in _SHIFT:
            bits = mode >> _SHIFT[what] & 7
        else:
            for letter in what:
                if letter in _BITS:
                    bits |= _BITS[letter]
                elif letter == "X" and (is_dir or mode & 0o111):
                    bits |= 1
                elif letter == "s":
                    special |= {"u": 0o4000, "g": 0o2000}.get(person, 0)
                elif letter == "t":
                    special |= 0o1000
        mask |= bits << _SHIFT[person]
    mask |= special
    if operator == "+":
        return mode | mask
    if operator == "-":
        return mode & ~mask
    cleared = 0
    for person in people:
        cleared |= 7 << _SHIFT[person]
        cleared |= {"u": 0o4000, "g": 0o2000}.get(person, 0) if not is_dir else 0
    return mode & ~cleared | mask
