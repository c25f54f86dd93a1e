"""Finding places in the root of a RUN, as a process in it would: links are followed inside the root, never out of it, and
never to what is closed. By descriptors of real directories that are held from then on: what a RUN renames or replaces
afterwards changes no place that was found before. Makes and removes nothing.
"""

import errno
import os
import stat
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from kpy.errors import SandboxError
from kpy.linux.beneath import STEP
from kpy.util.fs import read_regular

_LINKS = 40  # as the kernel (MAXSYMLINKS)


class Closed(Protocol):
    """Which places of a root are not the RUN's."""

    def __call__(self, path: str, /, *, passing: bool) -> str:
        """Why nothing may be put at a canonical path, or with `passing` found below it; "" if it may."""
        ...


def nothing_closed(path: str, /, *, passing: bool) -> str:
    """A root that is the RUN's as a whole."""
    del path, passing
    return ""


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a root. `path` is canonical, as a process in the root sees it. `parent` is a descriptor of the deepest
    directory above it that is there, `missing` are the names of directories below that, and `name` is its own."""

    path: str
    parent: int
    missing: tuple[str, ...]
    name: str


class RootPaths:
    """Finds places in a root. No process may be changing the root meanwhile. Use in a `with`: what was found is valid until
    its end.

    `root` is the path of the root as this process sees it, which no RUN could have changed.
    """

    def __init__(self, root: str, closed: Closed = nothing_closed) -> None:
        self._closed = closed
        self._held = [os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]

    def __enter__(self) -> "RootPaths":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in self._held:
            os.close(descriptor)
        self._held = []

    @property
    def top(self) -> int:
        """The descriptor of the root."""
        return self._held[0]

    def hold(self, descriptor: int) -> int:
        """Close it at the end, too."""
        self._held.append(descriptor)
        return descriptor

    def find(self, target: str) -> Spot:
        """The place of an absolute path; what is missing is taken as it stands. Raises SandboxError for one that is
        closed, or behind too many links; OSError."""
        done: list[str] = []
        directories = [self.top]  # of the root, and of each component in `done` that is a directory
        todo = [part for part in reversed(target.split("/")) if part]
        links = 0
        while todo:
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                del directories[max(len(done), 1) :]
                del done[-1:]
                continue
            known = len(directories) == len(done) + 1
            kind = _kind(directories[-1], part) if known else 0
            if kind == stat.S_IFLNK:
                links += 1
                if links > _LINKS:
                    raise SandboxError(f"the mount target {target} has too many symlinks", errno=errno.ELOOP)
                link = os.readlink(part, dir_fd=directories[-1])
                if link.startswith("/"):
                    done, directories = [], [self.top]
                todo += [part for part in reversed(link.split("/")) if part]
                continue
            done.append(part)
            if why := self._closed("/" + "/".join(done), passing=bool(todo)):
                raise SandboxError(
                    f"cannot put a mount at {target}, which leads to /{'/'.join(done)}: {why}",
                    hint="mount it elsewhere, or build where user namespaces are allowed",
                )
            if kind == stat.S_IFDIR and todo:
                directories.append(self.hold(os.open(part, STEP, dir_fd=directories[-1])))
        depth = min(len(directories) - 1, max(len(done) - 1, 0))
        return Spot("/" + "/".join(done), directories[depth], tuple(done[depth:-1]), done[-1] if done else "")

    def read(self, path: str, limit: int) -> bytes | None:
        """The beginning of a regular file; None if there is none, or it is closed."""
        try:
            spot = self.find(path)
            if spot.missing or not spot.name:
                return None
            # Not blocking: it may be a FIFO, which then reads as empty.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return read_regular(os.open(spot.name, flags, dir_fd=spot.parent), limit)
        except (OSError, SandboxError):
            return None


def _kind(directory: int, name: str) -> int:
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return 0
