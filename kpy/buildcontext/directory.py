"""A directory as a build context: a FileSource that obeys .dockerignore and owns everything as root (C07, G01-G08).

Nothing is read before it is asked for (C33): children are listed a directory at a time, contents opened one by one.
Nothing is remembered of files: what a file is on disk goes with its entry. Everything is looked at and opened below a
descriptor of the directory, so that no link in it, old or new, makes us read a file that is not in it.
"""

import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO, cast

from kpy.buildcontext.root import Root, open_regular
from kpy.dockerfile.dockerignore import Ignore, State
from kpy.errors import ContextError
from kpy.layer.entry import KIND_OF_FORMAT, Entry, Kind
from kpy.layer.source import Opener
from kpy.util import fs, paths
from kpy.util.checkpoint import checked

CAPABILITY = "security.capability"
_REMEMBERED = 1024  # directories: those above what is looked at, and some more
_AT_ONCE = 256  # files whose status is taken by one opening of their directory
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # ELOOP: a directory above has become a link
_NO_XATTRS: Mapping[str, bytes] = {}  # one for all: contexts have many files


class DirectoryContext:
    """The files below the directory `root`, without those that `ignore` excludes. Symlinks are never followed here.

    `close` it, or use it in a `with`. What `with_ignore` gives is closed with it.
    """

    def __init__(self, root: str, ignore: Ignore | None = None, *, opened: Root | None = None) -> None:
        self._name = root
        self._root = opened or Root(root)
        self._ignore = ignore
        self._directories: dict[str, bool] = {}
        self._states: dict[str, State] = {}

    def __enter__(self) -> "DirectoryContext":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory."""
        self._root.close()

    def with_ignore(self, ignore: Ignore | None) -> "DirectoryContext":
        """The same directory with other patterns."""
        return DirectoryContext(self._name, ignore, opened=self._root)

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
        return self.excluded(path) and self._status(path) is not None

    def _status(self, path: str) -> os.stat_result | None:
        """What is there, excluded or not; None for nothing, and for what cannot be looked at."""
        try:
            return self._root.status(path)
        except (OSError, ValueError):
            return None

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
        parent, _, name = path.rpartition("/")
        return next(iter(self._look_at(parent, [name or "."], known=known)), None)

    def _look_at(self, parent: str, names: Sequence[str], *, known: bool) -> list[Entry]:
        """Those of the names that are in a directory; "." is the root itself."""
        found: list[Entry] = []
        name = ""
        try:
            place = self._root.directory(parent)
            try:
                for name in checked(names):
                    entry = self._look_in(place, name, paths.join(parent, name) if name != "." else "", known=known)
                    if entry is not None:
                        found.append(entry)
            finally:
                os.close(place)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _NOT_THERE:
                return []  # the directory has just gone
            shown = paths.join(parent, name) if name else parent
            raise ContextError(f"cannot read {shown} in the build context: {getattr(error, 'strerror', error)}") from error
        return found

    def _look_in(self, place: int, name: str, path: str, *, known: bool) -> Entry | None:
        try:
            found = os.stat(name, dir_fd=place, follow_symlinks=False)
            if not known and self.excluded(path) and not (stat.S_ISDIR(found.st_mode) and self._has_included(path)):
                return None
            return self._entry(place, name, path, found)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _has_included(self, path: str) -> bool:
        """An excluded directory is kept when an exception lets something below it in."""
        todo = [path]
        while todo and self._ignore is not None:
            directory = todo.pop()
            if not self._ignore.may_include_below(directory):
                continue
            try:
                with self._scan(directory) as items:
                    entries = [(paths.join(directory, item.name), item.is_dir(follow_symlinks=False)) for item in checked(items)]
            except OSError as error:
                if error.errno in _NOT_THERE:
                    continue  # it has just gone
                # not to know is not to leave it out: the image would be another one
                raise ContextError(
                    f"cannot list {directory} in the build context: {fs.reason(error)}",
                    hint="make it readable, or take the ! pattern that may match below it out of .dockerignore",
                ) from error
            if not all(self.excluded(below) for below, _ in entries):
                return True
            todo += [below for below, is_dir in entries if is_dir]
        return False

    @contextmanager
    def _scan(self, directory: str) -> "Iterator[Iterator[os.DirEntry[str]]]":
        """What is in a directory, in no order."""
        number = self._root.listed(directory)
        try:
            with os.scandir(number) as items:
                yield items
        finally:
            os.close(number)

    def _entry(self, place: int, name: str, path: str, found: os.stat_result) -> Entry:
        kind = KIND_OF_FORMAT.get(stat.S_IFMT(found.st_mode), Kind.FILE)
        size, link, device = 0, "", (0, 0)
        state: tuple[int, ...] = ()
        if stat.S_ISREG(found.st_mode):
            size = found.st_size
            state = (found.st_dev, found.st_ino, size, found.st_mtime_ns, found.st_ctime_ns, found.st_nlink)
        elif kind is Kind.SYMLINK:
            link = os.readlink(name, dir_fd=place)
        elif kind in (Kind.CHAR, Kind.BLOCK):
            device = (os.major(found.st_rdev), os.minor(found.st_rdev))
        xattrs = _NO_XATTRS
        if kind is Kind.FILE and found.st_mode & 0o111 and size:
            xattrs = _capabilities(place, name)
        # A socket becomes an empty file, as BuildKit's transfer makes of it.
        return Entry(path, kind, found.st_mode & 0o7777, 0, 0, size, found.st_mtime_ns, link, device, xattrs, "", state)

    def children(self, path: str, /) -> Sequence[str]:
        """See FileSource."""
        if not self._is_directory(path):
            return ()
        ignore, state = self._ignore, self._state(path)
        try:
            with self._scan(path) as items:
                if ignore is None:
                    return sorted(item.name for item in checked(items))
                names = [
                    item.name
                    for item in checked(items)
                    if not ignore.excluded(below := paths.join(path, item.name), state)[0]
                    or (item.is_dir(follow_symlinks=False) and self._has_included(below))
                ]
        except OSError as error:
            raise ContextError(f"cannot list {path or '.'} in the build context: {fs.reason(error)}", hint=_hint(error)) from error
        names.sort()
        return names

    def listing(self, path: str, /) -> Iterator[Entry]:
        """See FileSource."""
        names = self.children(path)
        for first in range(0, len(names), _AT_ONCE):
            yield from self._look_at(path, names[first : first + _AT_ONCE], known=True)

    def link_id(self, entry: Entry, /) -> object | None:
        """See FileSource."""
        return entry.stat[:2] if entry.stat and entry.stat[5] > 1 else None

    @contextmanager
    def reading(self, entries: Iterable[Entry], /) -> Iterator[Opener]:
        """See FileSource: the files are there, nothing is to be prepared."""
        yield self.open

    def open(self, entry: Entry, /) -> BinaryIO:
        """The content of a file. Raises ContextError when it is not there or not readable any more, or no regular file.
        What it gives raises that, too, at the end of a `with`, if the file is not as it was when it was listed."""
        try:
            if not entry.stat and (found := self._status(entry.path)) is not None and stat.S_ISSOCK(found.st_mode):
                return io.BytesIO()  # and not /dev/null: in a live root, a RUN may have put something else there
            stream = _Listed(self._root.regular(entry.path), "rb")
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise _changed(entry) from error
            raise ContextError(f"cannot read {entry.path} in the build context: {fs.reason(error)}", hint=_hint(error)) from error
        stream.entry = entry
        return cast("BinaryIO", stream)


class _Listed(io.FileIO):
    """A file that has to be still what it was when it was listed: its digest, which is in cache keys, may be of then."""

    __slots__ = ("entry",)
    entry: Entry

    def __exit__(self, kind: object, error: object, trace: object, /) -> None:
        try:
            if kind is None and self.entry.stat and not self.closed:
                found = os.fstat(self.fileno())
                if (found.st_size, found.st_mtime_ns) != self.entry.stat[2:4]:  # inodes of some FUSE file systems change by themselves
                    raise _changed(self.entry)
        finally:
            self.close()


def _capabilities(place: int, name: str) -> Mapping[str, bytes]:
    """The one attribute that goes into layers, of an executable: file capabilities."""
    try:
        number = open_regular(place, name)
    except OSError as error:
        if error.errno in (*_NOT_THERE, errno.EINVAL, errno.EACCES, errno.EPERM):
            return _NO_XATTRS  # whoever copies it says so
        raise
    try:
        return {CAPABILITY: os.getxattr(number, CAPABILITY)}
    except OSError:
        return _NO_XATTRS
    finally:
        os.close(number)


def _changed(entry: Entry) -> ContextError:
    return ContextError(
        f"{entry.path} in the build context changed during the build",
        hint="run the build again when nothing writes to the file",
    )


def _hint(error: OSError) -> str:
    return "make it readable, or let .dockerignore exclude it" if isinstance(error, PermissionError) else ""
