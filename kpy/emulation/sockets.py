"""Unix sockets of a RUN that shares its root directory with the builder: no address that it names reaches the socket of
somebody else there, an SSH agent's say, whose file Landlock keeps from being opened but, before Linux 7.1, not from being
connected to. Where the kernel itself sees to that (LANDLOCK_ACCESS_FS_RESOLVE_UNIX), nothing of this is used.

To look at the address of connect(2) and then let the kernel make the call would not do: another thread may change the
address, or what the descriptor is, in between. To make the call here on a copy of the socket takes pidfd_getfd(2), which
the seccomp profiles of docker and containerd refuse, and sendmsg(2), whose address is in memory that no filter sees, would
have to be made here always, by everybody who sends. So the RUN is given no Unix socket for which the kernel would look up
a path at all:

- A stream (or SEQPACKET) socket is a listening one from the beginning, under a name that the kernel makes up. It is as one
  that is not connected (reading and writing fail as there), and to connect it is EINVAL, whatever the address. bind(2)
  puts another in its place, which has the wanted address and listens; connect(2) one that we connected, to what the path
  meant when we looked, if the RUN could write there. Stream sockets take no address from those who send.
- There are no datagram sockets, which would: who asks for one gets a SEQPACKET socket as above, that can be neither bound
  nor connected. It serves for an ioctl, and programs that find no syslog go on, as they do in docker. A pair of them is a
  connected SEQPACKET pair. Who tries more is told (`World.datagram`).

All other sockets, and all that sends, is the kernel's: it costs nothing. A connect(2) of any family costs a notification.
"""

import errno
import os
import socket
import stat
import struct

from kpy.emulation.call import ANSWERED, PROCEED, Call, refuse
from kpy.emulation.create import bound
from kpy.emulation.paths import AT_FDCWD, Place
from kpy.emulation.peers import inode_of
from kpy.emulation.permissions import WRITE
from kpy.emulation.unconnected import DATAGRAM, TYPES, UNIX, Waiting, real
from kpy.linux.families import FAMILIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kpy.emulation.call import Handler

_ALL = 0xFFFFFFFF
_FAMILY, _LARGEST = 2, 110  # bytes of struct sockaddr_un: its first field, all
_SUBCALLS = {1: "socket", 2: "bind", 3: "connect", 8: "socketpair"}  # linux/net.h


def _signed(number: int) -> int:
    number &= _ALL
    return number - (1 << 32) if number >> 31 else number


def _socket(call: Call, arguments: tuple[int, ...]) -> int:
    """Those of other families come here by socketcall(2) only, whose arguments are in memory: they are made here too, for
    the kernel would read them once more."""
    family, kind, protocol = map(_signed, arguments[:3])
    if family not in FAMILIES:
        raise refuse(errno.EPERM)  # as its filter says of those that do not come by socketcall
    if family == socket.AF_UNIX:
        new = call.world.sockets.make(kind, protocol)
    else:
        new = socket.socket(family, kind, protocol)
    with new:
        call.world.listener.give(call.number, new.fileno(), close_on_exec=bool(kind & socket.SOCK_CLOEXEC))
    return ANSWERED


def _socketpair(call: Call, arguments: tuple[int, ...]) -> int:
    family, kind, protocol = map(_signed, arguments[:3])
    listener = call.world.listener
    if family != socket.AF_UNIX:
        raise refuse(errno.EOPNOTSUPP)
    call.write(arguments[3], bytes(8))  # a bad address is to be known before there is a descriptor
    one, other = socket.socketpair(family, kind & ~TYPES | real(kind & TYPES), protocol)
    with one, other:
        given = [listener.put(call.number, end.fileno(), close_on_exec=bool(kind & socket.SOCK_CLOEXEC)) for end in (one, other)]
    call.write(arguments[3], struct.pack("<ii", *given))
    return 0


def _address(call: Call, address: int, size: int) -> bytes:
    """Of a Unix socket, as it is now: it is read once."""
    size &= _ALL
    if not _FAMILY <= size <= _LARGEST:
        raise refuse(errno.EINVAL)
    data = call.read(address, size)
    if struct.unpack_from("=H", data)[0] != socket.AF_UNIX:
        raise refuse(errno.EINVAL)
    return data


def _bind(call: Call, arguments: tuple[int, ...], otherwise: "Handler") -> int | None:
    sockets = call.world.sockets
    inode = inode_of(call.pid, arguments[0] & _ALL)
    kind = sockets.kind(inode)
    if inode is None or kind is None:
        return otherwise(call) if arguments is call.args else PROCEED
    address = _address(call, *arguments[1:3])
    if kind in DATAGRAM:
        sockets.datagram = True
        raise refuse(errno.EOPNOTSUPP)
    path = address[_FAMILY:].split(b"\0", 1)[0]
    if path:
        new = bound(call, path, lambda: sockets.listen_at(inode, _as_ours(call, path)))
    else:
        new = sockets.listen_at(inode, address)
    with new:
        _exchange(call, arguments[0], inode, new)
    return 0


def _as_ours(call: Call, path: bytes) -> bytes:
    """The address that this process says in place of the caller, from the caller's directory. It is kept as it is said:
    getsockname(2) shows it."""
    if path.startswith(b"/"):
        path = call.world.places.of_path(call.pid, AT_FDCWD, path).path
    return UNIX + path


def _connect(call: Call, arguments: tuple[int, ...]) -> int | None:
    sockets = call.world.sockets
    inode = inode_of(call.pid, arguments[0] & _ALL)
    kind = sockets.kind(inode)
    if inode is None or kind is None:
        return PROCEED  # no Unix socket, or one that is connected, or listens: no path is looked up for it
    address = _address(call, *arguments[1:3])
    if len(address) == _FAMILY:
        raise refuse(errno.EINVAL)
    path = address[_FAMILY:].split(b"\0", 1)[0]
    target = -1
    if path:
        target = _open(call, path)
        address = UNIX + b"/proc/self/fd/%d\0" % target
    try:
        new = sockets.successor(inode)
    except BaseException:
        if target >= 0:
            os.close(target)
        raise
    waiting = Waiting(call.number, inode, new, address, target)
    try:
        if kind in DATAGRAM:
            sockets.datagram = True
            raise refuse(errno.EPROTOTYPE)
        try:
            sockets.connect(new, address)
        except BlockingIOError:
            if _flags(call, arguments[0]) & os.O_NONBLOCK:
                raise
            waiting.descriptor, waiting.close_on_exec = arguments[0] & _ALL, bool(_flags(call, arguments[0]) & os.O_CLOEXEC)
            sockets.wait(waiting)
            return ANSWERED
        _exchange(call, arguments[0], inode, new)
    except BaseException:
        waiting.close()
        raise
    waiting.close()
    return 0


def _open(call: Call, path: bytes) -> int:
    """A descriptor of the socket at the path, if the RUN may connect to it. The kernel says whether: this process has the
    rights of the RUN, and to open a socket is refused (EACCES) before it turns out to be impossible (ENXIO)."""
    world = call.world
    place = world.places.of_path(call.pid, AT_FDCWD, path)
    world.guard.search(call.who, place, follow=True)
    target = os.open(place.path, os.O_PATH | os.O_CLOEXEC, dir_fd=place.dir_fd)
    try:
        held = Place(b"/proc/self/fd/%d" % target)
        file = world.files.look(held, follow=True)
        if not stat.S_ISSOCK(file.status.st_mode):
            raise refuse(errno.ECONNREFUSED)
        world.guard.use(call.who, file, WRITE)
        try:
            os.close(os.open(held.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
    except BaseException:
        os.close(target)
        raise
    return target


def _flags(call: Call, descriptor: int) -> int:
    with open(f"/proc/{call.pid}/fdinfo/{descriptor & _ALL}", "rb") as file:
        return next(int(line.split()[1], 8) for line in file if line.startswith(b"flags:"))


def _exchange(call: Call, descriptor: int, inode: int, new: socket.socket) -> None:
    flags = _flags(call, descriptor)
    new.setblocking(not flags & os.O_NONBLOCK)
    call.world.listener.replace(call.number, new.fileno(), descriptor & _ALL, close_on_exec=bool(flags & os.O_CLOEXEC))
    call.world.sockets.forget(inode)


def _socketcall(call: Call, otherwise: "Handler") -> int | None:
    """Of i386. The arguments are in memory, 32 bits each."""
    name = _SUBCALLS.get(call.args[0] & _ALL, "")
    if not name:
        return PROCEED
    arguments = struct.unpack("<4I", call.read(call.args[1], 16 if name == "socketpair" else 12).ljust(16, b"\0"))
    if name == "bind":
        return _bind(call, arguments, otherwise)
    return {"socket": _socket, "socketpair": _socketpair, "connect": _connect}[name](call, arguments)


def around(handlers: "Mapping[str, Handler]") -> "dict[str, Handler]":
    """The handlers, and those of sockets, which stand before that of bind(2)."""
    return {
        **handlers,
        "socket": lambda call: _socket(call, call.args),
        "socketpair": lambda call: _socketpair(call, call.args),
        "connect": lambda call: _connect(call, call.args),
        "bind": lambda call: _bind(call, call.args, handlers["bind"]),
        "socketcall": lambda call: _socketcall(call, handlers["bind"]),
    }
