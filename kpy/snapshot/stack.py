"""Chains on disk: one directory for a chain, holding either all of it or what its last layer adds to the chain before
it, as overlayfs has it. Knows nothing of tars and mounts.

    <directory>/<ids>/chains/<chain id>/{fs/,meta.json}    complete: made elsewhere and renamed
    <directory>/<ids>/tmp/<name>.tmp.d/                    being made, or in use; belongs to who holds the lock <name>.tmp
    <directory>/<ids>/locks/, use.lock                     flock

`<ids>` is a digest of the user namespace's id map: with another map, all owners would be others. What a killed
process leaves is in tmp/ only; the next one removes it.

A copy of the store (tar, cp, rsync, the cache of a CI) may lack owners, modes or attributes of any file. So meta.json says what
`fs` was when it was put there: its inode, owner and mode, and its time of change, which no program can set. A copy has others, and so
has what somebody changed in place (chown -R). Such a chain counts for nothing, and is made again.
"""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from kpy.errors import StoreError
from kpy.events import Reporter, Warned, silent
from kpy.oci.image import Chain, chain_id
from kpy.util import erase
from kpy.util.cancel import Cancel
from kpy.util.checkpoint import checked, checkpoint
from kpy.util.fs import io_errors, remove_stale, temporary_file, write_atomic
from kpy.util.locks import FileLock

_log = logging.getLogger(__name__)

_META = "meta.json"
_META_LIMIT = 1 << 16


@dataclass(frozen=True, slots=True)
class Held:
    """A chain on disk, for `df` and `prune`: its id, when it was last used (seconds), whether others stand on it."""

    chain_id: str
    used: float
    parent: str
    bytes: int


class Stack:
    """The directory. Thread-safe; several processes may use it at once."""

    def __init__(self, directory: str, cancel: Cancel | None = None, report: Reporter = silent) -> None:
        self._base = os.path.join(directory, _id_map_digest())
        self._chains = os.path.join(self._base, "chains")
        self._tmp = os.path.join(self._base, "tmp")
        self._locks = os.path.join(self._base, "locks")
        self._cancel = cancel
        self._report = report
        self._ready = False
        self._guard = threading.Lock()

    def open(self) -> None:
        """Make the directories, and remove what killed processes left. Does it once."""
        with self._guard:
            if self._ready:
                return
            with io_errors("use", self._base):
                for directory in (self._chains, self._tmp, self._locks):
                    os.makedirs(directory, mode=0o700, exist_ok=True)
                self._sweep()
            self._ready = True

    def _sweep(self) -> None:
        remove_stale(self._tmp)
        for name in os.listdir(self._tmp):
            lock = os.path.join(self._tmp, name.removesuffix(".d"))
            if name.endswith(".d") and not os.path.lexists(lock):
                try:
                    erase.remove(os.path.join(self._tmp, name), look=checkpoint)
                except OSError as error:
                    _log.debug("cannot remove %s: %s", name, error)  # the next one tries again

    @contextmanager
    def using(self) -> Iterator[None]:
        """Nothing is pruned meanwhile."""
        self.open()
        with FileLock(os.path.join(self._base, "use.lock"), shared=True, cancel=self._cancel):
            yield

    @contextmanager
    def workplace(self) -> Iterator[str]:
        """A directory of one's own, gone at the end of the block."""
        with temporary_file(self._tmp) as (_, lock):
            place = lock + ".d"
            with io_errors("make", place):
                os.mkdir(place, 0o700)
            try:
                yield place
            finally:
                with io_errors("remove", place), suppress(erase.LeftError):
                    erase.remove(place, look=erase.in_time())

    def making(self, chain: Chain) -> FileLock:
        """Hold this while the chain is made, so that nobody makes it twice."""
        return FileLock(os.path.join(self._locks, _hex(chain)), cancel=self._cancel, transient=True)

    def lowers(self, chain: Chain) -> list[str] | None:
        """The directories that make up the chain, the topmost first; None if one is missing."""
        found = []
        for name in reversed(_prefixes(chain)):
            meta = self._meta(name)
            if meta is None:
                return None
            found.append(os.path.join(self._chains, name, "fs"))
            if meta.get("parent") is None:
                return found
        return found

    def longest(self, chain: Chain) -> int:
        """How many of the first layers are on disk, together."""
        best, whole = 0, True
        for count, name in enumerate(_prefixes(chain), 1):
            meta = self._meta(name)
            whole = meta is not None and (whole or meta.get("parent") is None)
            best = count if whole else best
        return best

    def add(self, chain: Chain, place: str, *, on_parent: bool) -> None:
        """Rename `place`/fs: it is the chain now, on top of the chain before it or all of it. If somebody else has
        added it meanwhile, theirs is as good."""
        target = os.path.join(self._chains, _hex(chain))
        parent = _hex(chain[:-1]) if on_parent and len(chain) > 1 else None
        entry = os.path.join(place, "chain")
        with io_errors("write", target):
            os.mkdir(entry, 0o700)
            os.rename(os.path.join(place, "fs"), os.path.join(entry, "fs"))
            meta = {"parent": parent, "mark": _mark(os.path.join(entry, "fs"))}
            write_atomic(os.path.join(entry, _META), json.dumps(meta).encode())
            try:
                os.rename(entry, target)
            except OSError:
                if self._meta(_hex(chain)) is not None:
                    return
                os.rename(target, os.path.join(place, "broken"))  # a copy, or what is left of one
                os.rename(entry, target)

    def touch(self, chain: Chain) -> None:
        """It is used now: the last to be pruned."""
        try:
            os.utime(os.path.join(self._chains, _hex(chain), _META))
        except OSError:
            pass  # a read-only store, or pruned: nothing that matters here

    def held(self) -> list[Held]:
        """What is on disk, the longest unused first."""
        self.open()
        found = []
        for name in sorted(os.listdir(self._chains)):
            meta = self._meta(name)
            if meta is not None:
                path = os.path.join(self._chains, name)
                parent = meta.get("parent")
                found.append(Held(name, os.stat(os.path.join(path, _META)).st_mtime, parent or "", _size(path)))
        return sorted(found, key=lambda held: (held.used, held.chain_id))

    def remove(self, chain_ids: Sequence[str]) -> None:
        """Remove these and all that stands on them. Raises StoreError if a build is running."""
        self.open()
        with FileLock(os.path.join(self._base, "use.lock"), timeout=0, cancel=self._cancel):
            doomed = set(chain_ids)
            held = self.held()
            while True:
                more = {one.chain_id for one in held if one.parent in doomed} - doomed
                if not more:
                    break
                doomed |= more
            for one in held:
                if one.chain_id in doomed:
                    self._remove(one.chain_id)

    def _remove(self, name: str) -> None:
        with self.workplace() as place, io_errors("remove", os.path.join(self._chains, name)):
            os.rename(os.path.join(self._chains, name), os.path.join(place, name))

    def _meta(self, name: str) -> dict[str, Any] | None:
        """What is known of a chain; None if it is not there, or is not what was put there."""
        try:
            with open(os.path.join(self._chains, name, _META), "rb") as file:
                value = json.loads(file.read(_META_LIMIT))
            if not isinstance(value, dict):
                return None
            if value.get("mark") == _mark(os.path.join(self._chains, name, "fs")):
                return value
        except (OSError, ValueError):
            return None
        self._report(Warned(f"the unpacked images in {self._chains} were changed by a copy of the store: they are made again"))
        return None


def _mark(path: str) -> list[int]:
    """What is so of this directory, and of no copy of it. Its time of change is that of the rename to where it is."""
    found = os.lstat(path)
    return [found.st_ino, found.st_ctime_ns, found.st_uid, found.st_gid, found.st_mode]


def _hex(chain: Chain) -> str:
    found = chain_id(chain)
    if found is None:
        raise StoreError("the empty chain has no directory")
    return found.hex


def _prefixes(chain: Chain) -> list[str]:
    """The chain ids of the first layer, the first two, and so on, each in one step from the one before."""
    found: list[str] = []
    for layer in chain:
        if not found:
            found.append(layer.diff_id.hex)
            continue
        found.append(hashlib.sha256(f"sha256:{found[-1]} {layer.diff_id}".encode()).hexdigest())
    return found


def _size(path: str) -> int:
    """Bytes on disk, roughly: hard links count again."""
    total, waiting = 0, [path]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in checked(entries):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            continue  # removed while we look
    return total


def _id_map_digest() -> str:
    text = ""
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}", encoding="ascii") as file:
            text += " ".join(file.read().split()) + "\n"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
