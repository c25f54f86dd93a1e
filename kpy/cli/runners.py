"""What the programs that run CI jobs obey in the output of a job. Text of a Dockerfile or a RUN must not be obeyed there.

GitHub's runner takes `::command::` at the start of a line, after any blanks, and `##[command]` anywhere in one; so does that
of Azure with `##vso[command]`. A carriage return ends a line for both (StreamReader.ReadLine).
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import BinaryIO

_THEIRS = ("GITHUB_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION")
_ANYWHERE = re.compile(rb"##(?=[A-Za-z]*\[)")
# What String.TrimStart takes for a blank, as UTF-8, and the byte order mark.
_BLANK = rb"[\t-\r\x1c-\x20]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80|\xef\xbb\xbf"
_BLANKS = re.compile(rb"(?:" + _BLANK + rb")+")
_COMMAND = b"::"
_IN_JSON = re.compile(r"##([A-Za-z]*)\[")


def listens(variables: Mapping[str, str]) -> bool:
    """Is this a job of one of them?"""
    return any(variables.get(name) for name in _THEIRS)


def unheard(data: bytes) -> bytes:
    """Whole lines, with a blank in what would be obeyed."""
    return _parted(_ANYWHERE.sub(b"## ", data))


def _parted(data: bytes) -> bytes:
    """With a blank between the colons at the start of a line. Blanks are read once: a line may have as many as it likes."""
    if _COMMAND not in data:
        return data
    places = [0] if data.startswith(_COMMAND) else []
    for run in _BLANKS.finditer(data):
        if data.startswith(_COMMAND, run.end()) and (run.start() == 0 or b"\n" in run[0] or b"\r" in run[0]):
            places.append(run.end())
    pieces = [data[start:end] for start, end in pairwise([0, *(place + 1 for place in places), len(data)])]
    return b" ".join(pieces)


def unheard_json(text: str) -> str:
    """JSON with the same meaning, in which nothing is obeyed: a line of it never starts with a colon."""
    return _IN_JSON.sub(r"##\1\\u005b", text)


class Unheard:
    """A stream that takes whole lines, and writes them so that nobody obeys them."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        """Write them."""
        self._stream.write(unheard(data))

    def flush(self) -> None:
        """As the stream's."""
        self._stream.flush()
