"""The mounts of a sandbox and the change of root, done by the process that enters it. Standard library and kpy.linux
only, and of them only what starts fast. Every path in the root is resolved by the kernel inside the root.

What is masked and read-only is what docker and containerd choose (containerd, oci/spec.go: defaultMounts, masked and
readonly paths); as root on a host it is needed: ids are themselves there, and sysctls trust uid 0 of any namespace.
"""

import errno
import os
import stat

from kpy.linux import libc
from kpy.linux.beneath import open_source
from kpy.linux.ledger import physical
from kpy.linux.mount import (
    MNT_DETACH,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    bind,
    by_descriptor,
    make_private,
    make_read_only,
)
from kpy.sandbox.stubs import Stub, open_target, real_path

TYPE_CHECKING = False  # as mypy knows it; importing typing takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_DEVICES = (b"null", b"zero", b"full", b"random", b"urandom", b"tty")
_LINKS = ((b"fd", b"/proc/self/fd"), (b"stdin", b"/proc/self/fd/0"), (b"stdout", b"/proc/self/fd/1"),
          (b"stderr", b"/proc/self/fd/2"), (b"core", b"/proc/kcore"), (b"ptmx", b"pts/ptmx"))  # fmt: skip
_MASKED = (b"acpi", b"asound", b"kcore", b"keys", b"latency_stats", b"timer_list", b"timer_stats", b"sched_debug",
           b"scsi", b"interrupts", b"kallsyms", b"kmsg", b"kpagecount", b"kpageflags", b"kpagecgroup")  # fmt: skip
_READ_ONLY = (b"bus", b"fs", b"irq", b"sys", b"sysrq-trigger")
_MASKED_SYS = (b"firmware", b"devices/virtual/powercap")
_TTY_GROUP = b",gid=5"
_SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC


class Refused(Exception):
    """The kernel does not let us mount something that the spec asks for."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.text = text
        self.number = number


def reason(error: OSError) -> str:
    """What errno says, without what our wrappers put before it."""
    return os.strerror(error.errno or 0).lower()


class Stage:
    """The new root while it is put together, on a tmpfs that is gone with the last process of the sandbox. `tell` is there
    where root is emulated, and nothing can be given to others: it takes a descriptor, and the mode and owner that it shows."""

    def __init__(
        self, root: bytes, made: list[Stub], tell: "Callable[[int, int, int, int], None] | None" = None
    ) -> None:
        source = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # What the tmpfs hides is still reached by the descriptor; so is there a private place without a new path.
        libc.mount(b"tmpfs", root, b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=0700")
        self.path = root
        self.root_path = root.rstrip(b"/") + b"/root"
        os.mkdir(self.root_path)
        bind(by_descriptor(source), self.root_path, recursive=False)
        os.close(source)
        self.root = os.open(self.root_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.made = made
        self.tell = tell
        self.processes = -1  # the device of its /proc
        self._names = 0

    def name(self) -> bytes:
        """A path of our own that is not used yet."""
        self._names += 1
        return self.path.rstrip(b"/") + b"/%d" % self._names

    def file(self, data: bytes, mode: int, uid: int, gid: int) -> bytes:
        """A file of our own."""
        path = self.name()
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if self.tell is None:
                os.fchown(descriptor, uid, gid)
                os.fchmod(descriptor, mode)
            else:
                os.fchmod(descriptor, physical(mode | stat.S_IFREG))
                self.tell(descriptor, mode | stat.S_IFREG, uid, gid)
        finally:
            os.close(descriptor)
        return path

    def target(self, path: bytes, *, directory: bool) -> int:
        """What to mount on, made if it is missing."""
        return open_target(self.root, path, directory=directory, made=self.made)


def populate(stage: Stage, spec: "dict[str, Any]") -> None:
    """Mount /proc, /sys, /dev, the files of /etc and all that the spec asks for."""
    null = os.open(b"/dev/null", os.O_PATH | os.O_CLOEXEC)
    _proc(stage, null, fresh=bool(spec["private_pids"]))
    _sys(stage, null, fresh=bool(spec["private_network"]))
    _dev(stage, spec["shm_size"])
    for target, data in spec["files"]:
        _on(stage, {"target": target, "read_only": True}, stage.file(data, 0o644, 0, 0), directory=False)
    for wanted in spec["mounts"]:
        try:
            _mount(stage, wanted, spec["scratch"])
        except OSError as error:
            target = os.fsdecode(wanted["target"])
            why = _kernels(stage, error.filename)
            raise Refused(f"cannot mount {wanted['kind']} at {target}: {why or reason(error)}", 0 if why else error.errno or 0) from error
    os.close(null)


def _check_spot(stage: Stage, target: bytes) -> None:
    """Raise OSError if a link of the image leads to /proc, where a RUN finds the kernel's files and no others."""
    try:
        spot = libc.open_in_root(stage.root, target, os.O_PATH)
    except OSError:
        return  # why it cannot be made is said then
    path = real_path(spot)
    os.close(spot)
    if _in_root(stage, path, b"/proc"):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), path)


def _kernels(stage: Stage, path: object) -> str:
    """Why nothing can be mounted at this place, if it is the kernel's."""
    if not isinstance(path, bytes):
        return ""
    if _in_root(stage, path, b"/proc"):
        return "nothing can be mounted in /proc"
    return "there is nothing of that name in /sys, and nothing can be made there" if _in_root(stage, path, b"/sys") else ""


def _in_root(stage: Stage, path: bytes, top: bytes) -> bool:
    """Is it at or below `top` of the root?"""
    return (path + b"/").startswith(stage.root_path + top + b"/")


def change_root(stage: Stage) -> None:
    """Make it the root of this process and let go of all else."""
    os.chdir(stage.root_path)
    libc.pivot_root(b".", b".")
    libc.umount(b".", MNT_DETACH)  # the old root, which pivot_root put on top (pivot_root(2), notes)
    os.chdir(b"/")
    os.close(stage.root)


def passing() -> set[int]:
    """The devices of the file systems in memory that this sandbox has, and that are gone with it; not that of the root."""
    found = set()
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            fields = line.split()
            if fields[fields.index(b"-") + 1] == b"tmpfs":
                found.add(os.makedev(*map(int, fields[2].split(b":"))))
    return found - {os.stat("/").st_dev}


def isolate() -> None:
    """Let no mount of ours be seen outside."""
    make_private()


def _mount(stage: Stage, wanted: "dict[str, Any]", scratch: bytes) -> None:
    kind = wanted["kind"]
    _check_spot(stage, wanted["target"])
    if kind == "file":
        path = stage.file(wanted["data"], wanted["mode"], wanted["uid"], wanted["gid"])
        _on(stage, wanted, path, directory=False)
    elif kind == "tmpfs":
        _tmpfs(stage, wanted["target"], wanted["size"], read_only=bool(wanted["read_only"]))
    else:
        # We are the builder still: an image or a context may have made links in the source, and none of them is followed.
        source = open_source(wanted["base"], wanted["source"], os.O_PATH | os.O_NOFOLLOW)
        try:
            _bind(stage, wanted, source, scratch)
        finally:
            os.close(source)


def _bind(stage: Stage, wanted: "dict[str, Any]", source: int, scratch: bytes) -> None:
    found = os.fstat(source)
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFLNK:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if wanted["discard"] and kind == stat.S_IFDIR:
        _discarding(stage, wanted, source, scratch)
    elif wanted["discard"] and kind in (stat.S_IFREG, stat.S_IFIFO):
        _on(stage, wanted, _copy(stage, source), directory=False)
    else:
        _on(stage, wanted, by_descriptor(source), directory=kind == stat.S_IFDIR)
        if stage.tell is not None and (wanted["uid"] or wanted["gid"]):
            stage.tell(source, found.st_mode, wanted["uid"], wanted["gid"])


def _on(stage: Stage, wanted: "dict[str, Any]", source: bytes, *, directory: bool) -> None:
    descriptor = _spot(stage, wanted["target"], directory=directory)
    try:
        if not wanted["read_only"]:
            bind(source, by_descriptor(descriptor))
            return
        with _private(stage, directory=directory) as place:
            bind(source, place)
            make_read_only(place)
            bind(place, by_descriptor(descriptor))
    finally:
        os.close(descriptor)


class _private:  # noqa: N801 - read as a statement; contextlib takes longer to import than this to run
    """A place of our own, where a mount is made ready before it is bound where it belongs. Nothing may be looked up twice in the
    root, or in what is mounted in it: a RUN of another stage can have the same cache, and another directory be there the second
    time."""

    def __init__(self, stage: Stage, *, directory: bool = True) -> None:
        self._place = stage.name()
        if directory:
            os.mkdir(self._place, 0o700)
        else:
            os.close(os.open(self._place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))

    def __enter__(self) -> bytes:
        return self._place

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:  # else all is gone soon
            libc.umount(self._place, MNT_DETACH)


def _spot(stage: Stage, target: bytes, *, directory: bool) -> int:
    """What to mount on, made if it is missing. Raises OSError for what is the kernel's in /proc, by whatever link."""
    descriptor = stage.target(target, directory=directory)
    if os.fstat(descriptor).st_dev == stage.processes:
        path = real_path(descriptor)
        os.close(descriptor)
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), path)
    return descriptor


def _tmpfs(stage: Stage, target: bytes, size: int, *, read_only: bool) -> None:
    before = len(stage.made)
    descriptor = _spot(stage, target, directory=True)
    # As runc: one on a directory of the image has its mode, else the usual 1777.
    mode = os.fstat(descriptor).st_mode & 0o7777 if len(stage.made) == before else 0o1777
    data = b"mode=%04o" % mode + (b",size=%d" % size if size else b"")
    libc.mount(b"tmpfs", by_descriptor(descriptor), b"tmpfs", MS_NOSUID | (MS_RDONLY if read_only else 0), data)
    os.close(descriptor)


def _discarding(stage: Stage, wanted: "dict[str, Any]", source: int, scratch: bytes) -> None:
    """A writable view of a directory; what is written goes to a place that is dropped (R14)."""
    place = stage.name()
    if scratch:
        place = os.path.join(scratch, os.path.basename(place))
    for directory in (place, place + b"/upper", place + b"/work"):
        os.mkdir(directory, 0o700)
    found = os.fstat(source)
    if stage.tell is None:
        os.chown(place + b"/upper", found.st_uid, found.st_gid)
    os.chmod(place + b"/upper", found.st_mode & 0o7777)
    os.utime(place + b"/upper", ns=(found.st_atime_ns, found.st_mtime_ns))
    target = wanted["target"]
    mounted = _spot(stage, target, directory=True)
    # By descriptors: a path could have commas and colons, which the option would need escaped.
    parts = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (place + b"/upper", place + b"/work")]
    options = b"userxattr,lowerdir=%s,upperdir=%s,workdir=%s" % tuple(by_descriptor(part) for part in (source, *parts))
    libc.mount(b"overlay", by_descriptor(mounted), b"overlay", 0, options)
    for descriptor in (mounted, *parts):
        os.close(descriptor)


def _copy(stage: Stage, source: int) -> bytes:
    """A file or a FIFO of our own that is like it. The descriptor is but a path: what it is is known, so to open it waits
    for nobody."""
    path = stage.name()
    found = os.fstat(source)
    if stat.S_ISFIFO(found.st_mode):
        os.mkfifo(path, 0o600)
        if stage.tell is None:
            os.chown(path, found.st_uid, found.st_gid)
        os.chmod(path, found.st_mode & 0o7777)
        return path
    reading = os.open(by_descriptor(source), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    writing = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        while os.sendfile(writing, reading, None, 1 << 24):
            pass
        if stage.tell is None:
            os.fchown(writing, found.st_uid, found.st_gid)
        os.fchmod(writing, found.st_mode & 0o7777)
        os.utime(writing, ns=(found.st_atime_ns, found.st_mtime_ns))
    finally:
        os.close(reading)
        os.close(writing)
    return path


def _proc(stage: Stage, null: int, *, fresh: bool) -> None:
    target = stage.target(b"/proc", directory=True)
    with _private(stage) as here:
        if fresh:
            try:
                libc.mount(b"proc", here, b"proc", _SAFE)
            except OSError as error:
                raise Refused(f"cannot mount /proc: {reason(error)}", error.errno or 0) from error
        else:
            bind(b"/proc", here)
        stage.processes = os.stat(here).st_dev
        for name in _READ_ONLY:
            path = here + b"/" + name
            if os.path.lexists(path):
                bind(path, path)
                make_read_only(path)
        _mask(here, _MASKED, null)
        bind(here, by_descriptor(target))
    os.close(target)


def _sys(stage: Stage, null: int, *, fresh: bool) -> None:
    target = stage.target(b"/sys", directory=True)
    with _private(stage) as here:
        try:
            if not fresh:
                raise PermissionError
            libc.mount(b"sysfs", here, b"sysfs", _SAFE | MS_RDONLY)  # shows our network, not the host's
        except PermissionError:  # only who owns the network namespace may
            bind(b"/sys", here)
        _mask(here, _MASKED_SYS, null)
        make_read_only(here)
        bind(here, by_descriptor(target))
    os.close(target)


def _mask(base: bytes, names: tuple[bytes, ...], null: int) -> None:
    for name in names:
        path = base + b"/" + name
        if os.path.isdir(path):
            libc.mount(b"tmpfs", path, b"tmpfs", MS_RDONLY | _SAFE, b"mode=0555")
        elif os.path.lexists(path):
            bind(by_descriptor(null), path)


def _dev(stage: Stage, shm_size: int) -> None:
    target = stage.target(b"/dev", directory=True)
    with _private(stage) as here:
        libc.mount(b"tmpfs", here, b"tmpfs", MS_NOSUID | MS_NOEXEC, b"mode=0755,size=65536k")
        _fill_dev(here, shm_size)
        bind(here, by_descriptor(target))
    os.close(target)


def _fill_dev(here: bytes, shm_size: int) -> None:
    mounted = os.open(here, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in _DEVICES:
        if os.path.exists(b"/dev/" + name):
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=mounted))
            bind(b"/dev/" + name, here + b"/" + name)
    for name, to in _LINKS:
        os.symlink(to, name, dir_fd=mounted)
    for name in (b"pts", b"shm", b"mqueue"):
        os.mkdir(name, 0o755, dir_fd=mounted)
    options = b"newinstance,ptmxmode=0666,mode=0620"
    try:
        libc.mount(b"devpts", here + b"/pts", b"devpts", MS_NOSUID | MS_NOEXEC, options + _TTY_GROUP)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        libc.mount(b"devpts", here + b"/pts", b"devpts", MS_NOSUID | MS_NOEXEC, options)  # gid 5 is not mapped
    libc.mount(b"shm", here + b"/shm", b"tmpfs", _SAFE, b"mode=1777,size=%d" % shm_size)
    try:
        libc.mount(b"mqueue", here + b"/mqueue", b"mqueue", _SAFE)
    except OSError:
        os.rmdir(b"mqueue", dir_fd=mounted)  # a kernel without
    os.close(mounted)
