"""Landlock, for one thing: a process may not trace, read the memory of, or signal those outside its domain
(landlock(7), "Ptrace restrictions" and "IPC scoping"). Restricts no files.
"""

import ctypes
import os
import struct

from kpy.linux import libc
from kpy.linux.syscalls import Arch

_VERSION = 1
_PATH_BENEATH = 1
_REFER = 1 << 13
_SCOPE_SIGNAL = 1 << 1


def keep_apart(arch: Arch) -> str:
    """Put this process, and all that comes of it, in a domain of its own. Gives what this kernel's domains keep
    apart: "signals" (and memory), "memory", or "" where there is no Landlock. no_new_privs must be set."""
    create = arch.numbers["landlock_create_ruleset"]
    try:
        version = libc.syscall(create, "landlock_create_ruleset", 0, 0, _VERSION)
    except OSError:
        return ""
    try:
        if version >= 6:
            _restrict(arch, _ruleset(create, 0, _SCOPE_SIGNAL))
            return "signals"
        if version >= 2:
            # A domain must restrict something: moving files between directories, and that is allowed everywhere.
            rules = _ruleset(create, _REFER, 0)
            _allow_below_root(arch, rules)
            _restrict(arch, rules)
            return "memory"
    except OSError:
        pass  # as if there were none: it is a second line of defence
    return ""


def _ruleset(create: int, files: int, scoped: int) -> int:
    attributes = struct.pack("<QQQ", files, 0, scoped) if scoped else struct.pack("<Q", files)
    return libc.syscall(create, "landlock_create_ruleset", attributes, len(attributes), 0)


def _allow_below_root(arch: Arch, rules: int) -> None:
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        attributes = ctypes.create_string_buffer(struct.pack("<Qi", _REFER, root), 12)
        libc.syscall(arch.numbers["landlock_add_rule"], "landlock_add_rule", rules, _PATH_BENEATH, attributes, 0)
    finally:
        os.close(root)


def _restrict(arch: Arch, rules: int) -> None:
    try:
        libc.syscall(arch.numbers["landlock_restrict_self"], "landlock_restrict_self", rules, 0)
    finally:
        os.close(rules)
