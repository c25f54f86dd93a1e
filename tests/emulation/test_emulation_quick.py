"""What is answered quickly is answered as the handlers would: every call on every kind of file, with both."""

import ctypes
import errno
import itertools
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpy.emulation import loop
from kpy.emulation.credentials import of_user
from kpy.emulation.loop import Emulation
from kpy.linux.ledger import Ledger, Record
from kpy.linux.syscalls import native

CWD = 0xFFFFFF9C
PROCEEDS = "the kernel makes the call"


class Kernel:
    """In place of the listener: asks what it is told to, and keeps the answer."""

    def __init__(self, _: int) -> None:
        self.asked = b""
        self.answered: object = None
        self.undelivered = None

    def receive(self) -> bytes:
        return self.asked

    def answer(self, _: int, value: int, error: int) -> None:
        self.answered = (value, errno.errorcode[error] if error else "")

    def proceed(self, _: int) -> None:
        self.answered = PROCEEDS

    def give(self, _: int, descriptor: int, *, close_on_exec: bool) -> None:
        self.answered = (os.fstat(descriptor), close_on_exec)

    def is_waiting(self, _: int) -> bool:
        return True


class Bed:
    """Files, and calls about them by this process."""

    def __init__(self, top: Path, *, slots: bool) -> None:
        arch = native()
        assert arch is not None
        self.arch = arch
        ledger = Ledger()
        _make(top)
        for name, record in (("another's", Record(stat.S_IFREG | 0o644, 5, 6)), ("setgid", Record(stat.S_IFDIR | 0o2775, 0, 7))):
            found = (top / name).stat()
            ledger.records[found.st_dev, found.st_ino] = record
        if slots:
            for name, beyond in (("empty", b""), ("to_file", os.fsencode(top / "file"))):
                found = (top / name).lstat()
                ledger.slots[found.st_dev, found.st_ino] = beyond
            found = (top / "empty").lstat()
            ledger.records[found.st_dev, found.st_ino] = Record(0)
        self.emulation = Emulation(0, ledger, of_user(0, 0), arch)
        self.kernel = self.emulation._listener
        self.quick = self.emulation._quicker.by_number
        above = top.stat()  # in place of `/`
        self.emulation._quicker.top = above.st_dev, above.st_ino
        self.records = ledger.records
        self.out = ctypes.create_string_buffer(512)

    def ask(self, name: str, *args: int) -> tuple[object, bytes]:
        """The answer, and what is written."""
        arguments = [*(arg & (1 << 64) - 1 for arg in args), *[0] * (6 - len(args))]
        number = self.arch.numbers[name]
        self.kernel.asked = struct.pack("<QIIiIQ6Q", 1, os.getpid(), 0, number, self.arch.audit, 0, *arguments)
        self.out[:] = b"\xee" * len(self.out)
        self.emulation.step()
        assert self.emulation.problems == []
        return self.kernel.answered, self.out.raw

    def is_quick(self, name: str, *args: int) -> bool:
        """Is this call answered without a handler?"""
        self.emulation._world.memory.path(os.getpid(), ctypes.addressof(self.out))  # opens our memory
        handlers, self.emulation._handlers = self.emulation._handlers, {self.arch.audit: {}}
        try:
            self.ask(name, *args)
        finally:
            self.emulation._handlers = handlers
        return self.emulation._quicker.answer(self.arch.numbers[name], os.getpid(), (*args, 0, 0, 0, 0)) != loop.LATER


def _make(top: Path) -> None:
    for name, mode in (("file", 0o644), ("readonly", 0o444), ("secret", 0o600), ("program", 0o755), ("suid", 0o4755), ("another's", 0o644)):
        (top / name).write_text(name)
        (top / name).chmod(mode)
    for name, mode in (("dir", 0o755), ("closed", 0o700), ("setgid", 0o2775), ("sticky", 0o1777), ("empty", 0o755)):
        (top / name).mkdir()
        (top / name).chmod(mode)
    (top / "dir" / "below").write_text("")
    os.mkfifo(top / "fifo")
    for name, target in (("to_file", "file"), ("to_dir", "dir"), ("dangling", "nowhere"), ("to_another", "another's")):
        (top / name).symlink_to(target)


NAMES = (
    "file", "readonly", "secret", "program", "suid", "another's", "dir", "dir/", "dir/.", "dir/..", "closed", "setgid", "sticky",
    "empty", "dir/below", "fifo", "to_file", "to_dir", "to_dir/below", "dangling", "to_another", "missing", "missing/", "dir/new",
    "setgid/new", "sticky/new", "missing/new", "file/new", "closed/new", "empty/new", ".", "..", "",
)  # fmt: skip
MODES = (0, 0o400, 0o644, 0o755, 0o200, 0o4755, 0o2755, 0o1777)


def _calls(bed: Bed, top: Path, keep: list[object]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every watched call, on every name: absolute, from the working directory, from a descriptor."""
    directory, out = os.open(top, os.O_RDONLY | os.O_DIRECTORY), ctypes.addressof(bed.out)

    def string(text: bytes) -> int:
        keep.append(ctypes.create_string_buffer(text))
        return ctypes.addressof(keep[-1])  # type: ignore[arg-type]

    other = string(b"dir/other")
    acls = [struct.pack("<I" + 3 * "HHI", 2, *entries) for entries in (
        (1, 6, 0, 4, 4, 0, 0x20, 4, 0), (1, 0, 0, 4, 4, 0, 0x20, 4, 0), (1, 7, 0, 4, 7, 0, 0x20, 9, 0), (1, 7, 0, 2, 7, 5, 0x20, 7, 0),
    )]  # fmt: skip
    attributes = [(string(b"system.posix_acl_access"), string(acl)) for acl in acls]
    attributes += [(string(b"system.posix_acl_default"), string(acls[0])), (string(b"user.x"), string(acls[0]))]
    paths = [(CWD, string(os.fsencode(top / name) if name else b"")) for name in NAMES]
    paths += [(CWD, string(name.encode())) for name in NAMES]
    paths += [(directory, string(name.encode())) for name in NAMES]
    paths += [(CWD, string(text)) for text in (b"/proc/self/cwd", b"/dev/null", b"/dev/stdin", b"/", b"./" * 200 + b"file")]
    paths += [(77777, string(b"file")), (CWD, 0), (CWD, 8), (CWD, (1 << 64) - 1)]
    for (base, path), mode in itertools.product(paths[len(NAMES) :: 2], MODES):
        yield "mkdirat", (base, path, mode)
        yield "fchmodat", (base, path, mode)
        yield "faccessat", (base, path, mode & 7)
        yield "faccessat", (base, path, mode >> 6 & 7)
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.O_RDONLY | os.O_NOFOLLOW,
                      os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, os.O_PATH, os.O_RDWR | os.O_TMPFILE):  # fmt: skip
            yield "openat", (base, path, flags, mode)
    for base, path in paths:
        for flags in (0, 0x100, 0x1000, 0x1100):
            yield "newfstatat", (base, path, out, flags)
        yield "newfstatat", (base, path, 8, 0)
        for owner, group, flags in ((0, 0, 0), (0, 0, 0x100), (-1, 0, 0x100), (0, -1, 0), (3, 0, 0), (0, 4, 0x100), (0, 0, 0x1000)):
            yield "fchownat", (base, path, owner, group, flags)
        yield "unlinkat", (base, path, 0)
        yield "unlinkat", (base, path, 0x200)
        yield "readlinkat", (base, path, out, 100)
        yield "symlinkat", (other, base, path)
        yield "utimensat", (base, path, 0, 0)
        yield "renameat2", (base, path, CWD, other, 0)
        yield "renameat2", (CWD, other, base, path, 0)
        yield "linkat", (base, path, CWD, other, 0)
        yield "chdir", (path,)
        yield "listxattr", (path, 0, 0)
        for flags in (0, 0x100, 0x1000):
            yield "statx", (base, path, flags, 0x7FF, out)
        for mode, flags in ((os.R_OK, 0), (os.X_OK, 0x200), (os.F_OK, 0x200), (os.R_OK, 0x100)):
            yield "faccessat2", (base, path, mode, flags)
        for attribute, value in attributes:
            yield "setxattr", (path, attribute, value, len(acls[0]), 0)
        yield "removexattr", (path, string(b"system.posix_acl_default"))
        yield "removexattr", (path, string(b"security.capability"))
        yield "execve", (path, 0, 0)
    descriptors = [os.open(top / name, os.O_RDONLY) for name in ("file", "suid", "another's", "dir", "setgid", "readonly")]
    empty = string(b"")
    for descriptor in (*descriptors, 77777, CWD):
        yield "statx", (descriptor, empty, 0x1000, 0x7FF, out)
        yield "fchdir", (descriptor,)
        yield "getdents64", (descriptor, out, 100)
        for attribute, value in attributes:
            yield "fsetxattr", (descriptor, attribute, value, len(acls[0]), 0)
        yield "newfstatat", (descriptor, empty, out, 0x1000)
        yield "newfstatat", (descriptor, 0, out, 0x1000)
        yield "fchown", (descriptor, 0, 0)
        yield "fchown", (descriptor, 9, 0)
        yield "flistxattr", (descriptor, 0, 0)
        yield "fremovexattr", (descriptor, string(b"system.posix_acl_default"))
        for mode in MODES:
            yield "fchmod", (descriptor, mode)
    if "stat" in bed.arch.numbers:
        for base, path in paths:
            if base == CWD:
                for name in ("stat", "lstat", "access", "unlink", "rmdir", "readlink", "open"):
                    yield name, (path, out if "stat" in name else 0, 100 if name == "readlink" else 0o644)
                yield "chmod", (path, 0o644)
                yield "chown", (path, 0, 0)
                yield "lchown", (path, 0, 0)
                yield "mkdir", (path, 0o755)
                yield "symlink", (other, path)
                yield "rename", (path, other)
                yield "link", (path, other)



@pytest.mark.parametrize("slots", [False, True])
def test_the_quick_answer_is_the_handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slots: bool) -> None:
    monkeypatch.setattr(loop, "Listener", Kernel)
    monkeypatch.chdir(tmp_path)
    bed = Bed(tmp_path, slots=slots)
    keep: list[object] = []
    asked, quick = set(), set()
    for name, args in _calls(bed, tmp_path, keep):
        asked.add(name)
        if not bed.is_quick(name, *args):
            continue
        quick.add(name)
        before = dict(bed.records)
        tree = sorted(os.listdir(tmp_path))
        first = bed.ask(name, *args)
        held = dict(bed.quick)
        bed.quick.clear()
        second = bed.ask(name, *args)
        bed.quick.update(held)
        told = [item.value for item in keep if ctypes.addressof(item) in args]  # type: ignore[attr-defined, arg-type]
        if first[0] == PROCEEDS and second[0] in ((0, "ENOENT"), (0, "EFAULT"), (0, "EBADF")):
            # The handler has read what it did not need to, and says what the kernel would.
            assert b"" in told or {0, 8, (1 << 64) - 1, 77777} & set(args), (name, told)
            continue
        assert first == second, (name, args, told)
        assert (bed.records, sorted(os.listdir(tmp_path))) == (before, tree), (name, args)
    assert asked - quick == set()


@pytest.mark.parametrize("quickly", [False, True])
def test_a_slot_that_stands_for_nothing_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quickly: bool
) -> None:
    """Also for access(2), which asks for no right when it asks whether a file is there."""
    monkeypatch.setattr(loop, "Listener", Kernel)
    monkeypatch.chdir(tmp_path)
    bed = Bed(tmp_path, slots=True)
    if not quickly:
        bed.quick.clear()
    for text in (b"empty", b"./empty", b".//./empty/"):
        path = ctypes.create_string_buffer(text)
        for name, more in (("faccessat", (os.F_OK,)), ("newfstatat", (ctypes.addressof(bed.out), 0))):
            assert bed.ask(name, CWD, ctypes.addressof(path), *more)[0] == (0, "ENOENT")
    assert bed.ask("mkdirat", CWD, ctypes.addressof(path), 0o755)[0] == (0, "")
    assert bed.ask("faccessat", CWD, ctypes.addressof(path), os.F_OK)[0] == (0, "")
    assert bed.ask("unlinkat", CWD, ctypes.addressof(path), 0x200)[0] == (0, "")
    assert bed.ask("unlinkat", CWD, ctypes.addressof(path), 0x200)[0] == (0, "ENOENT")
