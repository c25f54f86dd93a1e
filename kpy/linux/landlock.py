"""Landlock (landlock(7)), for two things: a process may not trace, read the memory of, signal, or reach the abstract sockets of
those outside its domain ("Ptrace restrictions" and "IPC scoping"); and it may not use files but those of some directories.
"""

import ctypes
import os
import stat
import struct

from kpy.linux import libc
from kpy.linux.syscalls import Arch

TYPE_CHECKING = False  # as mypy knows it; importing collections takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Sequence

_VERSION = 1
_PATH_BENEATH = 1
_EXECUTE, _WRITE, _READ, _LIST, _REFER, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 13, 1 << 14
_CHANGE = ((1 << 13) - 1) & ~(_EXECUTE | _WRITE | _READ | _LIST) | _REFER  # making and removing names
_RESOLVE_UNIX = 1 << 16
SOCKETS = 1 << 0
"""Abstract Unix sockets (LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET)."""
SIGNALS = 1 << 1
SCOPES = SOCKETS | SIGNALS
WITH_SCOPES = 6
"""The first version with them."""
WITH_UNIX_SOCKETS = 9
"""The first that keeps Unix sockets with a path (Linux 7.1)."""


def version(arch: Arch) -> int:
    """The version of this kernel's Landlock, 0 where there is none: not built in, not enabled, or a seccomp profile that
    does not know it."""
    try:
        return libc.syscall(arch.numbers["landlock_create_ruleset"], "landlock_create_ruleset", 0, 0, _VERSION)
    except OSError:
        return 0


def keeps_sockets(arch: Arch) -> bool:
    """Can this kernel's Landlock keep Unix sockets with a path from being connected to (version 9, Linux 7.1)?"""
    return version(arch) >= WITH_UNIX_SOCKETS


def keep_apart(arch: Arch, scopes: int = SCOPES) -> str:
    """Put this process, and all that comes of it, in a domain of its own, out of which go no signals and connections to
    abstract sockets, by `scopes`. Gives what this kernel's domains keep apart: "signals" (and sockets, and memory), "memory",
    or "" where there is no Landlock. no_new_privs must be set, or CAP_SYS_ADMIN held in the user namespace. Raises OSError
    where there is Landlock and it refuses: nothing is kept apart then."""
    found = version(arch)
    if found < 2:
        return ""
    # Where files are restricted already, a domain that says nothing of them forbids to move and link them
    # between directories; and before version 6, a domain must restrict something. It is allowed everywhere.
    rules = _ruleset(arch, _REFER, scopes if found >= WITH_SCOPES else 0)
    try:
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            _add(arch, rules, root, _REFER)
        finally:
            os.close(root)
        _restrict(arch, rules)
    finally:
        os.close(rules)
    return "signals" if found >= WITH_SCOPES else "memory"


def only(arch: Arch, whole: "Sequence[str]", programs: "Sequence[str]", names: "Sequence[str]" = ()) -> str:
    """From now on this thread, and all that comes of it, can read and change files in `whole` only, and read those in
    `programs`: files or directories, with all below; and make and remove names in `names`. What files there are, everybody still sees. no_new_privs must be
    set. Nor can it signal processes that do not come of it, or connect to abstract Unix sockets of
    others, where the kernel has that (version 6); Unix sockets with a path are files from version 9 on. Gives what is kept
    apart: "signals" (and files), "files", or "" where there is no Landlock, or only the first, which would keep files
    from being moved. Raises OSError where there is one and it refuses: the thread is not restricted then.
    """
    found = version(arch)
    if found < 2:
        return ""
    use = _EXECUTE | _WRITE | _READ | (_TRUNCATE if found >= 3 else 0) | (_RESOLVE_UNIX if found >= WITH_UNIX_SOCKETS else 0)
    rules = _ruleset(arch, use | _CHANGE, SCOPES if found >= WITH_SCOPES else 0)
    try:
        for path in whole:
            _allow(arch, rules, path, use | _CHANGE, use)
        for path in programs:
            _allow(arch, rules, path, _EXECUTE | _READ, _EXECUTE | _READ)
        for path in names:
            _allow(arch, rules, path, _CHANGE, 0)
        _restrict(arch, rules)
    finally:
        os.close(rules)
    return "signals" if found >= WITH_SCOPES else "files"


def _allow(arch: Arch, rules: int, path: str, directory: int, file: int) -> None:
    """Rights below a directory, or to a file; what is not there needs none."""
    try:
        place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        mode = os.fstat(place).st_mode
        rights = directory if stat.S_ISDIR(mode) else file
        if not stat.S_ISLNK(mode):
            _add(arch, rules, place, rights)
    finally:
        os.close(place)


def _add(arch: Arch, rules: int, place: int, rights: int) -> None:
    attributes = ctypes.create_string_buffer(struct.pack("<Qi", rights, place), 12)
    libc.syscall(arch.numbers["landlock_add_rule"], "landlock_add_rule", rules, _PATH_BENEATH, attributes, 0)


def _ruleset(arch: Arch, files: int, scoped: int) -> int:
    attributes = struct.pack("<QQQ", files, 0, scoped) if scoped else struct.pack("<Q", files)
    number = arch.numbers["landlock_create_ruleset"]
    return libc.syscall(number, "landlock_create_ruleset", attributes, len(attributes), 0)


def _restrict(arch: Arch, rules: int) -> None:
    libc.syscall(arch.numbers["landlock_restrict_self"], "landlock_restrict_self", rules, 0)
