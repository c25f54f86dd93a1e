"""How an error looks: excerpt, last output, `error:` line, `hint:` line. Decides nothing."""

import re

from kpy.errors import KpyError, StepFailedError

_RULE = "-" * 20
_LAST_LINES = 40
# Sequences of ECMA-48 (CSI, OSC, single ESC) and control characters other than tab and newline.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def harmless(text: str) -> str:
    """Without what a terminal would obey."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def render(error: KpyError) -> str:
    """The lines to print for an error, without a newline at the end."""
    parts: list[str] = []
    if error.step:
        # Of a line that was drawn several times, the last state.
        output = error.output if isinstance(error, StepFailedError) else ""
        drawn = (line.rstrip("\r").rpartition("\r")[2] for line in output.split("\n"))
        lines = [line for line in map(harmless, drawn) if line.strip()][-_LAST_LINES:]
        parts += ["------", f" > {harmless(error.step)}:", *lines, "------"]
    if error.first_line:
        parts.append(harmless(f"{error.file}:{error.first_line}"))
        if error.excerpt:
            parts += [_RULE, harmless(error.excerpt), _RULE]
    parts.append("error: " + harmless(error.message).replace("\n", "\n  "))
    if error.hint:
        parts.append("hint: " + harmless(error.hint).replace("\n", "\n  "))
    return "\n".join(parts)
