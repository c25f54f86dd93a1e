"""Settings of outputs that the build itself has to know: compression, and the time of the image."""

import re

from kpy.app.options import BuildOptions, Environment
from kpy.dockerfile.model import Dockerfile
from kpy.errors import UsageError
from kpy.layer.compress import Compression
from kpy.plan.scope import Globals

_KINDS = {"gzip": "gzip", "zstd": "zstd", "uncompressed": "none"}
_LATER = ("force-compression", "rewrite-timestamp")


def compression(options: BuildOptions) -> Compression:
    """What the outputs ask for; they must agree. Raises UsageError."""
    asked = set()
    for output in options.outputs:
        for name in _LATER:
            if output.attrs.get(name) == "true":
                raise UsageError(f"--output {name}=true is not supported yet")
        kind, level = output.attrs.get("compression", ""), output.attrs.get("compression-level", "")
        if kind and kind not in _KINDS:
            raise UsageError(f"unsupported compression {kind!r}", hint=f"use {', '.join(_KINDS)}")
        if level and not re.fullmatch(r"[0-9]{1,3}", level):
            raise UsageError(f"compression-level {level!r} is not a number")
        if kind or level:
            asked.add((_KINDS[kind or "gzip"], level))
    if len(asked) > 1:
        raise UsageError("the outputs ask for different compressions", hint="build twice, the second is from cache")
    kind, level = asked.pop() if asked else ("gzip", "")
    number = int(level) if level and kind != "none" else None
    if kind == "gzip":
        return Compression("gzip", number)
    return Compression("zstd", number) if kind == "zstd" else Compression("none")


def epoch(options: BuildOptions, environment: Environment, dockerfile: Dockerfile) -> int | None:
    """SOURCE_DATE_EPOCH in seconds: --build-arg, else the environment, else a global ARG's default (A16)."""
    text = dict(options.build_args).get("SOURCE_DATE_EPOCH")
    if text is None:
        text = environment.variables.get("SOURCE_DATE_EPOCH")
    if text is None:
        text = Globals.evaluate(dockerfile.global_args, {}, {}, dockerfile.directives.escape).values.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise UsageError(
            f"invalid SOURCE_DATE_EPOCH {text!r}: it is not a number of seconds",
            hint="its forms `context` and stage names are not supported yet",
        )
    return int(text)
