"""File modes as chmod(1) writes them: octal, or symbolic as `u=rwX,go=rX` (C09). Umask is 0.

Symbolic modes are those of BSD's setmode(3), which BuildKit follows, and which differs from GNU's: `=` clears the setuid and
setgid bits of whom it names, of directories too, and only those; copying `u`, `g` or `o` leaves them; `t` without `u`, `g` or
`a` is about the sticky bit alone; a letter `u`, `g` or `o` may stand among others.
"""

import re
from dataclasses import dataclass

_PARTS = re.compile(r"([ugoa]*)((?:[-+=][rwxXstugo]*)+)")
_ACTION = re.compile(r"([-+=])([rwxXstugo]*)")
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o0007, "a": 0o6777}
_PERMISSIONS = {"r": 0o444, "w": 0o222, "x": 0o111}
_SHIFT = {"u": 6, "g": 3, "o": 0}
_STICKY, _SET_ID, _EVERYBODY = 0o1000, 0o6000, 0o6777


@dataclass(frozen=True, slots=True)
class _Step:
    """One change: `+` and `-` of bits, `X` of bits where something is executable, or a copy of `u`, `g` or `o` by `operator`
    into the bits of `who`."""

    kind: str
    bits: int
    operator: str = ""

    def apply(self, before: int, mode: int, *, is_dir: bool) -> int:
        match self.kind:
            case "+":
                return mode | self.bits
            case "-":
                return mode & ~self.bits
            case "X":
                return mode | self.bits if is_dir or before & 0o111 else mode
            case _:
                return self._copied(mode)

    def _copied(self, mode: int) -> int:
        value = mode >> _SHIFT[self.kind] & 7
        for shift in _SHIFT.values():
            if self.bits & 0o7 << shift:
                if self.operator == "=":
                    mode &= ~(7 << shift)
                mode = mode & ~(value << shift) if self.operator == "-" else mode | value << shift
        return mode


@dataclass(frozen=True, slots=True)
class Mode:
    """A parsed mode: `octal` if it is a number, else the steps of a symbolic one."""

    octal: int | None
    steps: tuple[_Step, ...] = ()

    def apply(self, mode: int, *, is_dir: bool) -> int:
        """The new permission bits (07777) of a file that has `mode`."""
        if self.octal is not None:
            return self.octal
        before = mode
        for step in self.steps:
            mode = step.apply(before, mode, is_dir=is_dir)
        return mode


def parse_mode(text: str) -> Mode:
    """Read a mode. Raises ValueError when it is none."""
    if re.fullmatch(r"[0-7]{1,5}", text) and int(text, 8) <= 0o7777:
        return Mode(int(text, 8))
    steps: list[_Step] = []
    for part in text.split(","):
        match = _PARTS.fullmatch(part)
        if match is None:
            raise ValueError(text)
        who = 0
        for letter in match[1]:
            who |= _WHO[letter]
        for operator, what in _ACTION.findall(match[2]):
            steps += _steps(who, operator, what)
    return Mode(None, tuple(steps))


def _steps(who: int, operator: str, what: str) -> list[_Step]:
    """What one operator does to the bits of `who`; 0 is everybody."""
    found: list[_Step] = []
    bits = executable = 0
    is_set = False

    def flush() -> None:
        nonlocal bits
        if operator == "=":
            found.append(_Step("-", who or _EVERYBODY))
        found.append(_Step("-" if operator == "-" else "+", bits & (who or 0o7777)))
        bits = 0

    for letter in what:
        if letter in _PERMISSIONS:
            bits |= _PERMISSIONS[letter]
        elif letter == "X":
            executable = 0o111
        elif letter == "s":
            bits |= 0 if who and not who & ~0o7 else _SET_ID
        elif letter == "t":
            if not who or who & ~0o7:
                who |= _STICKY
                bits |= _STICKY
        else:
            if bits:
                flush()
            is_set = True
            found.append(_Step(letter, who or 0o777, operator))
    if bits or (operator == "=" and not is_set):
        flush()
    if executable:
        found.append(_Step("-" if operator == "-" else "X", executable & (who or 0o7777)))
    return found
