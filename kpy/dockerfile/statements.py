"""One function for each kind of instruction: the text behind the keyword to a typed value (1.5-1.8).

Counts arguments, reads flags and forms, as BuildKit's instructions package. Mistakes are `FormError`.
"""

import re
from collections.abc import Callable

from kpy.dockerfile.arguments import Line, command, words_or_json
from kpy.dockerfile.copies import parse_add, parse_copy
from kpy.dockerfile.durations import parse_duration
from kpy.dockerfile.flags import Flags, Kind
from kpy.dockerfile.forms import (
    SPACE,
    FormError,
    json_array,
    split_blanks,
    split_keyword,
    split_pairs,
    split_words,
)
from kpy.dockerfile.instructions import (
    Arg,
    Cmd,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    From,
    HealthcheckInstruction,
    Instruction,
    KeyValue,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    ShellForm,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from kpy.dockerfile.mounts import parse_device, parse_mount
from kpy.dockerfile.span import suggest

FORBIDDEN_TRIGGERS = ("ONBUILD", "FROM", "MAINTAINER")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9\-_.]*", re.ASCII)
_ONBUILD = re.compile(r"^\s*ONBUILD\s*", re.IGNORECASE)
_MILLISECOND = 10**6

_RUN_FLAGS = {"mount": Kind.LIST, "network": Kind.STRING, "security": Kind.STRING, "device": Kind.LIST}
_HEALTH_FLAGS = dict.fromkeys(
    ("interval", "timeout", "start-period", "start-interval", "retries"), Kind.STRING
)


def parse_statement(line: Line) -> From | Instruction | None:
    """The typed instruction; None if no instruction has that keyword. Raises FormError."""
    statement = _STATEMENTS.get(line.name)
    return statement(line) if statement else None


def _from(line: Line) -> From:
    flags, rest = line.flags({"platform": Kind.STRING})
    words = split_blanks(rest)
    if len(words) == 1:
        return From(line.span, line.original, words[0], flags.text("platform"), keyword=line.keyword)
    if len(words) != 3 or words[1].lower() != "as":
        wrong = words[3:] if [word.lower() for word in words[1:2]] == ["as"] else words[1:]
        extra = f": unexpected {wrong[0]!r}" if wrong else ""
        raise FormError(
            f"FROM requires either one or three arguments{extra}",
            hint="write FROM image, or FROM image AS name",
        )
    name = words[2].lower()
    if not _STAGE_NAME.fullmatch(name):
        raise FormError(
            f"invalid name for build stage: {words[2]!r}",
            hint="a name starts with a letter, and has letters, digits, - _ . only",
        )
    return From(
        line.span, line.original, words[0], flags.text("platform"), name, words[2], words[1], line.keyword
    )  # fmt: skip


def _arg(line: Line) -> Arg:
    _, rest = line.flags()
    args = []
    for word in split_words(rest, line.escape):
        key, equals, value = word.partition("=")
        if not key:
            raise FormError("ARG names can not be blank")
        args.append(KeyValue(key, value if equals else None))
    if not args:
        raise FormError("ARG requires at least one argument")
    return Arg(line.span, line.original, tuple(args))


def _pairs(line: Line) -> tuple[tuple[KeyValue, ...], bool]:
    _, rest = line.flags()
    pairs, legacy = split_pairs(rest, line.name, line.escape)
    return tuple(KeyValue(key, value) for key, value in pairs), legacy


def _env(line: Line) -> Env:
    pairs, legacy = _pairs(line)
    return Env(line.span, line.original, pairs, legacy)


def _label(line: Line) -> Label:
    pairs, legacy = _pairs(line)
    return Label(line.span, line.original, pairs, legacy)


def _run(line: Line) -> Run:
    flags, rest = line.flags(_RUN_FLAGS)
    if "$" not in flags.text("network"):  # else the planner checks it
        _choice("network mode", flags.text("network"), ("default", "none", "host"))
    _choice("security mode", flags.text("security"), ("sandbox", "insecure"))
    for device in flags.list("device"):
        parse_device(device)
    run = command(rest)
    if run == ExecForm(()):
        raise FormError("RUN requires at least one argument")
    return Run(
        line.span,
        line.original,
        run,
        line.line.heredocs,
        tuple(parse_mount(mount) for mount in flags.list("mount")),
        flags.text("network"),
        flags.text("security"),
        flags.list("device"),
    )


def _choice(what: str, value: str, known: tuple[str, ...]) -> None:
    if value and value not in known:
        raise FormError(
            f'unsupported {what} "{value}"', hint=suggest(value, known) or f"there are {', '.join(known)}"
        )


def _cmd(line: Line) -> Cmd:
    return Cmd(line.span, line.original, command(line.flags()[1]))


def _entrypoint(line: Line) -> Entrypoint:
    return Entrypoint(line.span, line.original, command(line.flags()[1]))


def _healthcheck(line: Line) -> HealthcheckInstruction:
    flags, rest = line.flags(_HEALTH_FLAGS)
    kind, text = split_keyword(rest)
    if not kind:
        raise FormError("HEALTHCHECK requires at least one argument")
    if kind.upper() == "NONE":
        if text:
            raise FormError("HEALTHCHECK NONE takes no arguments: unexpected text follows")
        return HealthcheckInstruction(line.span, line.original, None)
    if kind.upper() != "CMD":
        raise FormError(
            f'unknown type "{kind}" in HEALTHCHECK', hint="write HEALTHCHECK CMD command, or HEALTHCHECK NONE"
        )
    test = command(text)
    if test in (ExecForm(()), ShellForm("")):
        raise FormError("missing command after HEALTHCHECK CMD")
    return HealthcheckInstruction(
        line.span,
        line.original,
        test,
        _interval(flags, "interval"),
        _interval(flags, "timeout"),
        _interval(flags, "start-period"),
        _interval(flags, "start-interval"),
        _retries(flags.text("retries")),
    )


def _interval(flags: Flags, name: str) -> int:
    text = flags.text(name)
    found = parse_duration(text) if text else 0
    if found and found < _MILLISECOND:
        raise FormError(f"invalid value for --{name}: {text} cannot be less than 1ms")
    return found


def _retries(text: str) -> int:
    if not re.fullmatch(r"\+?[0-9]{1,10}|", text) or int(text or "0") >= 1 << 31:
        raise FormError(f"invalid value for --retries: {text!r} must be a number, and cannot be negative")
    return int(text or "0")


def _workdir(line: Line) -> Workdir:
    return Workdir(line.span, line.original, line.one())


def _user(line: Line) -> User:
    return User(line.span, line.original, line.one())


def _stopsignal(line: Line) -> StopSignal:
    return StopSignal(line.span, line.original, line.one())


def _maintainer(line: Line) -> Maintainer:
    return Maintainer(line.span, line.original, line.one())


def _expose(line: Line) -> Expose:
    _, rest = line.flags()
    if not rest:
        raise FormError("EXPOSE requires at least one argument")
    return Expose(line.span, line.original, tuple(split_blanks(rest)))


def _volume(line: Line) -> Volume:
    _, rest = line.flags()
    paths = [path.strip(SPACE) for path in words_or_json(rest)[0]]
    if not paths:
        raise FormError("VOLUME requires at least one argument")
    if not all(paths):
        raise FormError("VOLUME specified can not be an empty string: it must be a path")
    return Volume(line.span, line.original, tuple(paths))


def _shell(line: Line) -> Shell:
    _, rest = line.flags()
    argv = json_array(rest)
    if not rest or argv == []:
        raise FormError("SHELL requires at least one argument")
    if argv is None:
        raise FormError("SHELL arguments must be in JSON form", hint='write SHELL ["/bin/sh", "-c"]')
    return Shell(line.span, line.original, tuple(argv))


def _onbuild(line: Line) -> Onbuild:
    _, rest = line.flags()
    keyword, inner = split_keyword(rest)
    if not keyword:
        raise FormError("ONBUILD requires at least one argument")
    if keyword.upper() == "ONBUILD":
        raise FormError("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if keyword.upper() in FORBIDDEN_TRIGGERS:
        raise FormError(f"{keyword.upper()} isn't allowed as an ONBUILD trigger")
    problem = _problem(Line(keyword, inner, line.line, line.escape))
    expression = _ONBUILD.sub("", line.line.text)
    for heredoc in line.line.heredocs:
        expression += f"\n{heredoc.raw}{heredoc.name}"
    return Onbuild(line.span, line.original, expression, problem)


def _problem(line: Line) -> str:
    """Why a trigger will not run. As in BuildKit it is no error yet: only who builds on the image meets it. Of ENV and LABEL
    it is one."""
    try:
        if parse_statement(line) is not None:
            return ""
    except FormError as error:
        if line.keyword.upper() in ("ENV", "LABEL"):
            raise
        return error.message
    meant = suggest(line.keyword.upper(), KEYWORDS)
    return f"unknown instruction: {line.keyword[:100]}{f' ({meant})' if meant else ''}"


_STATEMENTS: dict[str, Callable[[Line], From | Instruction]] = {
    "FROM": _from, "ARG": _arg, "ENV": _env, "LABEL": _label, "RUN": _run, "COPY": parse_copy, "ADD": parse_add, "CMD": _cmd,
    "ENTRYPOINT": _entrypoint, "HEALTHCHECK": _healthcheck, "WORKDIR": _workdir, "USER": _user, "EXPOSE": _expose,
    "VOLUME": _volume, "STOPSIGNAL": _stopsignal, "SHELL": _shell, "MAINTAINER": _maintainer, "ONBUILD": _onbuild,
}  # fmt: skip
KEYWORDS = tuple(_STATEMENTS)
