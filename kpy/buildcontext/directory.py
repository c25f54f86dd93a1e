"""A directory as a build context: a FileSource that obeys .dockerignore and owns everything as root (C07, G01-G08).

Nothing is read before it is asked for (C33): children are listed a directory at a time, contents opened one by one.
Nothing is remembered of files: what a file is on disk goes with its entry.
"""

import io
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO, cast

from kpy.dockerfile.dockerignore import Ignore, State
from kpy.errors import ContextError
from kpy.layer.entry import KIND_OF_FORMAT, Entry, Kind
from kpy.layer.source import Opener
from kpy.util import fs, paths

CAPABILITY = "security.capability"
_REMEMBERED = 1024  # directories: those above what is looked at, and some more
_NO_XATTRS: Mapping[str, bytes] = {}  # one for all: contexts have many files


class DirectoryContext:
    """The files below `root`, without those that `ignore` excludes. Symlinks are never followed here."""

    def __init__(self, root: str, ignore: Ignore | None = None) -> None:
        self.root = os.path.abspath(root)
        self._ignore = ignore
        self._directories: dict[str, bool] = {}
        self._states: dict[str, State] = {}

    def _path(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    @property
    def ignore(self) -> Ignore:
        """The patterns; those of no file exclude nothing."""
        return self._ignore or Ignore()

    def excluded(self, path: str) -> bool:
        """Does .dockerignore exclude it?"""
        if not path or self._ignore is None:
            return False
        return self._ignore.excluded(path, self._state(path.rpartition("/")[0]))[0]

    def _state(self, directory: str) -> State:
        """What the patterns say of a directory, for what is in it; remembered, for walks."""
        state: State = ()
        if self._ignore is None or not directory:
            return state
        if (known := self._states.get(directory)) is not None:
            return known
        above = ""
        for name in directory.split("/"):
            above = paths.join(above, name)
            known = self._states.get(above)
            state = self._ignore.excluded(above, state)[1] if known is None else known
            if len(self._states) >= _REMEMBERED:
                self._states.clear()
            self._states[above] = state
        return state

    def exists_but_excluded(self, path: str) -> bool:
        """Is it there on disk, and only .dockerignore hides it (C30)?"""
        return self.excluded(path) and os.path.lexists(self._path(path))

    def lookup(self, path: str, /) -> Entry | None:
        """See FileSource. Excluded directories are there when something below them may not be excluded."""
        if not self._is_directory(path.rpartition("/")[0]):
            return None
        return self._look(path, known=False)

    def _is_directory(self, path: str) -> bool:
        """Is it a directory that is not excluded, nor what is above it? Remembered, for walks."""
        found = self._directories.get(path)
        if found is None:
            entry = self.lookup(path) if path else self._look("", known=True)
            found = entry is not None and entry.kind is Kind.DIR
            if len(self._directories) >= _REMEMBERED:
                self._directories.clear()
            self._directories[path] = found
        return found

    def _look(self, path: str, *, known: bool) -> Entry | None:
        """What is there; `known`: it is not excluded."""
        try:
            found = os.lstat(self._path(path))
            if not known and self.excluded(path) and not (stat.S_ISDIR(found.st_mode) and self._has_included(path)):
                return None
            return self._entry(path, found)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise ContextError(f"cannot read {path} in the build context: {getattr(error, 'strerror', error)}") from error

    def _has_included(self, path: str) -> bool:
        """An excluded directory is kept when an exception lets something below it in."""
        todo = [path]
        while todo and self._ignore is not None:
            directory = todo.pop()
            if not self._ignore.may_include_below(directory):
                continue
            try:
                with os.scandir(self._path(directory)) as found:
                    entries = [(paths.join(directory, item.name), item.is_dir(follow_symlinks=False)) for item in found]
            except (FileNotFoundError, NotADirectoryError):
                continue  # it has just gone
            except OSError as error:  # not to know is not to leave it out: the image would be another one
                raise ContextError(
                    f"cannot list {directory} in the build context: {fs.reason(error)}",
                    hint="make it readable, or take the ! pattern that may match below it out of .dockerignore",
                ) from error
            if not all(self.excluded(below) for below, _ in entries):
                return True
            todo += [below for below, is_dir in entries if is_dir]
        return False

    def _entry(self, path: str, found: os.stat_result) -> Entry:
        kind = KIND_OF_FORMAT.get(stat.S_IFMT(found.st_mode), Kind.FILE)
        size, link, device = 0, "", (0, 0)
        state: tuple[int, ...] = ()
        if stat.S_ISREG(found.st_mode):
            size = found.st_size
            state = (found.st_dev, found.st_ino, size, found.st_mtime_ns, found.st_ctime_ns, found.st_nlink)
        elif kind is Kind.SYMLINK:
            link = os.readlink(self._path(path))
        elif kind in (Kind.CHAR, Kind.BLOCK):
            device = (os.major(found.st_rdev), os.minor(found.st_rdev))
        xattrs = _NO_XATTRS
        if kind is Kind.FILE and found.st_mode & 0o111 and size:
            try:
                xattrs = {CAPABILITY: os.getxattr(self._path(path), CAPABILITY)}
            except OSError:
                pass
        # A socket becomes an empty file, as BuildKit's transfer makes of it.
        return Entry(path, kind, found.st_mode & 0o7777, 0, 0, size, found.st_mtime_ns, link, device, xattrs, "", state)

    def children(self, path: str, /) -> Sequence[str]:
        """See FileSource."""
        if not self._is_directory(path):
            return ()
        ignore, state = self._ignore, self._state(path)
        try:
            with os.scandir(self._path(path)) as found:
                if ignore is None:
                    return sorted(item.name for item in found)
                names = [
                    item.name
                    for item in found
                    if not ignore.excluded(below := paths.join(path, item.name), state)[0]
                    or (item.is_dir(follow_symlinks=False) and self._has_included(below))
                ]
        except OSError as error:
            raise ContextError(f"cannot list {path or '.'} in the build context: {fs.reason(error)}", hint=_hint(error)) from error
        names.sort()
        return names

    def listing(self, path: str, /) -> Iterator[Entry]:
        """See FileSource."""
        for name in self.children(path):
            entry = self._look(paths.join(path, name), known=True)
            if entry is not None:
                yield entry

    def link_id(self, entry: Entry, /) -> object | None:
        """See FileSource."""
        return entry.stat[:2] if entry.stat and entry.stat[5] > 1 else None

    @contextmanager
    def reading(self, entries: Iterable[Entry], /) -> Iterator[Opener]:
        """See FileSource: the files are there, nothing is to be prepared."""
        yield self.open

    def open(self, entry: Entry, /) -> BinaryIO:
        """The content of a file. Raises ContextError when it is not there or not readable any more. What it gives raises
        that, too, at the end of a `with`, if the file is not as it was when it was listed."""
        place = self._path(entry.path)
        try:
            if not entry.stat and stat.S_ISSOCK(os.lstat(place).st_mode):
                return open(os.devnull, "rb")
            # O_NONBLOCK: what has become a fifo since must not wait for its writer
            number = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            stream = _Listed(number, "rb")
            stream.entry = entry
            return cast("BinaryIO", stream)
        except OSError as error:
            raise ContextError(f"cannot read {entry.path} in the build context: {fs.reason(error)}", hint=_hint(error)) from error


class _Listed(io.FileIO):
    """A file that has to be still what it was when it was listed: its digest, which is in cache keys, may be of then."""

    __slots__ = ("entry",)
    entry: Entry

    def __exit__(self, kind: object, error: object, trace: object, /) -> None:
        try:
            if kind is None and self.entry.stat and not self.closed:
                found = os.fstat(self.fileno())
                if (found.st_size, found.st_mtime_ns) != self.entry.stat[2:4]:  # inodes of some FUSE file systems change by themselves
                    raise ContextError(
                        f"{self.entry.path} in the build context changed during the build",
                        hint="run the build again when nothing writes to the file",
                    )
        finally:
            self.close()


def _hint(error: OSError) -> str:
    return "make it readable, or let .dockerignore exclude it" if isinstance(error, PermissionError) else ""
