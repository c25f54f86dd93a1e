"""Who is at the other end of a Unix socket? The kernel would name the builder's user. The peer's socket is asked of
the kernel (sock_diag(7)), its process found in /proc, and the credentials are that process's.

They are its credentials now, not those when it connected.
"""

import errno
import os
import socket
import struct

from kpy.emulation.call import PROCEED, Call, refuse
from kpy.emulation.credentials import Credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kpy.emulation.call import Handler

_SOL_SOCKET, _SO_PEERCRED, _SO_PEERGROUPS = 1, 17, 59
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST, _ERROR = 1, 2
_SHOW_PEER, _ATTRIBUTE_PEER = 4, 2  # UDIAG_SHOW_PEER, UNIX_DIAG_PEER
_NOBODY = 65534


def _getsockopt(call: Call) -> int | None:
    """SO_PEERCRED and SO_PEERGROUPS; filter.py lets through all else."""
    descriptor, _, option, value, length = call.args[:5]
    room = struct.unpack("<I", call.read(length, 4))[0]
    inode = inode_of(call.pid, descriptor & 0xFFFFFFFF)
    if inode is None:
        return PROCEED  # no socket: the kernel's error
    peer = _peer(inode)
    if peer is None:
        return PROCEED  # not a Unix socket, or not connected
    pid, who = _holder(call, peer)
    if option & 0xFFFFFFFF == _SO_PEERCRED:
        data = struct.pack("<III", pid, who.euid if who else _NOBODY, who.egid if who else _NOBODY)[:room]
    else:
        groups = who.groups if who else ()
        data = struct.pack(f"<{len(groups)}I", *groups)
        if room < len(data):
            call.write(length, struct.pack("<I", len(data)))
            raise refuse(errno.ERANGE)
    if data:
        call.write(value, data)
    call.write(length, struct.pack("<I", len(data)))
    return 0


def inode_of(pid: int, descriptor: int) -> int | None:
    """The inode of the process's socket."""
    try:
        return _inode(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    except FileNotFoundError:
        return None


def _inode(link: str) -> int | None:
    return int(link[8:-1]) if link.startswith("socket:[") else None


def _peer(inode: int) -> int | None:
    """The inode of the socket that a connected Unix socket is connected to."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(1)
        # struct unix_diag_req: family, protocol, pad, states, inode, what to show, cookie (all ones: any)
        body = struct.pack("<BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, _SHOW_PEER, 0xFFFFFFFF, 0xFFFFFFFF)
        netlink.send(struct.pack("<IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST, 1, 0) + body)
        data = netlink.recv(8192)
    size, kind = struct.unpack_from("<IH", data)
    if kind == _ERROR:
        return None
    place = 16 + 16  # struct nlmsghdr, struct unix_diag_msg; then attributes
    while place + 4 <= min(size, len(data)):
        length, attribute = struct.unpack_from("<HH", data, place)
        if attribute == _ATTRIBUTE_PEER:
            return int(struct.unpack_from("<I", data, place + 4)[0])
        place += max(4, length + 3 & ~3)
    return None


def _holder(call: Call, inode: int) -> tuple[int, Credentials | None]:
    """The process that has the socket open; the oldest of several, which gave it to the others. (0, None) if there is
    none any more, or it is no process of ours."""
    found = min(_holders(inode), default=None)
    if found is None:
        return 0, None
    try:
        return found[1], call.world.identities.of(found[1])
    except (ProcessLookupError, PermissionError):
        return 0, None


def _holders(inode: int) -> "Iterator[tuple[int, int]]":
    """Start time and pid of each process that has it."""
    wanted = f"socket:[{inode}]"
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if any(_points_to(f"/proc/{name}/fd/{number}", wanted) for number in os.listdir(f"/proc/{name}/fd")):
                with open(f"/proc/{name}/stat", "rb") as file:
                    yield int(file.read().rpartition(b")")[2].split()[19]), int(name)
        except OSError:
            continue


def _points_to(path: str, wanted: str) -> bool:
    try:
        return os.readlink(path) == wanted
    except OSError:
        return False


HANDLERS: "Mapping[str, Handler]" = {"getsockopt": _getsockopt}

assert _SOL_SOCKET == socket.SOL_SOCKET
