"""A layer's tar onto a directory: safe against any tar, fast, in one pass (C14-C17).

Refuses to leave the root or to touch what is protected. Follows symlinks of the image only inside the root. Order
for a file: content, owner (which clears set-id bits and capabilities), xattrs, mode, time; modes and times of
directories come last of all.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from kpy.errors import ContentError, KpyError, StoreError
from kpy.layer.device import DEVICE_XATTR, encode_device
from kpy.layer.entry import Entry, Kind
from kpy.layer.index import KEPT_FILES, MAX_KEPT, LayerTree
from kpy.layer.notes import Notes, is_device, is_noted
from kpy.layer.rights import weakened
from kpy.layer.rootdir import ProtectedError, RootDir
from kpy.layer.tarread import DEFAULT_LIMITS, TarLimits, read_tar
from kpy.util import fs, paths, unclaimed
from kpy.util.checkpoint import checked

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ASIDE = b".wh..kpy.link."  # no layer can have such a name: it is a marker


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """How to extract. `skip` names protected canonical paths ("proc", "kpy"): they and all below stay as they are,
    and entries there are passed over silently. Without `owners` nothing is chowned. Without `set_ids` no program gets its owner's rights or
    capabilities, and devices are for their owner alone. With `notes`, owners, true modes,
    devices and root's attributes are told to it and not given to the disk. `slots` are the root's directories that are
    elsewhere, and there for good, by name: what is in them is replaced, but not they. `hash_files` fills the index's
    `sha256`. `max_bytes` bounds the sum of the files' sizes. Without `placeholders` a device that may not be made is an
    error, and no file that stands for it."""

    skip: Callable[[str], bool] | None = None
    owners: bool = True
    set_ids: bool = True
    notes: Notes | None = None
    slots: Mapping[str, str] = field(default_factory=dict)
    hash_files: bool = True
    max_entries: int = DEFAULT_LIMITS.entries
    max_bytes: int | None = None
    placeholders: bool = True


DEFAULT_OPTIONS = ExtractOptions()


@dataclass(frozen=True, slots=True)
class LostXattr:
    """An extended attribute that the file system or the kernel did not take."""

    path: str
    name: str
    errno: int


@dataclass(frozen=True, slots=True)
class Extracted:
    """The layer's index (without `sha256` if not asked for), what could not be set, and how many files have less rights than
    the image gives them, without `set_ids`."""

    tree: LayerTree
    lost: tuple[LostXattr, ...]
    weakened: int = 0


def extract(
    tar: BinaryIO,
    root: str,
    *,
    options: ExtractOptions = DEFAULT_OPTIONS,
    seen: Callable[[Entry], object] | None = None,
) -> Extracted:
    """Apply the uncompressed layer to the directory `root` and read the stream to its end.

    Whiteouts remove what was there before, never what the layer itself brings, wherever they stand in it. With `seen`, which
    gets the entries one by one, there are none in the index that comes back. Raises
    ContentError for what no root can hold, StoreError when the disk is full or the owner cannot be given.
    """
    try:
        with RootDir(root, options.skip, options.slots) as rootdir:
            pairs = read_tar(tar, layer=True, limits=TarLimits(entries=options.max_entries, bytes=options.max_bytes))
            return _Extraction(rootdir, root, options).run(pairs, seen)
    except OSError as error:
        raise fs.store_error("extract a layer to", root, error) from error


def place(pairs: Iterable[tuple[Entry, "FileContent"]], root: str, options: ExtractOptions) -> Extracted:
    """Put files that are in no tar into a directory, by the same rules; without an index. Raises as `extract`."""
    with RootDir(root, options.skip, options.slots) as rootdir:
        return _Extraction(rootdir, root, options).run(pairs, lambda _: None)


class FileContent(Protocol):
    """What is in a file."""

    def chunks(self) -> Iterator[bytes]:
        """All of it."""
        ...


def _explained(error: OSError, path: str, root: str) -> KpyError:
    what = f"extract {path[:200]!r} to"
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return ContentError(f"cannot {what} {root}: {fs.reason(error)}")
    return fs.store_error(what, root, error)


class _Extraction:
    def __init__(self, root: RootDir, name: str, options: ExtractOptions) -> None:
        self._root = root
        self._name = name
        self._options = options
        self._lost: list[LostXattr] = []
        self._weakened = 0
        self._files: dict[str, bytes] = {}

    def run(self, pairs: Iterable[tuple[Entry, FileContent]], seen: Callable[[Entry], object] | None) -> Extracted:
        """Extract everything."""
        entries: list[Entry] = []
        note = seen or entries.append
        for entry, content in pairs:
            sha256 = ""
            try:
                sha256 = self._apply(entry, content)
            except ProtectedError:
                if entry.kind is Kind.FILE:
                    sha256 = self._read_only(entry, content)
            except OSError as error:
                raise _explained(error, entry.path, self._name) from error
            if sha256:
                entry = Entry(entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime,
                              entry.link, entry.device, entry.xattrs, sha256)  # fmt: skip
            note(entry)
        self._finish_directories()
        return Extracted(LayerTree(entries, self._files), tuple(self._lost), self._weakened)

    def _apply(self, entry: Entry, content: FileContent) -> str:
        if not self._options.set_ids:
            weak = weakened(entry)
            self._weakened += weak is not entry
            entry = weak
        kind = entry.kind
        if kind is Kind.WHITEOUT or kind is Kind.OPAQUE:
            self._remove(entry)
            return ""
        if not entry.path:
            if not self._options.slots:  # else the directory only stands for the root
                self._root.final[""] = entry
            return ""
        parent, _, name = entry.path.rpartition("/")
        place = self._root.directory(parent, make=True)
        assert place is not None
        fd, above = place
        path = paths.join(above, name)
        self._root.check(path)
        if kind is Kind.FILE:
            return self._file(fd, name, path, entry, content)
        if kind is Kind.DIR:
            self._directory(fd, name, path, entry)
        elif kind is Kind.HARDLINK:
            self._link(fd, name, path, entry)
        else:
            self._special(fd, name, path, entry)
        return ""

    def _file(self, fd: int, name: str, path: str, entry: Entry, content: FileContent) -> str:
        try:
            out = os.open(name, _CREATE, 0o600, dir_fd=fd)
        except FileExistsError:
            self._root.replace(fd, name, path)
            out = os.open(name, _CREATE, 0o600, dir_fd=self._root.canonical(path.rpartition("/")[0]))
        try:
            self._root.made.add(path)
            sha256 = self._copy(entry, content, out)
            self._dress(out, entry)
        finally:
            os.close(out)
        return sha256

    def _dress(self, fd: int, entry: Entry) -> None:
        """Owner, xattrs, mode and time of an open file."""
        notes = self._options.notes
        if notes is None and self._options.owners:
            _give(entry, lambda: os.fchown(fd, entry.uid, entry.gid))
        self._xattrs(fd, entry)
        os.fchmod(fd, self._permissions(entry))
        if notes is not None:  # now that the disk says what it can
            notes.note(fd, "", entry)
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def _permissions(self, entry: Entry) -> int:
        notes = self._options.notes
        return entry.mode if notes is None else notes.permissions(entry.mode, directory=entry.kind is Kind.DIR)

    def _xattrs(self, where: int | str, entry: Entry) -> None:
        for name, value in entry.xattrs.items():
            if self._options.notes is None or not is_noted(name):
                self._xattr(where, name, value, entry.path)

    def _xattr(self, where: int | str, name: str, value: bytes, path: str) -> None:
        try:
            if isinstance(where, int):
                os.setxattr(where, name, value)
            else:
                os.setxattr(where, name, value, follow_symlinks=False)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            code = (error.errno or 0) if isinstance(error, OSError) else errno.EINVAL
            self._lost.append(LostXattr(path, name, code))

    def _copy(self, entry: Entry, content: FileContent, out: int) -> str:
        hasher = hashlib.sha256() if self._options.hash_files else None
        keep: list[bytes] | None = [] if entry.path in KEPT_FILES and entry.size <= MAX_KEPT else None
        for chunk in content.chunks():
            if out >= 0:
                written = os.write(out, chunk)
                while written < len(chunk):
                    written += os.write(out, memoryview(chunk)[written:])
            if hasher is not None:
                hasher.update(chunk)
            if keep is not None:
                keep.append(chunk)
        if keep is not None:
            self._files[entry.path] = b"".join(keep)
        return hasher.hexdigest() if hasher is not None else ""

    def _read_only(self, entry: Entry, content: FileContent) -> str:
        """The content of a file that is passed over, for the index."""
        return self._copy(entry, content, -1)

    def _directory(self, fd: int, name: str, path: str, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError:
            if not stat.S_ISDIR(self._root.look(fd, name, path).st_mode):
                self._root.replace(fd, name, path)
                os.mkdir(name, 0o700, dir_fd=fd)
        self._root.made.add(path)
        self._root.final[path] = entry

    def _link(self, fd: int, name: str, path: str, entry: Entry) -> None:
        parent, _, source = entry.link.rpartition("/")
        fd = os.dup(fd)  # looking up the target may close it
        try:
            place = self._root.directory(parent, make=False)
            try:
                if place is None:
                    raise FileNotFoundError
                target = paths.join(place[1], source)
                found = self._root.look(place[0], source, target)
            except FileNotFoundError:
                raise ContentError(
                    f"{entry.path!r} is a hard link to {entry.link!r}, which is not there"
                ) from None
            self._root.check(target)
            if stat.S_ISDIR(found.st_mode):
                raise ContentError(f"{entry.path!r} is a hard link to the directory {entry.link!r}")
            self._root.made.add(path)
            if target == path:
                return
            try:
                os.link(source, name, src_dir_fd=place[0], dst_dir_fd=fd, follow_symlinks=False)
            except FileExistsError:
                # the target may be in the directory that goes, so take it out first
                old, kept = place[0], fd
                aside = unclaimed.take(lambda new: os.link(source, new, src_dir_fd=old, dst_dir_fd=kept, follow_symlinks=False), _ASIDE)
                try:
                    self._root.replace(fd, name, path)
                except BaseException:
                    os.unlink(aside, dir_fd=fd)
                    raise
                os.rename(aside, name, src_dir_fd=fd, dst_dir_fd=fd)
        finally:
            os.close(fd)

    def _special(self, fd: int, name: str, path: str, entry: Entry) -> None:
        try:
            self._create(fd, name, entry)
        except FileExistsError:
            self._root.replace(fd, name, path)
            fd = self._root.canonical(path.rpartition("/")[0])
            self._create(fd, name, entry)
        self._root.made.add(path)
        if self._options.notes is not None:
            self._options.notes.note(fd, name, entry)
        elif self._options.owners:
            _give(entry, lambda: os.chown(name, entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False))
        self._xattrs(f"/proc/self/fd/{fd}/{name}", entry)
        if entry.kind is not Kind.SYMLINK:
            os.chmod(name, self._permissions(entry), dir_fd=fd)  # we have just made it, it is no symlink
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=fd, follow_symlinks=False)

    def _create(self, fd: int, name: str, entry: Entry) -> None:
        if entry.kind is Kind.SYMLINK:
            os.symlink(entry.link, name, dir_fd=fd)
        elif entry.kind is Kind.FIFO:
            os.mkfifo(name, 0o600, dir_fd=fd)
        elif self._options.notes is not None and is_device(entry):
            os.close(os.open(name, _CREATE, 0o600, dir_fd=fd))
        elif entry.device == (0, 0) and self._options.placeholders:  # in a lower directory of an overlay a char 0:0 would be a whiteout
            self._placeholder(fd, name, entry)
        else:
            format_ = stat.S_IFCHR if entry.kind is Kind.CHAR else stat.S_IFBLK
            try:
                os.mknod(name, format_ | 0o600, os.makedev(*entry.device), dir_fd=fd)
            except PermissionError:
                if not self._options.placeholders:
                    raise
                self._placeholder(fd, name, entry)

    def _placeholder(self, fd: int, name: str, entry: Entry) -> None:
        out = os.open(name, _CREATE, 0o600, dir_fd=fd)
        try:
            self._xattr(out, DEVICE_XATTR, encode_device(entry.kind, entry.device), entry.path)
        finally:
            os.close(out)

    def _remove(self, entry: Entry) -> None:
        """A whiteout: remove what was there before this layer."""
        if entry.kind is Kind.OPAQUE and not entry.path:
            self._root.clear("")
            return
        parent, _, name = entry.path.rpartition("/")
        place = self._root.directory(parent, make=False)
        if place is None:
            return
        fd, above = place
        path = paths.join(above, name)
        self._root.check(path)
        try:
            found = self._root.look(fd, name, path).st_mode
        except FileNotFoundError:
            return
        if path not in self._root.made or stat.S_ISDIR(found):
            self._root.touch(fd, above)
        if not stat.S_ISDIR(found):
            if path not in self._root.made and entry.kind is Kind.WHITEOUT:
                self._root.replace(fd, name, path)
        elif entry.kind is Kind.OPAQUE:
            self._root.touched.setdefault(path, self._root.look(fd, name, path).st_mtime_ns)
            self._root.clear(path)
        else:
            self._root.purge(path, keep_made=True)

    def _finish_directories(self) -> None:
        """Owners, xattrs, modes and times of directories, the deepest first."""
        final = self._root.final
        for path in checked(sorted({*final, *self._root.touched}, reverse=True)):
            try:
                fd = self._root.readable(path)
            except (FileNotFoundError, NotADirectoryError, ProtectedError):
                continue  # something took its place later in the layer
            try:
                if path in final:
                    self._dress(fd, final[path])
                else:
                    mtime = self._root.touched[path]
                    os.utime(fd, ns=(mtime, mtime))
            except PermissionError as error:
                # Modes and times of slots, and of what they are in, may be another's to change.
                if path not in self._options.slots and not (self._options.slots and not path):
                    raise _explained(error, path, self._name) from error
            except OSError as error:
                raise _explained(error, path, self._name) from error
            finally:
                os.close(fd)


def _give(entry: Entry, chown: Callable[[], None]) -> None:
    try:
        chown()
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise StoreError(
                f"cannot give {entry.path!r} to {entry.uid}:{entry.gid}: the user namespace has no such id",
                hint="add ids for this user to /etc/subuid and /etc/subgid",
            ) from error
        if error.errno == errno.EPERM:
            raise StoreError(
                f"cannot give {entry.path!r} to {entry.uid}:{entry.gid}: not permitted",
                hint="run as root, or in a user namespace with more than one id",
            ) from error
        raise
