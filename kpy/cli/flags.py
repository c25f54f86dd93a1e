"""Command-line flags as docker's pflag reads them: a table in, values out. Knows no verb.

`--name value`, `--name=value`, `-n value`, `-nvalue`, `-n=value`, `-abc` for switches, `--` ends flags; flags may
follow arguments. Nothing is abbreviated, and nothing is ignored: what is not in the table is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kpy.errors import UsageError

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `switch` is on or off, `value` takes one (the last wins), `list` collects.

    A `refused` flag is one that other builders have and we do not: an error that names it and says `help`; except
    with one of the `accepted` values, which ask for what we do anyway. `takes` says whether it eats a value.
    A flag with `alone` takes a value only after `=`, and means this without one.
    """

    name: str
    kind: Literal["switch", "value", "list", "refused"]
    help: str = ""
    short: str = ""
    metavar: str = ""
    takes: bool = False
    accepted: tuple[str, ...] = ()
    alone: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """The values given, by flag name, in order; and the arguments that are no flags."""

    values: dict[str, list[str]]
    arguments: tuple[str, ...]

    def one(self, name: str, default: str = "") -> str:
        """The last value given, or `default`."""
        return self.values.get(name, [default])[-1]

    def all(self, name: str) -> tuple[str, ...]:
        """Every value given, in order."""
        return tuple(self.values.get(name, ()))

    def on(self, name: str) -> bool:
        """Is the switch on?"""
        return self.one(name) == "true"


def parse(flags: Sequence[Flag], argv: Sequence[str], verb: str) -> Parsed:
    """Read the command line of `verb`. Raises UsageError that names the flag."""
    long = {flag.name: flag for flag in flags}
    short = {flag.short: flag for flag in flags if flag.short}
    values: dict[str, list[str]] = {}
    arguments: list[str] = []
    words = list(reversed(argv))
    while words:
        word = words.pop()
        if word == "--":
            arguments += reversed(words)
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name not in long:
                raise _unknown(f"--{name}", long, verb)
            _store(long[name], f"--{name}", value if equals else None, words, values)
        elif word.startswith("-") and word != "-":
            _short(word, short, words, values, verb)
        else:
            arguments.append(word)
    return Parsed(values, tuple(arguments))


def _short(
    word: str, short: dict[str, Flag], words: list[str], values: dict[str, list[str]], verb: str
) -> None:
    """Read `-q`, `-qt value`, `-tvalue`, `-t=value`."""
    rest = word[1:]
    while rest:
        letter, rest = rest[0], rest[1:]
        if letter not in short:
            raise _unknown(f"-{letter}" + (f" in {word}" if len(word) > 2 else ""), {}, verb)
        flag = short[letter]
        if flag.kind == "switch" and not rest.startswith("="):
            _store(flag, f"-{letter}", None, words, values)
            continue
        _store(flag, f"-{letter}", rest.removeprefix("=") if rest else None, words, values)
        return


def _store(flag: Flag, shown: str, value: str | None, words: list[str], values: dict[str, list[str]]) -> None:
    if flag.kind == "switch":
        values[flag.name] = ["true" if boolean("true" if value is None else value, shown) else "false"]
        return
    takes = flag.takes if flag.kind == "refused" else True
    if value is None and flag.alone:
        value = flag.alone
    if value is None and takes:
        if not words:
            raise UsageError(f"flag {shown} needs a value")
        value = words.pop()
    if flag.kind == "refused":
        given = "true" if value is None else value
        if given not in flag.accepted:
            raise UsageError(
                f"{shown} is not supported yet" + (f": {given!r}" if value else ""), hint=flag.help
            )
        return
    values.setdefault(flag.name, []).append(value or "")


def boolean(value: str, shown: str) -> bool:
    """Read a truth value as Go's strconv.ParseBool does."""
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise UsageError(f"invalid value {value!r} for {shown}: it takes true or false")


def _unknown(shown: str, known: dict[str, Flag], verb: str) -> UsageError:
    from kpy.dockerfile.span import suggest

    offered = [f"--{name}" for name, flag in known.items() if flag.kind != "refused"]
    near = suggest(shown, offered)
    return UsageError(f"unknown flag: {shown}", hint=near or f"`kpy {verb} --help` lists the flags")


def usage(flags: Sequence[Flag]) -> str:
    """The flags as a help text shows them, in the order of the table."""
    rows = []
    for flag in flags:
        if flag.kind == "refused":
            continue
        left = f"  {f'-{flag.short}, ' if flag.short else '    '}--{flag.name}"
        value = f"[={flag.metavar}]" if flag.alone else f" {flag.metavar}" if flag.metavar else ""
        rows.append((left + value, flag.help))
    width = max(len(left) for left, _ in rows) + 2
    return "\n".join(f"{left:<{width}}{text}" for left, text in rows)
