"""The live root of an ordinary user. `/` itself is the container runtime's: nothing can be made, renamed or removed in
it (EXECUTION B4). So the names in it are slots, which the builder's image brings, or volumes:

- a *directory* that we may write to is that directory of the image's root;
- a *link* to /kroot/NAME is whatever the image has there, which is put into /kroot: a directory in one image, a link to
  usr/NAME in the next (/bin and the like), or nothing.

/kroot has all names of the root: beside what is in it, links to the directory slots and to what is not the image's. So
relative links mean there what they mean in the root, and the root can be unpacked and scanned there as one tree.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

from kpy.errors import SandboxError
from kpy.layer.entry import Entry, Kind, LayerItem
from kpy.layer.extract import ExtractOptions
from kpy.layer.tree import Tree
from kpy.linux.birth import identify
from kpy.linux.ledger import ABSENT, Ledger, Record
from kpy.linux.libc import AT_FDCWD
from kpy.snapshot.diff import differences, text
from kpy.snapshot.ground import Ground, extract_options
from kpy.snapshot.recorder import Recorder
from kpy.snapshot.scan import MODE, MTIME, Index, altered, scan
from kpy.snapshot.volumes import Volumes
from kpy.util import unclaimed
from kpy.util.checkpoint import checkpoint
from kpy.util.erase import ancestors, empty, remove
from kpy.util.mountinfo import mount_points

HOME = "kroot"
# What a runtime puts into /etc, whoever mounts that.
_RUNTIME = frozenset({b"etc/hosts", b"etc/hostname", b"etc/resolv.conf"})
_FULL, _HELD = "is a mount that has files already: it is not emptied", "is a mount that has files of others"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Slots:
    """Implements `snapshot.ground.Ground` for `/`. `others` are paths relative to it that are not the image's: those
    of the kernel, of the runtime and of the builder. `volumes`: those that an earlier build in this pod has used. `private`: those
    of the builder that no RUN may have."""

    def __init__(
        self, ledger: Ledger, others: Iterable[str], volumes: Volumes, root: str = "/", *, private: Iterable[str] = ()
    ) -> None:
        self.root = root
        self.home = os.path.join(root, HOME)
        self._ledger = ledger
        self._volumes = volumes
        self._others = frozenset(os.fsencode(path.strip("/")) for path in others)
        self._private = {os.fsencode(path.strip("/")).partition(b"/")[0]: path for path in private}
        self._links: set[bytes] = set()
        self._slots: dict[bytes, bytes] = {}
        self._why_not: dict[bytes, str] = {}
        self._closed: dict[bytes, bytes] = {}
        self._times: dict[bytes, tuple[int, int]] = {}
        self._find(frozenset(mount_points(root)))

    def _find(self, mounts: AbstractSet[bytes]) -> None:
        """What there is, found by looking. Raises SandboxError without a /kroot."""
        problem = _problem(os.fsencode(self.home))
        if problem:
            raise SandboxError(
                f"the root file system cannot be replaced: {self.home} {problem}",
                hint=f"mount an emptyDir at {self.home}, or build in the kpy image",
            )
        for name in sorted(os.listdir(os.fsencode(self.root))):
            path = os.path.join(os.fsencode(self.root), name)
            if name in self._others or name == HOME.encode():
                continue
            if _link(path) == os.path.join(os.fsencode(self.home), name):
                self._links.add(name)
            elif problem := _problem(path):
                self._why_not[name] = problem
                if name not in mounts and _is_empty_directory(path):
                    self._closed[name] = path  # the builder image's, in a read-only root: an image need not see it
            elif name in mounts and not self._is_for_us(name, path, mounts):
                self._why_not[name] = _FULL if not self._has_builders(name) and _holds_ours(path) else _HELD
            else:
                self._slots[name] = path

    def _is_for_us(self, name: bytes, path: bytes, mounts: AbstractSet[bytes]) -> bool:
        """Is the mount at this name a volume for the image's root, with nothing in it that somebody misses?"""
        if self._has_builders(name):
            return False  # something of the builder's is in it, which a RUN must not have
        others = {place for place in mounts | self._others if place.startswith(name + b"/")}
        others |= ancestors(others)
        found = {inner for inner in os.listdir(path) if name + b"/" + inner not in others}
        if name == b"etc" and _link(os.path.join(path, b"mtab")) == b"/proc/mounts":
            found.discard(b"mtab")  # podman and CRI-O put it there, whatever is mounted
        if found:
            return self._volumes.has(name, path)
        self._volumes.claim(name, path)
        return True

    def _has_builders(self, name: bytes) -> bool:
        """Is something of the builder's in it?"""
        return any(place.startswith(name + b"/") for place in self._others - _RUNTIME)

    def mounts(self) -> AbstractSet[bytes]:
        """See Ground. Volumes at slots are part of the root."""
        home = HOME.encode() + b"/"
        found = {point.removeprefix(home) for point in mount_points(self.root)}
        return frozenset(found - self._slots.keys() - self._links - {HOME.encode()})

    def empty(self, keep: AbstractSet[bytes], /) -> list[bytes]:
        """See Ground."""
        self._ledger.records.clear()
        self._ledger.slots.clear()
        tops = {path.partition(b"/")[0] for path in keep} & set(os.listdir(os.fsencode(self.root)))
        fixed = (tops | self._slots.keys()) - self._links
        stuck = empty(self.home, fixed | keep)
        for name in sorted(fixed):
            self._lead(name)
        for name, path in self._slots.items():
            inside = name + b"/"
            left = empty(os.fsdecode(path), {path.removeprefix(inside) for path in keep if path.startswith(inside)}, look=checkpoint)
            stuck += [inside + inner for inner in left]
            _copy_up(path)
        return stuck

    def _lead(self, name: bytes) -> None:
        """Have a link in /kroot to what is in the root."""
        link, target = os.path.join(os.fsencode(self.home), name), os.path.join(os.fsencode(self.root), name)
        if _link(link) == target:
            return
        try:
            remove(link)  # a RUN can have put anything there
            os.symlink(target, link)
        except OSError as error:
            raise SandboxError(
                f"{os.fsdecode(link)} is in the way of the root file system: {(error.strerror or '').lower()}",
                errno=error.errno or 0, hint="start the build in a fresh container",
            ) from error  # fmt: skip

    def options(self, keep: AbstractSet[bytes], /) -> ExtractOptions:
        """See Ground."""
        return extract_options(
            keep, self._ledger, slots={text(name): os.fsdecode(path) for name, path in self._slots.items()}
        )

    def settle(self, tree: Tree, keep: AbstractSet[bytes], /) -> None:
        """See Ground. What the slots are is not on the disk: neither their owners and modes, which may be another's to
        change, nor that the image does not have them."""
        self._check(tree, keep)
        recorder = Recorder(self._ledger)
        self._times = {}
        above = ancestors(keep)
        for name in self._links:
            found = os.lstat(os.path.join(os.fsencode(self.root), name))
            self._ledger.slots[found.st_dev, found.st_ino] = os.path.join(os.fsencode(self.home), name)
        for name, path in self._slots.items():
            entry = tree.lookup(text(name))
            place = os.open(path, _DIRECTORY)
            try:
                status = os.fstat(place)
                if entry is not None or not self._has_builders(name):  # else it is there for the builder alone, and no RUN's
                    self._ledger.slots[status.st_dev, status.st_ino] = b""
                if entry is not None or name in above:
                    recorder.note(place, "", entry or _plain_directory(name))
                    self._times[name] = (status.st_mtime_ns, entry.mtime if entry is not None else status.st_mtime_ns)
                else:
                    key, born = identify(place)
                    self._ledger.records[key] = Record(ABSENT, born=born)
            finally:
                os.close(place)
        for name, path in self._closed.items():
            if tree.lookup(text(name)) is None:
                key, born = identify(AT_FDCWD, path)
                self._ledger.slots[key] = b""
                self._ledger.records[key] = Record(ABSENT, born=born)

    def _check(self, tree: Tree, keep: AbstractSet[bytes]) -> None:
        names = [os.fsencode(name) for name in tree.children("")]
        for name in names:
            if name in self._private:  # a directory that is the image's, too, is all the RUN's
                raise SandboxError(
                    f"the image has /{os.fsdecode(name)}, and the builder has {self._private[name]} there",
                    hint="keep logins, keys and the state directory in /kpy, or at a name in / that no image has",
                )
        # What is in a volume with files would be the image's to read, whoever put it there: an earlier build, say.
        missing: list[bytes] = [
            name
            for name in names
            if name not in self._links and name not in self._slots and (name not in keep or self._why_not.get(name) == _FULL)
        ]
        if not missing:
            return
        uid = os.geteuid()
        shown = ", ".join(f"/{os.fsdecode(name)}" for name in missing)
        whys = [f"/{os.fsdecode(name)} {why}" for name in missing if (why := self._why_not.get(name))]
        raise SandboxError(
            f"the image has {shown}, which uid {uid} cannot have in this container" + (f": {'; '.join(whys)}" if whys else ""),
            hint="mount an empty volume there for each build, or keep /kpy/state on a volume that goes with it"
            if any(self._why_not.get(name) == _FULL for name in missing)
            else "mount an emptyDir at each of them, or make a builder image that has them (see Containerfile)",
        )

    def scan(self, keep: AbstractSet[bytes], /) -> Index:
        """See Ground."""
        index = scan(self.home, keep, ledger=self._ledger, slots=self._slots)
        for name in self._slots:
            found = index.get(name)
            if found is None:
                continue
            physical, true = self._times.get(name, (-1, 0))
            if found[MODE] == ABSENT:
                if self._inhabited(name, keep):  # nobody saw who made it
                    index[name] = altered(found, mode=stat.S_IFDIR | 0o755)
                else:
                    del index[name]
            elif found[MTIME] == physical:
                index[name] = altered(found, mtime=true)
        return index

    def _inhabited(self, name: bytes, keep: AbstractSet[bytes]) -> bool:
        return any(name + b"/" + inner not in keep for inner in os.listdir(self._slots[name]))

    def differences(self, before: Index, after: Index, tree: Tree, /) -> Iterator[LayerItem]:
        """See Ground."""
        return differences(self.home, before, after, tree.lookup, self._ledger, self._slots)


def _plain_directory(name: bytes) -> Entry:
    return Entry(text(name), Kind.DIR, 0o755)


def _link(path: bytes) -> bytes | None:
    """Where a symlink leads, as an absolute path by the text alone; None if it is none."""
    try:
        return os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    except OSError:
        return None


def _is_empty_directory(path: bytes) -> bool:
    try:
        return not os.path.islink(path) and not os.listdir(path)
    except OSError:
        return False


def _holds_ours(path: bytes) -> bool:
    """Is something in it that an earlier RUN can have made? What the runtime makes, for mounts in it, is root's."""
    with os.scandir(path) as entries:
        return any(entry.stat(follow_symlinks=False).st_uid == os.geteuid() for entry in entries)


def _problem(path: bytes) -> str:
    """Why this is no directory that an image can be unpacked into; "" if it is one."""
    try:
        place = os.open(path, _DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            return "is no directory"
        return f"cannot be opened ({(error.strerror or '').lower()})"
    try:
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=place, effective_ids=True):
            return f"is not writable for uid {os.geteuid()}"
        if os.fstatvfs(place).f_flag & os.ST_NOEXEC:
            return "is mounted noexec: no program of the image could run"
    finally:
        os.close(place)
    return ""


def _copy_up(path: bytes) -> None:
    """Have an overlay copy the directory up now: later, it would be born again, and not be known any more."""
    os.rmdir(os.path.join(path, unclaimed.take(lambda name: os.mkdir(os.path.join(path, name)))))


_: type[Ground] = Slots
