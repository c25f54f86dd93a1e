"""A parsed Dockerfile as stable text, for golden tests and for looking at: one instruction a line, fields that are set."""

import json
from dataclasses import fields

from kpy.dockerfile.instructions import ExecForm, From, Heredoc, Instruction, KeyValue, Mount, ShellForm
from kpy.dockerfile.model import Dockerfile

_SKIPPED = ("span", "original")


def dump(dockerfile: Dockerfile) -> str:
    """The text; it ends with a line feed."""
    directives = dockerfile.directives
    rows = [f"escape {directives.escape}"]
    rows += [f"syntax {directives.syntax}"] if directives.syntax else []
    rows += [f"check {directives.check}"] if directives.check else []
    for arg in dockerfile.global_args:
        rows.append(_row(arg))
    for stage in dockerfile.stages:
        rows += ["", f"stage {stage.index} {stage.label}", _row(stage.start)]
        rows += [f"  {_row(instruction)}" for instruction in stage.instructions]
    return "\n".join(rows) + "\n"


def _row(instruction: From | Instruction) -> str:
    span = instruction.span
    place = f"{span.first}" if span.first == span.last else f"{span.first}-{span.last}"
    return f"{place} {type(instruction).__name__.removesuffix('Instruction')}{_fields(instruction)}"


def _fields(value: From | Instruction | Heredoc | Mount) -> str:
    shown = []
    for field in fields(value):
        item = getattr(value, field.name)
        if field.name not in _SKIPPED and item != field.default:
            shown.append(f" {field.name.removesuffix('_')}={_value(item)}")
    return "".join(shown)


def _value(value: object) -> str:
    match value:
        case tuple():
            return f"[{', '.join(_value(item) for item in value)}]"
        case ShellForm(text):
            return f"shell({_quote(text)})"
        case ExecForm(argv):
            return f"exec{_value(argv)}"
        case KeyValue(key, None):
            return _quote(key)
        case KeyValue(key, text):
            return f"{_quote(key)}: {_quote(text or '')}"
        case Heredoc() | Mount():
            return f"({_fields(value).strip()})"
        case str():
            return _quote(value)
        case _:
            return str(value)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
