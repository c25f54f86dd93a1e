"""Checks that only kpy has, as far as the Dockerfile alone can tell."""

import re
from collections.abc import Iterator

from kpy.dockerfile import instructions as ins
from kpy.dockerfile.forms import FormError, json_array, split_flags, split_keyword
from kpy.dockerfile.lint import rules
from kpy.dockerfile.lint.rules import Finding

_COMMANDS = ("RUN", "CMD", "ENTRYPOINT")
_WITH_JSON = (*_COMMANDS, "COPY", "ADD", "VOLUME")
_QUOTE = "[\"'`\u2018\u2019\u201c\u201d]"
# `[` and a quote: no shell has a command of that name. With a blank between, `[ "$a" = b ]` is one: a comma must follow.
_QUOTED = re.compile(rf"\[{_QUOTE}|\[\s*{_QUOTE}[^\[\]]*{_QUOTE}\s*,\s*{_QUOTE}")
_BARE = re.compile(r"\[[^\s\[\],]+(?:\s*,\s*[^\s\[\],]+)*(?:\s*,)?\s*\]")
_APT = re.compile(r"\bapt(?:-get)?\s{1,20}(?:-\S{1,100}\s{1,20}){0,8}(?:update|install|upgrade|dist-upgrade)\b")
_COMMAND_ENDS = re.compile(r"[;&|\n]+")
_REMOVES = re.compile(r"\brm\s|-delete\b")
_APT_LISTS = "/var/lib/apt/lists"


def check_json(item: ins.Instruction) -> Iterator[Finding]:
    """Almost a JSON array (P11): BuildKit makes a shell command, or file names, of it, and says nothing."""
    keyword, rest = split_keyword(item.original)
    if isinstance(item, ins.Onbuild):
        keyword, rest = split_keyword(split_flags(rest)[1])
    text = split_flags(rest)[1]
    if keyword.upper() == "HEALTHCHECK":
        kind, text = split_keyword(text)
        keyword = "CMD" if kind.upper() == "CMD" else ""
    if keyword.upper() not in _WITH_JSON or not text.startswith("["):
        return
    try:
        if json_array(text) is not None:
            return
    except FormError:
        return
    if _QUOTED.match(text) or (keyword.upper() in _COMMANDS and _BARE.fullmatch(text)):
        shown = text if len(text) <= 60 else text[:60] + "…"
        yield rules.JSON_LOOKALIKE.found(
            f"{shown} is not JSON, so it is not the exec form: every argument needs double quotes, commas between",
            item.span,
        )


def check_whiteouts(item: ins.Copy | ins.Add) -> Iterator[Finding]:
    """`.wh.` in a layer means that a file is deleted (OCI image-spec, layer.md#whiteouts)."""
    names = [*item.sources, *(heredoc.name for heredoc in item.heredocs), item.dest]
    for name in names:
        if any(part.startswith(".wh.") for part in name.split("/")):
            yield rules.WHITEOUT_NAME.found(f"{name!r}: in a layer, such a name deletes another file", item.span)


def check_apt(item: ins.Run) -> Iterator[Finding]:
    """apt's lists stay in the layer, unless they are removed in the same RUN, or lie on a mount."""
    text = "\n".join([item.original, *(heredoc.content for heredoc in item.heredocs)])
    if not _APT.search(text):
        return
    commands = _COMMAND_ENDS.split(text)
    if any(_APT_LISTS in command and _REMOVES.search(command) for command in commands):
        return
    targets = [(mount.target or "").rstrip("/") for mount in item.mounts if mount.kind in ("cache", "tmpfs")]
    if any(target and f"{_APT_LISTS}/".startswith(f"{target}/") for target in targets):
        return
    yield rules.APT_CACHE_LEFT.found(
        f"{_APT_LISTS} stays in the layer: remove it in this RUN, or mount a cache there", item.span
    )
