"""The table of SECURITY.md: what a hostile RUN could do, in which mode, on which kernel."""

import re
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "SECURITY.md"
HEAD = "| a `RUN` could "
PROBES = {
    "read kpy's memory, environment or open files, or trace it": "processes",
    "stop, kill or signal kpy": "signals",
    "change the limits, priority or processors of kpy": "limits",
    "read the logins, keys, secrets, context and store": "files",
    "change them, and so what later builds take from the store": "harm",
    "change their times and attributes": "times",
    "change kpy itself": "program",
    "read other volumes and files of kpy's user": "volumes",
    "have kpy read a file through a link in the context": "links",
    "connect to a Unix socket of the builder's, an SSH agent's say": "sockets",
    "connect to an abstract Unix socket outside": "abstract",
    "read kpy's keyring": "keyring",
    "use io_uring, bpf, perf, userfaultfd, keyctl or file handles": "kernel",
    "make a user namespace": "namespaces",
    "leave SysV memory, semaphores or queues to the next RUN": "shared-memory",
    "leave a process running": "outlive",
    "send escape sequences to the terminal": "terminal",
    "write the container's termination message": "termination",
    "use the network of the builder": "network",
    "use it in spite of `--network=none`": "no-network",
    "change what later builds take from a cache mount of the same id": "keep",
    "change it in another `BUILDKIT_CACHE_MOUNT_NS`": "keep-elsewhere",
    "fill the disk, use up memory and processors": "use-up",
}
"""Which word of promise_probe.c tries what a row says."""


@dataclass(frozen=True)
class Cell:
    """What SECURITY.md says of an attack in a mode: whether it works (None: if it does for any program there), and before which
    kernel it does all the same."""

    attack: str
    mode: str
    works: bool | None
    before: tuple[int, int]

    def expected(self, release: str, *, alone: bool = False) -> bool:
        """Does it work on a kernel with this release (uname -r), where it does or does not for a program without kpy?"""
        if self.works is None:
            return alone
        number = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
        return self.works or number < self.before


def table() -> list[Cell]:
    """All cells. Raises ValueError for one that says neither yes nor no."""
    _, _, found = FILE.read_text().partition(HEAD)
    text = (HEAD + found).partition("\n\n")[0]
    head, _, *rest = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return [_cell(row[0], mode.replace("`", ""), answer) for row in rest for mode, answer in zip(head[1:], row[1:], strict=True)]


def _cell(attack: str, mode: str, text: str) -> Cell:
    if text == "as any program there":
        return Cell(attack, mode, None, (0, 0))
    match = re.fullmatch(r"(yes|no)(?:; yes before Linux (\d+)\.(\d+))?", text)
    if match is None:
        raise ValueError(f"{attack} | {mode}: {text!r} is no answer")
    return Cell(attack, mode, match[1] == "yes", (int(match[2] or 0), int(match[3] or 0)))
