"""What system calls a RUN may make: the default profile of docker and containerd as data, and the filter that it gives.

It is theirs for a container with the default capabilities (moby/profiles, seccomp/default.json, May 2026; containerd follows
it), so what works in `docker run` works in a RUN. What differs from it:

- A call that is in no table of ours, and those that came after docker's list, are ENOSYS, and not EPERM: programs know what
  to do with an older kernel. runc does the same with those that are newer than the profile.
- All calls of x32 are ENOSYS. Docker allows them; kernels of distributions do not have them, and no image uses them.

As with docker, 32-bit programs of x86 can have any kind of socket by socketcall, whose arguments are in memory, where no filter
sees them; most C libraries make all their sockets by it.
"""

import errno
import os
from functools import cache

from kpy.linux.callnumbers import INTERFACES
from kpy.linux.families import FAMILIES as FAMILIES  # noqa: PLC0414 - a part of it
from kpy.linux.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from kpy.linux.seccomp import ALLOW, Argument, Rule, Segments, assemble_segments, fail

DENIED = {
    "keys are the kernel's, and of no namespace": "add_key request_key keyctl",
    "many faults of the kernel were in it, and it makes calls that no filter sees": "io_uring_setup io_uring_enter io_uring_register",
    "programs that run in the kernel; what the whole machine does": "bpf perf_event_open lookup_dcookie",
    "holds the kernel up in the middle of a call, which exploits want": "userfaultfd",
    "opens files that are not below the root": "open_by_handle_at",
    "a namespace of its own gives a process the kernel's code for root": "unshare setns",
    "mounts are the builder's": (
        "mount umount umount2 pivot_root fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr quotactl quotactl_fd"
    ),
    "watches the files of others": "fanotify_init",
    "sees into other processes as ptrace does, but was left out of what ptrace allows": "kcmp pidfd_getfd process_madvise",
    "the kernel itself, and its modules": (
        "kexec_load kexec_file_load init_module finit_module delete_module create_module query_module get_kernel_syms "
        "reboot swapon swapoff acct syslog nfsservctl bdflush"
    ),
    "the clock, the name and the terminals of the machine": (
        "clock_settime clock_settime64 settimeofday stime sethostname setdomainname vhangup"
    ),
    "hardware": "ioperm iopl pciconfig_iobase pciconfig_read pciconfig_write vm86 vm86old",
    "where memory is, for others too": "get_mempolicy set_mempolicy set_mempolicy_home_node mbind migrate_pages move_pages",
    "security modules": "lsm_get_self_attr lsm_set_self_attr lsm_list_modules",
    "old, and long replaced or gone": (
        "_sysctl afs_syscall break ftime getpmsg gtty idle lock mpx nice oldfstat oldlstat oldolduname oldstat olduname prof "
        "profil putpmsg readdir security sgetmask sigaction signal sigpending sigsuspend ssetmask stty sysfs tuxcall ulimit "
        "uselib ustat vserver usr26 usr32 get_tls"
    ),
}
"""Names by the reason. All other names that we know are allowed, but for RULES."""

PERSONALITIES = (0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
"""PER_LINUX, PER_LINUX32, each with UNAME26, and the question which it is: others turn off protections of memory."""

_NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP

_ALLOWED = (Rule(ALLOW),)
_REFUSED = (Rule(fail(errno.EPERM)),)
_ABSENT = (Rule(fail(errno.ENOSYS)),)
_X32 = 0x40000000

RULES: dict[str, tuple[Rule, ...]] = {
    "clone": (Rule(fail(errno.EPERM), Argument(0, "any", _NAMESPACES)), *_ALLOWED),
    "clone3": _ABSENT,  # its flags are in memory; programs then use clone
    "personality": (*(Rule(ALLOW, Argument(0, "is", value)) for value in PERSONALITIES), *_REFUSED),
    "socket": (
        Rule(fail(errno.EPERM), Argument(0, "least", max(FAMILIES) + 1)),
        *(Rule(fail(errno.EPERM), Argument(0, "is", value)) for value in range(max(FAMILIES)) if value not in FAMILIES),
        *_ALLOWED,
    ),
}


@cache
def program(machine: str = os.uname().machine) -> bytes:
    """The filter for a machine as uname(2) names it; empty for one that we know no calls of. It takes some milliseconds to
    make, so who starts RUNs makes it, once, and hands it to those who install it."""
    interfaces = INTERFACES.get(machine, ())
    denied = {name for names in DENIED.values() for name in names.split()}
    return assemble_segments([(audit, _segments(numbers, denied)) for audit, numbers in interfaces]) if interfaces else b""


def _segments(numbers: dict[str, int], denied: set[str]) -> Segments:
    """What holds from which number on."""
    rules = {number: RULES.get(name, _REFUSED if name in denied else _ALLOWED) for name, number in numbers.items()}
    found: Segments = []
    for number in sorted({0, _X32, *rules, *(number + 1 for number in rules)}):
        following = rules.get(number, _ABSENT)
        if not found or found[-1][1] is not following:
            found.append((number, following))
    return found
