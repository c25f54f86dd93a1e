"""What COPY and ADD put where: metadata in, a list of entries out (C01-C22). Reads no content, scans no disk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.forms import FormError
from kpy.errors import ContextError
from kpy.layer.entry import Entry, Kind
from kpy.layer.source import FileSource
from kpy.oci.digest import Digest
from kpy.solver.lookup import missing, parts_of, resolve, wildcards
from kpy.solver.target import LayerTarget, Put, Taken
from kpy.util import paths
from kpy.util.checkpoint import checkpoint
from kpy.util.modes import Mode

CAPABILITY = "security.capability"  # the only attribute that BuildKit keeps in layers (C15)


@dataclass(frozen=True, slots=True)
class Rules:
    """How entries are changed on their way. `owner` None: as in the source, where that is kept, else 0:0.

    `now` is the time of directories that the copy makes, in nanoseconds.
    """

    owner: tuple[int, int] | None
    mode: Mode | None
    keep_owner: bool
    exclude: Ignore | None
    now: int
    parents: bool = False


@dataclass(slots=True)
class _Directory:
    """A directory of the source that is being copied: the entries that are still to come, and where they go. `relative`
    is its path from the top of the copy. `pending` are excluded directories above, made when something in them turns
    out to be included."""

    entries: Iterator[Entry]
    place: str
    relative: str
    pending: tuple[tuple[Entry, str], ...] = ()


class Copier:
    """Copies from one source into the target; `number` is what the target's puts call it (see target.Taken).

    The content of a directory is put in the order of the layer, and nothing is remembered of what was put.
    """

    def __init__(self, source: FileSource, target: LayerTarget, rules: Rules, *, number: int = 0) -> None:
        self.source = source
        self.target = target
        self.rules = rules
        self.number = number
        self._copies = 0

    def begin(self) -> None:
        """What comes now is another copy: hard links to what was copied before are not kept (C14)."""
        self._copies += 1

    # --- entries -------------------------------------------------------------

    def owner(self, entry: Entry) -> tuple[int, int]:
        """The owner in the image."""
        if self.rules.owner is not None:
            return self.rules.owner
        return (entry.uid, entry.gid) if self.rules.keep_owner else (0, 0)

    def _implied_mode(self) -> int:
        """The mode of directories that a copy implies: 0755, or an octal --chmod (C11)."""
        mode = self.rules.mode
        return mode.octal & 0o777 if mode is not None and mode.octal is not None else 0o755

    def _changed(self, entry: Entry, path: str) -> Entry:
        uid, gid = self.owner(entry)
        mode = entry.mode
        if self.rules.mode is not None and entry.kind is not Kind.SYMLINK:
            mode = self.rules.mode.apply(mode, is_dir=entry.kind is Kind.DIR)
        xattrs = entry.xattrs
        if xattrs:
            xattrs = {key: value for key, value in xattrs.items() if key == CAPABILITY}
        # three times as fast as dataclasses.replace
        return Entry(path, entry.kind, mode, uid, gid, entry.size, entry.mtime, entry.link, entry.device, xattrs,
                     entry.sha256)  # fmt: skip

    def _put(self, entry: Entry, path: str) -> None:
        if path.rpartition("/")[2].startswith(".wh."):
            raise ContextError(
                f"cannot copy {entry.path}: a file whose name starts with .wh. would delete files in the image",
                hint="rename the file (OCI image-spec reserves .wh. in layers)",
            )
        same = self.source.link_id(entry)
        content = Taken(self.number, entry) if entry.kind is Kind.FILE else None
        name = (self.number, self._copies, same) if same is not None else None
        self.target.add(self._changed(entry, path), content, name)

    # --- copying -------------------------------------------------------------

    def copy(self, pattern: str, dest: str) -> int:
        """Copy what a source word means; how many sources it matched. Raises ContextError for a missing source."""
        if self.rules.parents:
            from kpy.solver.copy_parents import copy_with_parents

            return copy_with_parents(self, pattern, dest)
        try:
            found = wildcards(self.source, pattern)
        except FormError as error:
            raise ContextError(f"bad pattern {pattern!r}: {error.message}", hint=error.hint) from error
        for path in ["/".join(parts_of(pattern))] if found is None else found:
            self.copy_path(path, dest)
        return 1 if found is None else len(found)

    def find(self, path: str) -> Entry:
        """The entry of a source path, links followed (C06). Raises ContextError that says why it is not there."""
        entry = self.source.lookup(resolve(self.source, path)) if path else Entry("", Kind.DIR, 0o755)
        if path == "":
            entry = self.source.lookup("") or entry
        if entry is None:
            raise missing(self.source, path)
        return entry

    def copy_path(self, path: str, dest: str) -> None:
        """Copy one path, which is taken literally."""
        self.begin()
        entry = self.find(path)
        wanted = dest.strip("/")
        parent = wanted if dest.endswith("/") else wanted.rpartition("/")[0]
        self.make_dirs(parent)
        place = self.target.resolve(wanted)
        there = self.target.lookup(place)
        if entry.kind is not Kind.DIR:
            if there is not None and there.kind is Kind.DIR:
                name = path.rpartition("/")[2]
                place = f"{place}/{name}" if place else name
                if (inside := self.target.lookup(place)) is not None and inside.kind is Kind.DIR:
                    raise ContextError(f"cannot replace the directory /{place} with the file {path}")
            else:  # a link at the destination stays, and what it leads to is replaced, or made (C06)
                self.make_dirs(place.rpartition("/")[0])
            self._put(entry, place)
            return
        if there is not None and there.kind is not Kind.DIR:
            raise ContextError(f"cannot copy the directory {path or '.'} to the non-directory /{place}")
        if there is None:
            self.make_dirs(place)
        self.set_time(place, entry.path)
        self.copy_children(entry.path, place, "")

    def set_time(self, place: str, source: str) -> None:
        """Give a destination directory, made or found, the time of the directory that was copied into it."""
        entry = self.source.lookup(source)
        there = self.target.lookup(self.target.resolve(place))
        if entry is not None and there is not None and there.path and there.kind is Kind.DIR:
            self.target.put(replace(there, mtime=entry.mtime))

    def make_dirs(self, path: str) -> list[str]:
        """Make a destination directory."""
        try:
            return self.target.make_dirs(path, self._implied_mode(), self.rules.owner, self.rules.now)
        except NotADirectoryError as error:
            raise ContextError(f"cannot copy to /{path}: /{error} is not a directory") from error

    def make_parent(self, entry: Entry, into: str) -> None:
        """A directory that is only made because something in it is copied: mode and owner of the source's."""
        there = self.target.lookup(into)
        if there is None:
            self.target.put(replace(self._changed(entry, into), mtime=self.rules.now))
        elif there.kind is not Kind.DIR:
            raise ContextError(f"cannot copy the directory {entry.path} to the non-directory /{into}")

    def copy_children(self, source: str, place: str, relative: str) -> None:
        """Copy what is in a directory. `relative` is the path from the top of this source, for --exclude (C21)."""
        todo = [_Directory(self.source.listing(source), place, relative)]
        while todo:  # and no recursion: an image may be as deep as it likes
            checkpoint()
            entry = next(todo[-1].entries, None)
            if entry is None:
                todo.pop()
            elif (below := self._copy_one(todo[-1], entry)) is not None:
                todo.append(below)

    def _copy_one(self, here: _Directory, entry: Entry) -> _Directory | None:
        """Copy one entry of a directory; gives the directory to go on with, if it is one."""
        exclude, name = self.rules.exclude, entry.path.rpartition("/")[2]
        below, into = paths.join(here.relative, name), paths.join(here.place, name)
        if exclude is not None and exclude.matches(below):
            if entry.kind is Kind.DIR and exclude.may_include_below(below):
                return _Directory(self.source.listing(entry.path), into, below, (*here.pending, (entry, into)))
            return None
        for above, path in here.pending:
            self.make_parent(above, path)
        here.pending = ()
        if entry.kind is not Kind.DIR:
            self.copy_entry(entry, into)
            return None
        self.copy_dir(entry, into)
        return _Directory(self.source.listing(entry.path), into, below)

    def copy_dir(self, entry: Entry, into: str) -> None:
        """A directory below the top: its metadata replaces that of one that is there (C10)."""
        there = self.target.lookup(into)
        if there is not None and there.kind is not Kind.DIR:
            raise ContextError(f"cannot copy the directory {entry.path} to the non-directory /{into}")
        self._put(entry, into)

    def copy_entry(self, entry: Entry, into: str) -> None:
        """Anything but a directory."""
        there = self.target.lookup(into)
        if there is not None and there.kind is Kind.DIR:
            raise ContextError(f"cannot replace the directory /{into} with the file {entry.path}")
        self._put(entry, into)


def copy_key(target: LayerTarget, content: Callable[[Put], str]) -> Digest:
    """The cache key of a layer of COPY, ADD or WORKDIR: all that is in it, except times (C13, C31).

    `content` gives the sha256 of a FILE.
    """
    import hashlib

    hasher = hashlib.sha256(b"kpy copy 1\n")
    for put in target.puts():
        entry = put.entry
        sha256 = content(put) if entry.kind is Kind.FILE else ""
        xattrs = sorted((key, value.hex()) for key, value in entry.xattrs.items())
        line = (entry.path, entry.kind.value, entry.mode, entry.uid, entry.gid, entry.size, entry.link, entry.device, xattrs, sha256)
        hasher.update(repr(line).encode("utf-8", "surrogateescape"))
    return Digest("sha256", hasher.hexdigest())
