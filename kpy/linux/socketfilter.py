"""No network without a namespace: a system call filter under which a process has no sockets but Unix ones. The program
is data; nothing here decides when it is used.

What it does not do: there is no loopback interface either, /sys and /proc/net still show the interfaces there are, and
setuid programs gain nothing any more (no_new_privs, without which only CAP_SYS_ADMIN may have a filter: seccomp(2)).
"""

import ctypes
import errno
import os
import socket
import struct

from kpy.linux import landlock, libc, syscalls

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_MODE_FILTER = 2

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # struct seccomp_data; the low word comes first on all of ours
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_IO_URING_SETUP = 425  # a ring makes sockets without a system call for each (IORING_OP_SOCKET)
_X32 = 0x40000000

# By machine, the ways into its kernel: audit architecture, socket(2), socketpair(2), socketcall(2) or 0.
# The last takes the family from memory, where no filter can see it.
_I386 = (0x40000003, 359, 360, 102)
_WAYS = {
    "x86_64": ((0xC000003E, 41, 53, 0), _I386),
    "aarch64": ((0xC00000B7, 198, 199, 0), (0x40000028, 281, 288, 0)),
}


def program(machine: str) -> bytes:
    """The filter for a machine as uname(2) names it, as an array of struct sock_filter; empty for one not known.

    socket and socketpair of any family but AF_UNIX are EAFNOSUPPORT, as in a kernel without the family; io_uring is
    ENOSYS; so is all that comes another way than these.
    """
    blocks = b"".join(_way(*way) for way in _WAYS.get(machine, ()))
    return blocks and _step(_LOAD, _ARCHITECTURE) + blocks + _refuse(errno.ENOSYS)


def _way(architecture: int, create: int, pair: int, call: int) -> bytes:
    steps = [_step(_LOAD, _NUMBER)]
    if architecture == 0xC000003E:
        steps += [_step(_AT_LEAST, _X32, 0, 1), _refuse(errno.ENOSYS)]
    steps += [_step(_EQUAL, _IO_URING_SETUP, 0, 1), _refuse(errno.ENOSYS)]
    if call:  # its sub-calls are numbered 1 socket and 8 socketpair (linux/net.h)
        steps += [
            _step(_EQUAL, call, 0, 4), _step(_LOAD, _FIRST_ARGUMENT), _step(_EQUAL, 1, 1, 0), _step(_EQUAL, 8, 0, 5),
            _refuse(errno.EAFNOSUPPORT),
        ]  # fmt: skip
    steps += [
        _step(_EQUAL, create, 1, 0), _step(_EQUAL, pair, 0, 2), _step(_LOAD, _FIRST_ARGUMENT),
        _step(_EQUAL, socket.AF_UNIX, 0, 1), _step(_RETURN, _ALLOW), _refuse(errno.EAFNOSUPPORT),
    ]  # fmt: skip
    return _step(_EQUAL, architecture, 0, len(steps)) + b"".join(steps)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _refuse(number: int) -> bytes:
    return _step(_RETURN, _ERRNO | number)


def apply() -> None:
    """From now on neither this process nor what it starts has a network. Raises OSError; ENOSYS on other machines."""
    steps = program(os.uname().machine)
    if not steps:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _close_abstract_sockets()
    memory = ctypes.create_string_buffer(steps, len(steps))
    fprog = ctypes.create_string_buffer(struct.pack("@HP", len(steps) // 8, ctypes.addressof(memory)))
    libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(fprog))


def _close_abstract_sockets() -> None:
    """Abstract Unix sockets, those without a path, belong to a network namespace: none of somebody outside can be
    reached from now on, where the kernel has the means (Landlock, Linux 6.12) and the container lets us use it."""
    arch = syscalls.native()
    if arch is not None and landlock.version(arch) >= landlock.WITH_SCOPES:
        landlock.keep_apart(arch, landlock.SOCKETS)
