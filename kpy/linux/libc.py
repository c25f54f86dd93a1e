"""The C library by ctypes: one wrapper a call, each raising OSError with the path. Knows no policy.

Imported by the process that enters a sandbox, whose start-up every RUN pays: no module here that it needs may
import dataclasses, typing, json or re (20 ms together).
"""

import ctypes
import errno
import os
import struct

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
PTRACE_DETACH = 17

AT_FDCWD = -100
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# System calls younger than Linux 5.0 have one number on every architecture (arch/*/kernel/syscalls).
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442

_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, call: str, path: bytes = b"") -> int:
    """Give the result of a C function, or raise what errno says, naming the call and the path."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}", os.fsdecode(path) if path else None)
    return result


def syscall(number: int, call: str, *args: object, path: bytes = b"") -> int:
    """A raw system call. Integers are passed as longs, bytes and ctypes objects as pointers."""
    wide = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return check(int(_libc.syscall(ctypes.c_long(number), *wide)), call, path)


def prctl(option: int, value: int = 0, third: int = 0) -> int:
    """prctl(2)."""
    numbers = [ctypes.c_ulong(number) for number in (value, third, 0, 0)]
    return check(int(_libc.prctl(ctypes.c_int(option), *numbers)), "prctl")


def mount(source: bytes | None, target: bytes, fstype: bytes | None, flags: int, data: bytes | None = None) -> None:
    """mount(2)."""
    check(int(_libc.mount(source, target, fstype, ctypes.c_ulong(flags), data)), "mount", target)


def umount(target: bytes, flags: int = 0) -> None:
    """umount2(2)."""
    check(int(_libc.umount2(target, ctypes.c_int(flags))), "umount", target)


def pivot_root(new: bytes, old: bytes) -> None:
    """pivot_root(2)."""
    check(int(_libc.pivot_root(new, old)), "pivot_root", new)


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(int(_libc.unshare(ctypes.c_int(flags))), "unshare")


def ptrace_detach(thread: int, number: int) -> None:
    """ptrace(2), PTRACE_DETACH: let a tracee of this thread go on, with a signal or with none (0)."""
    _libc.ptrace.restype = ctypes.c_long
    check(int(_libc.ptrace(PTRACE_DETACH, ctypes.c_int(thread), None, ctypes.c_void_p(number))), "ptrace")


def sethostname(name: bytes) -> None:
    """sethostname(2)."""
    check(int(_libc.sethostname(name, ctypes.c_size_t(len(name)))), "sethostname")


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) for this process, version 3: two 32-bit halves of each set."""
    header = struct.pack("Ii", 0x20080522, 0)
    halves = (part for shift in (0, 32) for part in (effective, permitted, inheritable) for part in [part >> shift])
    data = struct.pack("6I", *(half & 0xFFFFFFFF for half in halves))
    check(int(_libc.capset(header, data)), "capset")


def capget() -> tuple[int, int, int]:
    """capget(2) of this thread, version 3: its effective, permitted and inheritable set."""
    data = ctypes.create_string_buffer(24)
    check(int(_libc.capget(struct.pack("Ii", 0x20080522, 0), data)), "capget")
    halves = struct.unpack("6I", data.raw)
    effective, permitted, inheritable = (halves[index] | halves[index + 3] << 32 for index in range(3))
    return effective, permitted, inheritable


def openat2(directory: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2). The descriptor is close-on-exec."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(1000):
        try:
            return syscall(SYS_OPENAT2, "openat2", directory, path, how, len(how), path=path)
        except BlockingIOError:
            continue  # EAGAIN: somebody mounts or renames, anywhere, while it walks over a `..` (openat2(2))
    raise OSError(errno.EAGAIN, f"openat2: {os.strerror(errno.EAGAIN)}", os.fsdecode(path))


def open_in_root(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open `path` as a process whose root directory is `root` would: symlinks and `..` never leave it."""
    return openat2(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, mode)
