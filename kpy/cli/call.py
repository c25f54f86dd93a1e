"""`--call` and `--check`: which question about a Dockerfile is asked, and in what form the answer goes out."""

from collections.abc import Sequence
from typing import get_args

from kpy.app.options import Call, CallName
from kpy.cli.flags import Flag, Parsed, boolean
from kpy.errors import UsageError

CALL_FLAGS = (
    Flag("check", "switch", "check the Dockerfile, build nothing: --call=check"),
    Flag("call", "value", "answer a question instead of building: check, context (what is in it), outline or targets[,format=json]", "", "NAME"),
)


def read_call(parsed: Parsed) -> Call:
    """The question. Raises UsageError."""
    if not parsed.one("call"):
        return Call("check") if parsed.on("check") else Call()
    name, *rest = [part.strip() for part in parsed.one("call").split(",")]
    call = Call(_name(name.lower()), *_settings(rest))
    if parsed.on("check") and call.name != "check":
        raise UsageError(f"--check and --call={name} ask for different things", hint="give one of them")
    return call


def _name(text: str) -> CallName:
    match text:
        case "lint":
            return "check"
        case "build" | "check" | "context" | "outline" | "targets":
            return text
        case _:
            names = ", ".join((*get_args(CallName), "lint"))
            raise UsageError(f"invalid value {text!r} for --call", hint=f"it is one of {names}")


def _settings(words: Sequence[str]) -> tuple[bool, bool]:
    """Whether JSON is wanted, and whether findings leave the exit code alone."""
    json, ignore = False, False
    for word in words:
        key, _, value = word.partition("=")
        if key == "format" and value in ("json", "text"):
            json = value == "json"
        elif key == "ignorestatus":
            ignore = boolean(value, "--call=…,ignorestatus")
        else:
            raise UsageError(
                f"invalid setting {word!r} of --call", hint="there are format=json, format=text, ignorestatus=true"
            )
    return json, ignore
