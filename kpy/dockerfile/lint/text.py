"""BuildKit's checks that need nothing but the Dockerfile: casing, names of stages, comments, forms of instructions."""

import re
from collections.abc import Iterator

from kpy.dockerfile import instructions as ins
from kpy.dockerfile.comments import last_words
from kpy.dockerfile.forms import SPACE, split_keyword
from kpy.dockerfile.lines import continuation
from kpy.dockerfile.lint import ours, rules
from kpy.dockerfile.lint.rules import Finding
from kpy.dockerfile.model import Dockerfile, Stage
from kpy.dockerfile.span import Span

_RESERVED = ("context", "scratch")
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_ONLY_LAST = (ins.Cmd, ins.Entrypoint, ins.HealthcheckInstruction)


def check_file(dockerfile: Dockerfile) -> Iterator[Finding]:
    """What is wrong with the file as a text, in whichever stage, needed or not."""
    yield from _names(dockerfile)
    yield from _casing(dockerfile)
    for arg in dockerfile.global_args:
        yield from _lines(arg.span, dockerfile.directives.escape)
        yield from _arg_description(arg)
    for stage in dockerfile.stages:
        yield from _from(stage.start)
        for item in (stage.start, *stage.instructions):
            yield from _lines(item.span, dockerfile.directives.escape)
        for instruction in stage.instructions:
            yield from ours.check_json(instruction)
            if isinstance(instruction, ins.Arg):
                yield from _arg_description(instruction)
            elif isinstance(instruction, ins.Maintainer):
                yield rules.MAINTAINER_DEPRECATED.found(
                    "MAINTAINER is deprecated: use LABEL org.opencontainers.image.authors", instruction.span
                )


def check_stage(stage: Stage) -> Iterator[Finding]:
    """What is wrong with the instructions of one stage, if it is built."""
    yield from _several(stage)
    for item in stage.instructions:
        match item:
            case ins.Env():
                yield from _legacy(item)
                yield from _secrets("ENV", [pair.key for pair in item.pairs], item.span)
            case ins.Arg():
                yield from _secrets("ARG", [pair.key for pair in item.args], item.span)
            case ins.Label():
                yield from _legacy(item)
            case ins.Copy() | ins.Add():
                yield from ours.check_whiteouts(item)
            case ins.Run():
                yield from ours.check_apt(item)
            case _:
                pass


def _keyword(item: ins.Instruction | ins.From) -> str:
    """As it is written."""
    return item.keyword if isinstance(item, ins.From) else split_keyword(item.original)[0]


def _names(dockerfile: Dockerfile) -> Iterator[Finding]:
    seen: set[str] = set()
    for stage in dockerfile.stages:
        if stage.name in _RESERVED:
            yield rules.RESERVED_STAGE_NAME.found(
                f'the stage is named "{stage.name}", which is a reserved word', stage.start.span
            )
        if stage.name and stage.name in seen:
            yield rules.DUPLICATE_STAGE_NAME.found(f'another stage is named "{stage.name}" too', stage.start.span)
        seen.add(stage.name)


def _casing(dockerfile: Dockerfile) -> Iterator[Finding]:
    """Against the majority; a mixed-case keyword counts for neither side."""
    written = [
        (_keyword(item), item.span)
        for stage in dockerfile.stages
        for item in (stage.start, *stage.instructions)
    ]
    lower = sum(word == word.lower() for word, _ in written)
    upper = sum(word == word.upper() for word, _ in written)
    for word, span in written:
        right = word.lower() if lower > upper else word.upper()
        if word != right:
            which = "lower" if lower > upper else "upper"
            yield rules.CONSISTENT_INSTRUCTION_CASING.found(
                f"{word} should be {which} case as most instructions are", span
            )


def _from(start: ins.From) -> Iterator[Finding]:
    if start.name_written != start.name:
        yield rules.STAGE_NAME_CASING.found(f'the stage name "{start.name_written}" should be lower case', start.span)
    keyword, word = start.keyword, start.as_keyword
    if word and keyword in (keyword.lower(), keyword.upper()):
        right = word.lower() if keyword == keyword.lower() else word.upper()
        if word != right:
            yield rules.FROM_AS_CASING.found(f"{keyword} and {word} are not in the same case", start.span)
    words = last_words(start.span)
    if start.name and words and words[0] != start.name:
        yield rules.INVALID_DEFINITION_DESCRIPTION.found(
            f"the comment above FROM should read `# {start.name} text`", start.span
        )


def _arg_description(arg: ins.Arg) -> Iterator[Finding]:
    words = last_words(arg.span)
    names = [item.key for item in arg.args]
    if words and words[0] not in names:
        shown = names[0] if len(names) == 1 else "NAME"
        yield rules.INVALID_DEFINITION_DESCRIPTION.found(f"the comment above ARG should read `# {shown} text`", arg.span)


def _lines(span: Span, escape: str) -> Iterator[Finding]:
    """Empty lines within an instruction that goes on: one finding, at its last line (as BuildKit's), heredocs aside."""
    number, empty = span.first, False
    _, continued = continuation(span.source.lines[number - 1], escape)
    while continued and number < span.last:
        number += 1
        line = span.source.lines[number - 1].strip(SPACE)
        if not line:
            empty = True
        elif not line.startswith("#"):
            _, continued = continuation(span.source.lines[number - 1], escape)
    if empty:
        yield rules.NO_EMPTY_CONTINUATION.found(
            "an empty line within the instruction; later versions of the language refuse it",
            Span(span.source, number, number),
        )


def _several(stage: Stage) -> Iterator[Finding]:
    """At those that are ignored."""
    last: dict[type, ins.Instruction] = {}
    for item in stage.instructions:
        if isinstance(item, _ONLY_LAST):
            before = last.get(type(item))
            if before is not None:
                yield rules.MULTIPLE_INSTRUCTIONS_DISALLOWED.found(
                    f"another {_keyword(item).upper()} in this stage follows, and only the last counts", before.span
                )
            last[type(item)] = item


def _legacy(item: ins.Env | ins.Label) -> Iterator[Finding]:
    if item.legacy:
        name = _keyword(item)
        yield rules.LEGACY_KEY_VALUE_FORMAT.found(f'write "{name} key=value" instead of "{name} key value"', item.span)


def _secrets(keyword: str, names: list[str], span: Span) -> Iterator[Finding]:
    for name in names:
        if _SECRET.search(name) and not _NO_SECRET.search(name):
            yield rules.SECRETS_USED_IN_ARG_OR_ENV.found(
                f'{keyword} "{name}" looks like a secret: anybody who has the image can read it', span
            )
