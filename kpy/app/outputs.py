"""Settings of outputs that the build itself has to know: compression, and times in layers."""

import re

from kpy.app.options import BuildOptions
from kpy.errors import UsageError
from kpy.events import Reporter, Warned
from kpy.layer.compress import Compression
from kpy.solver.rewrite import Rewrite

_KINDS = {"gzip": "gzip", "zstd": "zstd", "uncompressed": "none"}
_WITH_LAYERS = ("image", "oci", "docker")


def compression(options: BuildOptions) -> Compression:
    """What the outputs ask for; they must agree. Raises UsageError."""
    asked = set()
    for output in options.outputs:
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


def rewrite(options: BuildOptions, epoch: int | None, report: Reporter) -> Rewrite:
    """What else the outputs ask for of the layers; they must agree. Raises UsageError."""
    asked = {}
    for name in ("rewrite-timestamp", "force-compression"):
        said = {output.attrs.get(name, "false") for output in options.outputs if output.type in _WITH_LAYERS}
        if len(said) > 1:
            raise UsageError(f"the outputs differ in {name}", hint="build twice, the second is from cache")
        asked[name] = said == {"true"}
    if asked["rewrite-timestamp"] and epoch is None:
        report(Warned("rewrite-timestamp has no effect: there is no SOURCE_DATE_EPOCH", "--build-arg SOURCE_DATE_EPOCH=… sets it"))
    return Rewrite(epoch if asked["rewrite-timestamp"] else None, compress=asked["force-compression"])
