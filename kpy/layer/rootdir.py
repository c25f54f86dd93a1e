"""A real directory as a root that nothing leaves: finding, making and removing below it by descriptors.

Every step is one component opened with O_NOFOLLOW below a descriptor we hold; symlinks are read and followed here,
so their targets stay inside, on any kernel. Knows nothing of tar. Expects that nobody else changes the root
meanwhile. Deep and large directories need neither recursion nor many descriptors.
"""

import os
import stat
from collections.abc import Callable, Mapping
from types import TracebackType

from kpy.errors import ContentError
from kpy.layer.entry import Entry, Kind
from kpy.util import paths
from kpy.util.checkpoint import checked, checkpoint

_PATH_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_OPEN = 400
MAX_HOPS = 255

Place = tuple[int, str]  # the descriptor of a directory, valid until the next one is asked for; its canonical path


class ProtectedError(Exception):
    """The path is at or below what must not be touched. Never leaves the extractor."""


class RootDir:
    """Use in a `with`. `skip` says of a canonical path whether it is protected, with all that is below it. `slots` are
    directories of the root that are elsewhere, and stay whatever happens; see ExtractOptions."""

    def __init__(self, root: str, skip: Callable[[str], bool] | None, slots: Mapping[str, str] | None = None) -> None:
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._skip = skip
        self._open: dict[str, int] = {"": self._root}  # by canonical path
        self._slots = slots or {}
        try:
            for name, path in self._slots.items():
                self._open[name] = os.open(path, _PATH_DIRECTORY)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._lasting = frozenset(self._open.values())
        self._names: dict[str, str] = {"": ""}  # path as written -> canonical path
        self.made: set[str] = set()  # canonical paths of what this extraction put there
        self.final: dict[str, Entry] = {}  # what directories are to be at the end, by canonical path
        self.touched = {"": os.fstat(self._root).st_mtime_ns}  # mtime of other directories that we changed

    def __enter__(self) -> "RootDir":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._open.values():
            os.close(fd)

    def check(self, path: str) -> None:
        """Raise ProtectedError if the canonical path is protected."""
        if self._skip is not None and self._skip(path):
            raise ProtectedError(path)

    def _remember(self, path: str, fd: int, keep: int) -> None:
        if len(self._open) >= _MAX_OPEN:
            for other, other_fd in list(self._open.items()):
                if other_fd != keep and other_fd not in self._lasting:
                    os.close(other_fd)
                    del self._open[other]
        self._open[path] = fd

    def _forget_below(self, path: str) -> None:
        """The directory at `path` goes."""
        below = path + "/"
        for other in [other for other in self._open if other == path or other.startswith(below)]:
            if self._open[other] not in self._lasting:
                os.close(self._open.pop(other))
        for mtimes in [other for other in self.touched if other == path or other.startswith(below)]:
            del self.touched[mtimes]
        self._names = {"": ""}

    def _descend(self, fd: int, canonical: str, part: str) -> int:
        """The descriptor of a directory in a directory. Raises NotADirectoryError, also for a symlink."""
        known = self._open.get(canonical)
        if known is None:
            self.check(canonical)
            known = os.open(part, _PATH_DIRECTORY, dir_fd=fd)
            self._remember(canonical, known, fd)
        return known

    def directory(self, path: str, *, make: bool) -> Place | None:
        """The directory at a path as a layer writes it, symlinks followed inside the root.

        With `make` it is made where it is missing, also in place of a file; without, None for that and for a loop.
        Raises ProtectedError, and ContentError for a loop.
        """
        known = self._names.get(path)
        if known is not None:
            found = self._open.get(known)
            if found is None:
                found = self.canonical(known)
            if make and known not in self.touched:
                self.touch(found, known)
            return found, known
        done: list[str] = []
        fd = self._root
        todo = paths.split(path)[::-1]
        hops = 0
        while todo:
            part = todo.pop()
            if part == "..":
                del done[-1:]
                fd = self.canonical("/".join(done))
                continue
            here = "/".join((*done, part))
            try:
                fd = self._descend(fd, here, part)
            except NotADirectoryError:
                if stat.S_ISLNK(os.stat(part, dir_fd=fd, follow_symlinks=False).st_mode):
                    hops += 1
                    if hops > MAX_HOPS:
                        if not make:
                            return None
                        raise ContentError(f"layer has too many symlinks on the way to {path[:200]!r}") from None
                    target = os.readlink(part, dir_fd=fd)
                    todo += paths.split(target)[::-1]
                    if target.startswith("/"):
                        done, fd = [], self._root
                    continue
                if not make:
                    return None
                self.touch(fd, "/".join(done))
                os.unlink(part, dir_fd=fd)
                fd = self._make(fd, here, part)
            except FileNotFoundError:
                if not make:
                    return None
                fd = self._make(fd, here, part)
            done.append(part)
        canonical = "/".join(done)
        self._names[path] = canonical
        if make:
            self.touch(fd, canonical)
        return fd, canonical

    def touch(self, fd: int, path: str) -> None:
        """Remember the time of a directory that is about to change."""
        if path not in self.touched:
            self.touched[path] = os.fstat(fd).st_mtime_ns

    def _make(self, fd: int, here: str, part: str) -> int:
        self.touch(fd, here.rpartition("/")[0])
        os.mkdir(part, 0o700, dir_fd=fd)
        self._imply(here)
        return self._descend(fd, here, part)

    def _imply(self, path: str) -> None:
        """The layer has something in this directory, but no entry for it."""
        self.made.add(path)
        self.final[path] = Entry(path, Kind.DIR, 0o755)

    def canonical(self, path: str) -> int:
        """The descriptor of the directory at a canonical path. Raises OSError if there is none."""
        fd = self._open.get(path)
        if fd is not None:
            return fd
        missing = []
        above = path
        while fd is None:
            above, _, part = above.rpartition("/")
            missing.append(part)
            fd = self._open.get(above)
        for part in reversed(missing):
            above = paths.join(above, part)
            fd = self._descend(fd, above, part)
        return fd

    def readable(self, path: str) -> int:
        """A descriptor that can list and change the directory at a canonical path; the caller closes it."""
        return os.open(".", _READ_DIRECTORY, dir_fd=self.canonical(path))

    def look(self, fd: int, name: str, path: str) -> os.stat_result:
        """The status of what is at a canonical path, by its name in its directory: no symlink followed."""
        if path in self._slots:
            return os.fstat(self._open[path])
        return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def replace(self, fd: int, name: str, path: str) -> None:
        """Make room for something else at a canonical path. Raises ProtectedError if something there must stay."""
        if path in self._slots:
            raise ContentError(
                f"the image has a file or a link at /{path}, where this root has a directory that it cannot remove",
                hint=f"build as root or where user namespaces are allowed, or make a builder image with --toplevel-link {path}",
            )
        found = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(found):
            os.unlink(name, dir_fd=fd)
            if stat.S_ISLNK(found):
                self._names = {"": ""}
        elif not self.purge(path, keep_made=False):
            raise ProtectedError(path)

    def purge(self, path: str, *, keep_made: bool) -> bool:
        """Remove the directory at a canonical path with all in it, but for what is protected, or with `keep_made`
        what this extraction made. True if it is gone. Directories that only hold what was made become implied."""
        kept: set[str] = set()  # something made is below
        protected: set[str] = set()  # or something protected
        todo = [(path, False)]
        while todo:
            checkpoint()
            here, emptied = todo.pop()
            above = here.rpartition("/")[0]
            if emptied:
                if here in protected:
                    protected.add(above)
                elif keep_made and here in self.made:
                    kept.add(above)
                elif here in kept:
                    self._imply(here)
                    kept.add(above)
                else:
                    self._remove_directory(here)
                continue
            if self._skip is not None and self._skip(here):
                protected.add(above)
                continue
            todo.append((here, True))
            for name, is_directory in checked(self._list(here)):
                child = paths.join(here, name)
                if is_directory:
                    todo.append((child, False))
                elif self._skip is not None and self._skip(child):
                    protected.add(here)
                elif keep_made and child in self.made:
                    kept.add(here)
                else:
                    os.unlink(name, dir_fd=self.canonical(here))
        self._names = {"": ""}
        return path not in kept and path not in protected and path not in self.made

    def _list(self, path: str) -> list[tuple[str, bool]]:
        fd = self.readable(path)
        try:
            slots = self._slots if not path else {}
            with os.scandir(fd) as found:
                return [(item.name, item.name in slots or item.is_dir(follow_symlinks=False)) for item in found]
        finally:
            os.close(fd)

    def _remove_directory(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        self._forget_below(path)
        self.made.discard(path)
        if path in self._slots:
            return  # empty, it stands for none
        os.rmdir(name, dir_fd=self.canonical(parent))

    def clear(self, path: str) -> None:
        """Remove what is in the directory at a canonical path from before this extraction."""
        for name, is_directory in checked(self._list(path)):
            child = paths.join(path, name)
            if self._skip is not None and self._skip(child):
                continue
            if is_directory:
                self.purge(child, keep_made=True)
            elif child not in self.made:
                os.unlink(name, dir_fd=self.canonical(path))
        self._names = {"": ""}
