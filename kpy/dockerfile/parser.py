"""A Dockerfile's bytes to typed instructions and stages. The one door of this package.

Every error is a DockerfileError that shows its lines. Values stay as written: what depends on variables is checked by
the planner.
"""

import re
from collections.abc import Sequence

from kpy.dockerfile.arguments import Line
from kpy.dockerfile.forms import FormError, split_keyword
from kpy.dockerfile.instructions import Arg, From, Instruction
from kpy.dockerfile.lines import LogicalLine, read
from kpy.dockerfile.model import Dockerfile, Stage
from kpy.dockerfile.span import Span, suggest
from kpy.dockerfile.statements import FORBIDDEN_TRIGGERS, KEYWORDS, parse_statement
from kpy.errors import DockerfileError

_TRIGGER_NAME = re.compile(r"[A-Za-z]+")


def parse(data: bytes, name: str = "Dockerfile") -> Dockerfile:
    """Parse a whole Dockerfile; `name` is what errors call it. Raises DockerfileError."""
    lines = read(data, name)
    global_args: list[Arg] = []
    starts: list[From] = []
    bodies: list[list[Instruction]] = []
    for line in lines.lines:
        instruction = _instruction(line, lines.directives.escape)
        if isinstance(instruction, From):
            starts.append(instruction)
            bodies.append([])
        elif bodies:
            bodies[-1].append(instruction)
        elif isinstance(instruction, Arg):
            global_args.append(instruction)
        else:
            keyword = split_keyword(line.text)[0].upper()
            raise line.span.error(
                f"no build stage in current context: {keyword} must be after a FROM",
                hint="only ARG may be before the first FROM",
            )
    if not starts:
        raise DockerfileError(
            f"{name} has no build stage: there is no FROM", file=name, hint="start it with FROM image"
        )
    return Dockerfile(lines.source, lines.directives, tuple(global_args), _stages(starts, bodies))


def _stages(starts: Sequence[From], bodies: Sequence[Sequence[Instruction]]) -> tuple[Stage, ...]:
    return tuple(
        Stage(index, start.name, start, tuple(body))
        for index, (start, body) in enumerate(zip(starts, bodies, strict=True))
    )


def parse_onbuild(text: str, span: Span | None = None, *, name: str = "ONBUILD trigger") -> Instruction:
    """Parse one trigger of a base image's config (I07); `name` is what errors call it, such as `ONBUILD of base/x`.

    The instruction's span is in a source of that name. Raises DockerfileError: at `span`, that of the FROM, if given.
    """
    try:
        lines = read(text.encode("utf-8", "replace"), name, directives=False).lines
        if len(lines) != 1:
            raise lines[1].span.error("invalid trigger: it must be a single instruction")
        keyword = split_keyword(lines[0].text)[0].upper()
        if keyword in FORBIDDEN_TRIGGERS:
            raise lines[0].span.error(f"{keyword} isn't allowed as an ONBUILD trigger")
        found = _instruction(lines[0], "\\")
        if isinstance(found, From):
            raise lines[0].span.error("FROM isn't allowed as an ONBUILD trigger")
    except DockerfileError as error:
        if span is None:
            raise
        raise span.error(f"{name}: {error.message}: {text.strip()[:100]!r}", hint=error.hint) from error
    return found


def _instruction(line: LogicalLine, escape: str) -> From | Instruction:
    keyword, rest = split_keyword(line.text)
    try:
        found = parse_statement(Line(keyword, rest, line, escape))
    except FormError as error:
        raise line.span.error(error.message, hint=error.hint) from error
    if found is None:
        raise line.span.error(f"unknown instruction: {keyword[:100]}", hint=_hint(keyword))
    return found


def _hint(keyword: str) -> str:
    found = suggest(keyword.upper(), KEYWORDS) if _TRIGGER_NAME.fullmatch(keyword) else ""
    return found or "lines that go on need a \\ at the end of the line before"
