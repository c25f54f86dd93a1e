"""What the kernel takes as an argument, a variable or a path: no text with a NUL in it. A Dockerfile or the configuration of
a strange image may have one. What is the content of a file may have anything."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from kpy.dockerfile.span import Span
from kpy.errors import KpyError, UsageError
from kpy.plan.model import CopyOp, ImageOp, Op, RunOp

_NAMES = {
    "argv": "the command", "env": "a variable", "cwd": "the working directory", "user": "the user", "path": "the path", "dest": "the destination",
    "sources": "a source", "heredocs": "the name of a heredoc", "script": "the name of a heredoc", "mounts": "a mount", "url": "the URL",
}  # fmt: skip
_HINT = "if no line of this Dockerfile has it, the base image does: use another one"


def check_strings(op: Op, span: Span | None) -> None:
    """Raise DockerfileError at the span, or UsageError, for what no step can have."""
    for name, text in _strings(op):
        if "\0" in text:
            raise _error(f"{_NAMES.get(name, name)} has a NUL character: {text[:200]!r}", span)
        try:
            text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise _error(f"{_NAMES.get(name, name)} is no text: {text[:200]!r}", span) from None
        if name == "env" and text.startswith("="):
            raise _error(f"a variable has no name: {text[:200]!r}", span)


def _error(message: str, span: Span | None) -> KpyError:
    return UsageError(message, hint=_HINT) if span is None else span.error(message, hint=_HINT)


def _strings(op: Op) -> Iterator[tuple[str, str]]:
    for field in fields(op):
        if isinstance(op, ImageOp) and field.name == "base":
            continue  # all that is known of the image; what steps take of it is in them
        value = getattr(op, field.name)
        if isinstance(op, CopyOp) and field.name == "heredocs":
            value = [name for name, _ in op.heredocs]
        elif isinstance(op, RunOp) and op.script is not None and field.name == "script":
            value = op.script[0]
        yield from ((field.name, text) for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _texts(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _texts(getattr(value, field.name))
