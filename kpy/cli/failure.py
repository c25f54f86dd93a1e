"""How an error looks: excerpt, last output, `error:` line, `hint:` line. Decides nothing."""

import re

from kpy.errors import KpyError, StepFailedError

_RULE = "-" * 20
_LAST_LINES = 40
_BAR = " | "  # before foreign lines. Not spaces alone: GitHub's runner trims them before it looks for `::command::`
# DEL, C1, U+2028 and U+2029, which end a line for some, and what has the Unicode property Bidi_Control.
HIDDEN = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
# Sequences of ECMA-48 (CSI, OSC, single ESC) and control characters other than tab and newline. An OSC without an end
# loses its start only, or it would hide what we say after it.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]"
    rf"|[\x00-\x08\x0b-\x1f{HIDDEN}]"
)
_WHITE = re.compile(r"[^\S ]")  # what is white, but the blank itself: newlines of all sorts among it
_RAW_C1 = re.compile("[\udc80-\udc9f]")  # bytes that were not UTF-8 (PEP 383); to a terminal in 8-bit mode, C1


def harmless(text: str) -> str:
    """Without what a terminal would obey, or what changes the order of what it shows. Lines stay lines."""
    return _RAW_C1.sub("\ufffd", _CONTROL.sub("", text.replace("\r\n", "\n")))


def one_line(text: str) -> str:
    """Harmless, and a single line."""
    return " ".join(harmless(" ".join(text.split())).split())


def in_line(text: str) -> str:
    """Harmless, and in a single line, its blanks as they are: for names."""
    return harmless(_WHITE.sub(" ", text))


def render(error: KpyError) -> str:
    """The lines to print for an error, without a newline at the end."""
    parts: list[str] = []
    if error.step:
        # Of a line that was drawn several times, the last state.
        output = error.output if isinstance(error, StepFailedError) else ""
        drawn = (line.rstrip("\r").rpartition("\r")[2] for line in output.split("\n"))
        lines = [line for line in map(harmless, drawn) if line.strip()][-_LAST_LINES:]
        parts += ["------", f" > {one_line(error.step)}:", *(_BAR + line for line in lines), "------"]
    if error.first_line:
        parts.append(one_line(f"{error.file}:{error.first_line}"))
        if error.excerpt:
            parts += [_RULE, harmless(error.excerpt), _RULE]
    parts.append("error: " + _marked(error.message))
    if error.hint:
        parts.append("hint: " + _marked(error.hint))
    return "\n".join(parts)


def _marked(text: str) -> str:
    """The lines; those after the first, which a stranger may have written, cannot be taken for ours."""
    return harmless(text).replace("\n", "\n" + _BAR)
