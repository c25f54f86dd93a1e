"""More of what this place permits, for people who ask: each answer found by doing it in a forked child, and by nothing
else. Decides nothing. Works in `probe.py` are what builds go by; these are what a build could use or would miss.

Forks, as `probe.py` does: no other thread may run yet.
"""

import ctypes
import errno
import os
import signal
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kpy.linux import libc
from kpy.linux.namespaces import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER
from kpy.linux.probe import attempted

# VFS_CAP_REVISION_2 with CAP_NET_RAW permitted, as `setcap cap_net_raw+p` writes it (capabilities(7))
_FILE_CAPABILITY = struct.pack("<5I", 0x02000000, 1 << 13, 0, 0, 0)


def can_setuid() -> int:
    """May we become another user?"""
    return attempted(lambda: os.setresuid(1, 1, 1))


def can_mknod(directory: str) -> int:
    """May we make a device?"""
    with _scratch(directory) as place:
        if isinstance(place, int):
            return place
        return attempted(lambda: os.mknod(os.path.join(place, "null"), 0o20666, os.makedev(1, 3)))


def can_set_capability(directory: str) -> int:
    """May we give a file capabilities, as setcap does?"""
    with _scratch(directory) as place:
        if isinstance(place, int):
            return place
        path = os.path.join(place, "file")
        with open(path, "wb"):
            pass
        return attempted(lambda: os.setxattr(path, "security.capability", _FILE_CAPABILITY))


def can_make_network() -> int:
    """May we have a network namespace of our own, with or without a user namespace?"""
    number = attempted(lambda: libc.unshare(CLONE_NEWNET))
    return attempted(lambda: libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET)) if number else 0


def can_write_top(root: str = "/") -> int:
    """May we make a new directory in the root?"""

    def attempt() -> None:
        os.rmdir(tempfile.mkdtemp(prefix=".kpy-probe-", dir=root))

    return attempted(attempt)


def can_read_memory() -> int:
    """May we read and write the memory of a child through /proc/PID/mem?"""
    word = ctypes.create_string_buffer(b"kpy", 8)
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        return attempted(lambda: _change(pid, word))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _change(pid: int, word: "ctypes.Array[ctypes.c_char]") -> None:
    """The child has the page where we have it; what we write there does not change ours."""
    address = ctypes.addressof(word)
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    if os.pread(memory, 3, address) != b"kpy" or os.pwrite(memory, b"KPY", address) != 3 or os.pread(memory, 3, address) != b"KPY":
        raise OSError(errno.EIO, "memory")


def kernel() -> str:
    """Its release, such as `6.1.0-18-amd64`."""
    return os.uname().release


def is_gvisor() -> bool:
    """Is the kernel gVisor's? It says it is one of January 2016, always."""
    return "#1 SMP Sun Jan 10 15:06:54 PST 2016" in read("/proc/version")


def memory_limit(root: str = "/") -> int:
    """Bytes that the control group allows, of version 2 or 1; 0 for no limit."""
    for path in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = read(os.path.join(root, path)).strip()
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return 0


def memory_free() -> int:
    """Bytes that the kernel would still give."""
    for line in read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def space(directory: str) -> tuple[int, int]:
    """Free bytes and free inodes of the file system that the directory is on, or will be on."""
    while not os.path.exists(directory) and directory not in ("", "/"):
        directory = os.path.dirname(directory)
    found = os.statvfs(directory or "/")
    return found.f_bavail * found.f_frsize, found.f_favail


def status(field: str) -> str:
    """A field of /proc/self/status, such as NoNewPrivs."""
    for line in read("/proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return ""


def read(path: str) -> str:
    """What a file says; nothing, when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""


@contextmanager
def _scratch(directory: str) -> Iterator[str | int]:
    """A directory of our own in `directory`, or the errno that forbids it."""
    try:
        place = tempfile.mkdtemp(prefix="probe-", dir=directory)
    except OSError as error:
        yield error.errno or errno.EIO
        return
    try:
        yield place
    finally:
        with suppress(OSError):
            for name in os.listdir(place):
                os.unlink(os.path.join(place, name))
            os.rmdir(place)
