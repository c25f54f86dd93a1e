"""Capabilities: the set that a RUN gets, and dropping all others. Decides nothing about users."""

from kpy.linux import libc

CHOWN = 0
DAC_OVERRIDE = 1
SETGID = 6
SETUID = 7
SYS_CHROOT = 18
SYS_PTRACE = 19
SYS_ADMIN = 21
SYS_RESOURCE = 24
SETFCAP = 31

# containerd's default (R09): CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP
# NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE
DEFAULT = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))


def limit_bounding(keep: int) -> None:
    """Drop all but `keep` from the bounding set, so that no setuid program gets them back. Needs CAP_SETPCAP."""
    number = 0
    while True:
        try:
            held = libc.prctl(libc.PR_CAPBSET_READ, number)
        except OSError:  # EINVAL: past the last capability that this kernel has
            return
        if held and not keep >> number & 1:
            libc.prctl(libc.PR_CAPBSET_DROP, number)
        number += 1


def limit(keep: int) -> None:
    """Hold at most `keep` from now on, effective and permitted; nothing inheritable, nothing ambient."""
    keep &= permitted()
    libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    libc.capset(keep, keep, 0)


def permitted() -> int:
    """The permitted set of this thread. Not by /proc: the root may be one that this process cannot enter."""
    return libc.capget()[1]


def effective() -> int:
    """The effective set of this thread."""
    return libc.capget()[0]
