"""Which calls of a RUN are answered by us, which by the filter itself, and which are the kernel's. A table, and why.

Every notification costs some 15 microseconds, so what need not come here does not.
"""

import errno

from kpy.emulation import ids
from kpy.linux.namespaces import CLONE_NEWUSER
from kpy.linux.seccomp import ALLOW, NOTIFY, Argument, Rule, assemble, fail
from kpy.linux.syscalls import Arch

_ALWAYS = (Rule(NOTIFY),)
_DONE = (Rule(fail(0)),)
_ABSENT = (Rule(fail(errno.ENOSYS)),)
_LOCKS, _LOW = 10, 0xFFFFFFFF  # RLIMIT_LOCKS
_DEVICE = 0o20000  # the bit that S_IFCHR and S_IFBLK have, and regular files, FIFOs and sockets have not
_PR_SET_DUMPABLE, _PR_GET_NO_NEW_PRIVS = 4, 39
_AF_UNIX, _AF_NETLINK, _NETLINK_AUDIT = 1, 16, 9
_DATAGRAM = 2  # the bit that SOCK_DGRAM and SOCK_RAW have, and SOCK_STREAM and SOCK_SEQPACKET have not
_SO_PEERCRED, _SO_PEERGROUPS, _SO_PEERPIDFD = 17, 59, 77
_PRIO_USER = 2  # linux/resource.h; of ioprio_set (linux/ioprio.h), one more
_OF_ANOTHER = (Rule(NOTIFY, Argument(0, "any", _LOW)),)
_ACL_ROOM = 132  # acl_ea_size(16)


def _names(text: str) -> list[str]:
    return text.split()


_WATCHED = _names(
    "getuid geteuid getgid getegid getresuid getresgid getgroups setuid setreuid setresuid setfsuid setgid setregid "
    "setresgid setfsgid setgroups capget capset old_getuid old_geteuid old_getgid old_getegid "
    "chown fchown lchown fchownat chmod fchmod fchmodat fchmodat2 "
    "stat lstat fstat newfstatat statx "
    "creat openat2 mkdir mkdirat mknod mknodat symlink symlinkat bind truncate "
    "setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr "
    "removexattr lremovexattr fremovexattr "
    "execve execveat chroot access faccessat faccessat2 getcwd getdents64 "
    # Only to refuse them to users who are not root. They make installations some 15 % slower.
    "open openat unlink unlinkat rmdir rename renameat renameat2 link linkat chdir fchdir readlink readlinkat "
    "utime utimes futimesat utimensat"
)


def _first_argument(*values: int) -> tuple[Rule, ...]:
    return tuple(Rule(NOTIFY, Argument(0, "is", value)) for value in values)


def _limit(argument: int) -> tuple[Rule, ...]:
    """The limit that has our mark is not theirs to set. They are told that they did."""
    locks = Argument(0 if argument == 1 else 1, "is", _LOCKS)
    return tuple(Rule(fail(0), locks, Argument(argument, "any", _LOW, high)) for high in (0, 1))


RULES: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys(_WATCHED, _ALWAYS),
    "umask": (Rule(NOTIFY, Argument(0, "any", 0o700)),),
    "getsockopt": tuple(
        Rule(NOTIFY, Argument(1, "is", 1), Argument(2, "is", option)) for option in (_SO_PEERCRED, _SO_PEERGROUPS)
    ),
    # Root in a container may write to the audit log, and programs that log in (sudo, su) complain if they may not:
    # a kernel without auditing is fine with them.
    "socket": (Rule(fail(errno.EPROTONOSUPPORT), Argument(0, "is", _AF_NETLINK), Argument(2, "is", _NETLINK_AUDIT)),),
    "prctl": (
        # Its files in /proc would become root's, and we could no longer read its memory (sudo and ssh-agent do that).
        Rule(fail(0), Argument(0, "is", _PR_SET_DUMPABLE)),
        # sudo will not work where this is set, and for us set-id programs do.
        Rule(fail(0), Argument(0, "is", _PR_GET_NO_NEW_PRIVS)),
        *_first_argument(
            ids.PR_GET_KEEPCAPS, ids.PR_SET_KEEPCAPS, ids.PR_CAPBSET_READ, ids.PR_CAPBSET_DROP, ids.PR_GET_SECUREBITS,
            ids.PR_SET_SECUREBITS, ids.PR_CAP_AMBIENT,
        ),
    ),
    "setrlimit": _limit(1),
    # And of other processes: those of the RUN, but not the builder, which has the same uid and would end by it, or get no
    # processor to end the RUN.
    "prlimit64": (*_limit(2), *_OF_ANOTHER),
    **dict.fromkeys(("sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity"), _OF_ANOTHER),
    "setpriority": (Rule(NOTIFY, Argument(0, "is", _PRIO_USER)), Rule(NOTIFY, Argument(1, "any", _LOW))),
    "ioprio_set": (Rule(NOTIFY, Argument(0, "is", _PRIO_USER + 1)), Rule(NOTIFY, Argument(1, "any", _LOW))),
    # What another root directory calls a file is not what we would: only in a user namespace could there be one. Docker's
    # own filter refuses it too, and programs know what to do then.
    "unshare": (Rule(fail(errno.EPERM), Argument(0, "any", CLONE_NEWUSER)),),
    "clone": (Rule(fail(errno.EPERM), Argument(0, "any", CLONE_NEWUSER)),),
    "clone3": _ABSENT,  # its flags are in memory
    # These do what we watch by other ways. Programs have others for older kernels, and for docker's own filter.
    "io_uring_setup": _ABSENT,
    **dict.fromkeys(("setxattrat", "getxattrat", "listxattrat", "removexattrat", "file_setattr"), _ABSENT),
    # Ids of 16 bits, of programs for Linux before 2.4.
    **dict.fromkeys(("old_setuid", "old_setgid", "old_setreuid", "old_setregid", "old_setgroups", "old_setfsuid",
                     "old_setfsgid", "old_setresuid", "old_setresgid", "old_chown", "old_fchown", "old_lchown"), _DONE),
}  # fmt: skip

UNRECORDED: dict[str, tuple[Rule, ...]] = {
    # Where the RUN begins with no recorded attribute on any file. cp asks for those of each file, twice: how much room the
    # names take, and with that much, none, once more. A file of which one comes to be recorded says on disk that it has
    # some (kpy.emulation.files), and is then asked for them.
    **dict.fromkeys(("listxattr", "llistxattr", "flistxattr"), (Rule(ALLOW, Argument(2, "is", 0)), Rule(NOTIFY))),
    # And for an access control list, with the room that libacl first has. No recorded attribute is asked for with that.
    **dict.fromkeys(("getxattr", "lgetxattr", "fgetxattr"), (Rule(ALLOW, Argument(3, "is", _ACL_ROOM)), Rule(NOTIFY))),
}

_MADE = (Rule(NOTIFY, Argument(0, "is", _AF_UNIX)),)
SOCKETS: dict[str, tuple[Rule, ...]] = {
    # Where a RUN sees files of the builder, and so sockets (kpy.emulation.sockets).
    "socket": (*_MADE, *RULES["socket"]),
    "socketpair": (Rule(NOTIFY, Argument(0, "is", _AF_UNIX), Argument(1, "any", _DATAGRAM)),),
    "connect": _ALWAYS,
    # A descriptor of the process at the other end: that would be ours. Linux before 6.5 had none.
    "getsockopt": (Rule(fail(errno.ENOPROTOOPT), Argument(1, "is", 1), Argument(2, "is", _SO_PEERPIDFD)), *RULES["getsockopt"]),
    "socketcall": _first_argument(1, 2, 3, 8),  # socket, bind, connect, socketpair (linux/net.h)
}

PLAIN: dict[str, tuple[Rule, ...]] = {
    # Without a listener: what root does succeeds and is forgotten.
    **dict.fromkeys(
        _names(
            "chown fchown lchown fchownat setuid setreuid setresuid setgid setregid setresgid setgroups capset setfsuid "
            "setfsgid old_setuid old_setgid old_setreuid old_setregid old_setgroups old_setfsuid old_setfsgid "
            "old_setresuid old_setresgid old_chown old_fchown old_lchown"
        ),
        _DONE,
    ),
    # Nor may it end or slow the builder, which has the same uid.
    "prlimit64": tuple(Rule(fail(errno.EPERM), Argument(0, "any", _LOW), Argument(2, "any", _LOW, high)) for high in (0, 1)),
    **dict.fromkeys(
        ("sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity"), (Rule(fail(errno.EPERM), Argument(0, "any", _LOW)),)
    ),
    "setpriority": (Rule(fail(errno.EPERM), Argument(0, "is", _PRIO_USER)), Rule(fail(errno.EPERM), Argument(1, "any", _LOW))),
    "ioprio_set": (Rule(fail(errno.EPERM), Argument(0, "is", _PRIO_USER + 1)), Rule(fail(errno.EPERM), Argument(1, "any", _LOW))),
    "mknod": (Rule(fail(0), Argument(1, "any", _DEVICE)),),
    "mknodat": (Rule(fail(0), Argument(2, "any", _DEVICE)),),
}
_NAMES_OF_ROOT = ("getuid", "geteuid", "getgid", "getegid", "old_getuid", "old_geteuid", "old_getgid", "old_getegid")


def watching(arch: Arch, *, attributes: bool = True, sockets: bool = False) -> bytes:
    """The filter of the emulation. `attributes`: are any recorded? `sockets`: are there some to be kept from the RUN?"""
    return assemble(arch, {**RULES, **({} if attributes else UNRECORDED), **(SOCKETS if sockets else {})})


def forgetting(arch: Arch, *, root: bool) -> bytes:
    """The filter where there can be no listener. `root`: the RUN begins as root."""
    return assemble(arch, {**PLAIN, **dict.fromkeys(_NAMES_OF_ROOT, _DONE)} if root else PLAIN)
