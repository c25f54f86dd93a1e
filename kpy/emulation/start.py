"""The first process of a RUN, before it becomes the command: puts itself under the filter, and sends the listener to
the process that answers."""

import array
import errno
import os
import socket
import struct

from kpy.emulation import filter as filters
from kpy.emulation.identities import is_marked, mark
from kpy.linux import landlock, libc, seccomp
from kpy.linux.syscalls import Arch

NO_DATAGRAMS = (
    "RUN could not use a datagram Unix socket: with one, it could reach sockets of the builder here (Linux 7.1 and later can "
    "tell them apart). Stream sockets work; for this one, build where user namespaces are allowed"
)
"""A line for the user: what a RUN wanted (kpy.emulation.sockets)."""
OUTER = -1
"""In place of an errno: a kpy that runs this one emulates."""


def confine(channel: socket.socket, arch: Arch, *, root: bool, attributes: bool, refused: int = 0, sockets: bool = False) -> bool:
    """Come under the emulation, or what there is in its place; `receive` is told which at the other end of the channel.
    `attributes`: are any recorded? `sockets`: are there some to be kept from it? `refused`: the errno that says why there can be none, where that is known (a listener may be given and be of no use).
    False: this process is emulated already, by a kpy that runs this one, and has ids to set like any other.

    Also out of reach of what is not the RUN's: no process of it can read the builder's memory, or signal it, where the
    kernel has Landlock.
    """
    libc.prctl(libc.PR_SET_DUMPABLE, 1)  # our parent is not, but must reach us
    seccomp.no_new_privs()
    landlock.keep_apart(arch)
    is_emulated = is_marked()
    try:
        if refused:
            raise OSError(refused, os.strerror(refused))
        if not mark():
            raise OSError(errno.EPERM, "the hard limit of locks is too low")
        listener = seccomp.install_with_listener(filters.watching(arch, attributes=attributes, sockets=sockets), arch)
    except OSError as error:
        if error.errno == errno.EBUSY and is_emulated:
            channel.send(struct.pack("<i", OUTER))
            return False
        seccomp.install(filters.forgetting(arch, root=root), arch)
        channel.send(struct.pack("<i", error.errno or errno.EIO))
        return True
    channel.sendmsg([struct.pack("<i", 0)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
    os.close(listener)
    return True


def receive(channel: socket.socket) -> tuple[int, int]:
    """The listener, or -1 and the errno that says why there is none. EPIPE if the process ended before."""
    data, ancillary, _, _ = channel.recvmsg(4, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    if len(data) < 4:
        return -1, errno.EPIPE
    number = struct.unpack("<i", data)[0]
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return int(array.array("i", content[:4])[0]), 0
    return -1, int(number)


def denied(name: bytes) -> str:
    """A line for the user: a RUN wanted to make this in `/`, and could not; "" if there is no name."""
    if not name:
        return ""
    return (
        f"RUN could not make {os.fsdecode(name)}: nothing new can be made in / of this container as uid {os.geteuid()}. For a directory, "
        "mount an emptyDir there; a file (that of sed -i, say) can be made in /tmp, and copied onto one that is there"
    )


def lost(number: int) -> str:
    """A line for the user: what a RUN lacks where there was no listener, for this reason; "" if it lacks nothing."""
    if number in (OUTER, errno.EPIPE):
        return ""
    reason = "another program watches this one's system calls" if number == errno.EBUSY else os.strerror(number).lower()
    return (
        f"root is emulated in part only ({reason}): RUN's changes of owners, devices and file capabilities are not in the "
        "image, its users are all one, and what asks whether they took effect may fail"
    )
