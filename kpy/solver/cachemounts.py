"""Cache mounts (R15): directories of the store that outlive builds; made once, shared or locked as the Dockerfile says.

A directory is known by its namespace (BUILDKIT_CACHE_MOUNT_NS) and id, the owner and mode that it starts with, and the
content that it starts from, as in BuildKit. It is `NAME.d/data`: where nothing can be mounted it is moved to the RUN and back, which takes rights in the
directory that it is in, and nothing else may be there (kpy.sandbox.deputy). Beside that are `NAME.lock`, held by whoever has
it mounted, and for more private users at once `NAME.1`, `NAME.2` and on; and where files cannot be given to others,
`NAME.owners`: what a ledger says of those in it.

A copy of the store may lack the owners of files. So `NAME.mark` says which directory `NAME.d` is: its inode, and when it was born. One
that is another is a copy, and is made again.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kpy.errors import ContextError, SandboxError, StoreError
from kpy.events import Warned
from kpy.layer.entry import Kind
from kpy.linux.birth import identify
from kpy.linux.ledger import Ledger, Record, physical
from kpy.linux.libc import AT_FDCWD
from kpy.linux.namespaces import gives_owners
from kpy.plan.model import MountOp
from kpy.solver.inputs import files_of, mount_key
from kpy.solver.lookup import resolve
from kpy.solver.materialise import materialise
from kpy.solver.values import FilesValue, Services, Value
from kpy.util import fs
from kpy.util.checkpoint import checkpoint
from kpy.util.erase import remove
from kpy.util.locks import FileLock

_MOST_PRIVATE = 1000
_MOST_OWNERS = 1 << 28  # bytes of a list of owners


@dataclass(frozen=True, slots=True)
class Cache:
    """A directory, and what its files are where the disk cannot say it."""

    path: str
    ledger: Ledger | None


def open_caches(
    mounts: Sequence[MountOp], inputs: Sequence[Value], services: Services, stack: ExitStack
) -> Mapping[MountOp, Cache]:
    """The directory of each cache mount of one RUN, held until `stack` ends.

    Waits for locked ones; two RUNs never wait for each other, whatever they lock. Raises SandboxError, StoreError,
    InterruptedBuildError.
    """
    base = services.store.directory / "cachemounts"
    caches = [(item, _name(item, inputs, services)) for item in mounts if item.kind == "cache"]
    if not caches:
        return {}
    with fs.io_errors("make", base):
        os.makedirs(base, mode=0o700, exist_ok=True)
    found: dict[MountOp, Cache] = {}
    # One order for everybody, and each directory once: who waits holds only what comes before.
    for name in sorted({name for _, name in caches}):
        same = [item for item, found_name in caches if found_name == name]
        for item in same:
            if item.sharing == "private":
                path = _private(base, name, services, stack)
                _ensure(path, item, inputs, services)
                found[item] = _opened(path, item, services, stack)
        together = [item for item in same if item.sharing != "private"]
        if together:
            shared = all(item.sharing == "shared" for item in together)
            _tidy(base / name)
            stack.enter_context(FileLock(base / f"{name}.lock", shared=shared, cancel=services.cancel))
            _ensure(base / name, together[0], inputs, services)
            found |= dict.fromkeys(together, _opened(base / name, together[0], services, stack))
    return found


def _tidy(path: Path) -> None:
    """Remove what builds that were killed left beside the directory, unless somebody has the cache now: that may be
    somebody's who brings it back."""
    content = _content(path)
    if not _leftovers(content):
        return
    try:
        with FileLock(path.with_name(f"{path.name}.lock"), timeout=0):
            for name in _leftovers(content):
                remove(os.fspath(content.with_name(name)))
    except (StoreError, OSError):
        return  # in use; or it only takes room, and whoever needs the place says what is wrong with it


def _leftovers(content: Path) -> list[str]:
    try:
        return [name for name in os.listdir(content.parent) if name != content.name]
    except OSError:
        return []


def _name(item: MountOp, inputs: Sequence[Value], services: Services) -> str:
    identity = f"{item.id}\0{item.uid}:{item.gid}:{item.mode:o}"
    if item.input >= 0:
        identity += f"\0{mount_key(item.source, inputs[item.input], services)}"
    name = _hash(identity)
    # No id that a Dockerfile could choose means a cache in a namespace.
    return f"{name}-{_hash(item.namespace)[:32]}" if item.namespace else name


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _private(base: Path, name: str, services: Services, stack: ExitStack) -> Path:
    """The first copy of the cache that nobody uses."""
    for number in range(_MOST_PRIVATE):
        path = base / (f"{name}.{number}" if number else name)
        try:
            _tidy(path)
            stack.enter_context(FileLock(base / f"{path.name}.lock", timeout=0, cancel=services.cancel))
        except StoreError:
            continue  # in use: the next one
        return path
    raise SandboxError(f"{_MOST_PRIVATE} RUNs use this private cache at once")


def _opened(path: Path, item: MountOp, services: Services, stack: ExitStack) -> Cache:
    """With what is known of its files; what is known when `stack` ends is kept."""
    content = _content(path)
    if gives_owners():
        return Cache(str(content), None)
    with fs.io_errors("read", content):
        ledger = _load(path)
        key, born = identify(AT_FDCWD, os.fsencode(content))
        ledger.records.setdefault(key, Record(stat.S_IFDIR | item.mode, item.uid, item.gid, born=born))
    before = set(_rows(ledger))
    stack.callback(_keep, path, ledger, before, services)
    return Cache(str(content), ledger)


def _content(path: Path) -> Path:
    """The directory itself."""
    return path.with_name(f"{path.name}.d") / "data"


def _is_there(content: Path) -> bool:
    """Raises StoreError if something else is: what is mounted is a directory of the store, and never what a link means."""
    try:
        found = content.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        raise StoreError(f"the cache mount in {content} is no directory", hint=f"remove {content.parent}")
    return True


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.mark")


def _identity(directory: Path) -> bytes:
    (_, inode), born = identify(AT_FDCWD, os.fsencode(directory))
    return json.dumps([inode, born]).encode()


def _is_original(path: Path) -> bool:
    """Not of the content: that is moved to a RUN and back, and may be another directory then."""
    try:
        return fs.read_regular(os.open(_mark(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), 1 << 10) == _identity(
            _content(path).parent
        )
    except FileNotFoundError:
        return False


def _keep(path: Path, ledger: Ledger, before: set[bytes], services: Services) -> None:
    """Other builds may have the same cache now: what they say of it since we began stays, but where we say something too."""
    now = _rows(ledger)
    if now.keys() == before:
        return
    with fs.io_errors("write", path), FileLock(path.with_name(f"{path.name}.make"), cancel=services.cancel):
        kept = _load(path)
        for row, key in _rows(kept).items():
            if row in before and row not in now:
                del kept.records[key]
        kept.records.update(ledger.records)
        _save(path, kept)


def _rows(ledger: Ledger) -> dict[bytes, tuple[int, int]]:
    """Each record as text, and its key."""
    found = {}
    for key, record in ledger.records.items():
        one = Ledger()
        one.records[key] = record
        found[one.dump()] = key
    return found


def _save(path: Path, ledger: Ledger) -> None:
    rows = [
        (inode, record.mode, record.uid, record.gid, record.rdev, record.born, {name: value.hex() for name, value in record.xattrs.items()})
        for (_, inode), record in sorted(ledger.records.items())
    ]
    fs.write_atomic(path.with_name(f"{path.name}.owners"), json.dumps(rows).encode())


def _load(path: Path) -> Ledger:
    """What was kept. Devices have other numbers after a restart; inodes do not. As JSON: where the kernel cannot keep a RUN
    from the state directory, it may have written this."""
    kept, device = Ledger(), _content(path).lstat().st_dev
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        data = fs.read_regular(os.open(path.with_name(f"{path.name}.owners"), flags), _MOST_OWNERS)
        for inode, mode, uid, gid, rdev, born, xattrs in json.loads(data or b"[]"):
            values = {str(name): bytes.fromhex(value) for name, value in xattrs.items()}
            kept.records[device, int(inode)] = Record(int(mode), int(uid), int(gid), int(rdev), int(born), values)
    except (FileNotFoundError, ValueError, TypeError, AttributeError, RecursionError):
        return Ledger()
    return kept


def _ensure(path: Path, item: MountOp, inputs: Sequence[Value], services: Services) -> None:
    """Make the directory if it is not there; whole or not at all. Raises StoreError, SandboxError."""
    content = _content(path)
    with fs.io_errors("make", content):
        if _is_there(content) and _is_original(path):
            return
    with FileLock(path.with_name(f"{path.name}.make"), cancel=services.cancel), fs.io_errors("make", content):
        if _is_there(content):
            if _is_original(path):
                return
            services.report(Warned(f"the cache mounts in {path.parent} were changed by a copy of the store: they are made again"))
            remove(str(content.parent))
        new = content.with_name("data.new")
        new.parent.mkdir(mode=0o700, exist_ok=True)
        fs.write_atomic(_mark(path), _identity(new.parent))
        if path.is_dir() and not path.is_symlink():
            os.rename(path, content)  # where kpy kept it until 0.1
            return
        remove(str(new), look=checkpoint)  # of a build that was killed
        path.with_name(f"{path.name}.owners").unlink(missing_ok=True)
        if item.input >= 0:
            ledger = None if gives_owners() else Ledger()
            _seed(new, item, inputs[item.input], services, ledger)
            os.rename(new, content)
            if ledger is not None:
                _save(path, ledger)
        else:
            os.mkdir(new)
            _dress(new, item)
            os.rename(new, content)


def _dress(new: Path, item: MountOp) -> None:
    try:
        if gives_owners():  # else root is emulated, and the ledger says whose it is
            os.chown(new, item.uid, item.gid)
    except OSError as error:
        raise SandboxError(
            f"cannot give the cache {item.id} to {item.uid}:{item.gid}: {fs.reason(error)}", errno=error.errno or 0,
            hint="such ids are not mapped for the user who builds: use smaller ones, or give the user more subordinate ids",
        ) from error  # fmt: skip
    os.chmod(new, item.mode if gives_owners() else physical(stat.S_IFDIR | item.mode))


def _seed(new: Path, item: MountOp, value: Value, services: Services, ledger: Ledger | None) -> None:
    source, _ = files_of(value, services)
    path = resolve(source, item.source)
    entry = source.lookup(path)
    if path and (entry is None or entry.kind is not Kind.DIR):
        what = "not found" if entry is None else "no directory"
        raise ContextError(f'"{item.source}": {what} in the source of the cache at {item.target}')
    with ExitStack() as stack:
        os.rename(materialise(FilesValue(source), path, services, stack, ledger), new)
