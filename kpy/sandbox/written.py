"""What a RUN wrote in an emulated read-only mount, for a line to the user. Knows no files."""

import os
from collections.abc import Sequence


class Written:
    """What was written in a read-only mount, for a line to the user: the deepest of the first such paths."""

    def __init__(self, shown: str) -> None:
        self._shown = os.fsencode(shown)
        self._paths: list[str] = []
        self.top = ""

    def add(self, path: bytes) -> None:
        """A path in the mount changed; "" is the mount itself."""
        self._paths.append(self.top + ("/" + os.fsdecode(path) if path else ""))

    def line(self, others: Sequence[str]) -> bytes:
        """Empty if there is nothing to say. A path is passed over if another mount is at it, in it or above it: we may have
        changed it then."""
        chosen = ""
        for path in self._paths:
            if any(_is_in(target, path) or _is_in(path, target) for target in others):
                continue
            if not chosen or _is_in(path, chosen):
                chosen = path
        if not chosen:
            return b""
        return (
            b"kpy: warning: %s was written, in the read-only mount %s. It is dropped; "
            b"where kpy can mount, the write fails\n" % (os.fsencode(chosen), self._shown)
        )


def _is_in(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")
