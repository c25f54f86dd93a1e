"""The Unix sockets of a RUN that have no address yet, and stand in for those that it asked for (kpy.emulation.sockets says
why): makes them, and what takes their place. Knows no calls and no rights."""

import errno
import os
import socket
import struct

from kpy.linux import libc
from kpy.linux.seccomp import Listener
from kpy.linux.syscalls import Arch

TYPES = 0xF  # of the second argument of socket(2); the others are flags
DATAGRAM = (socket.SOCK_DGRAM, socket.SOCK_RAW)  # the second is the first (unix_create)
UNIX = struct.pack("=H", socket.AF_UNIX)
"""What the addresses begin with."""
_MOST_KNOWN, _MOST_HELD, _MOST_WAITING = 1 << 16, 64, 256
_BUFFERS = (socket.SO_SNDBUF, socket.SO_RCVBUF)
_FLAGS = (socket.SO_PASSCRED, socket.SO_PASSSEC)
_TIMES = (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)


class Sockets:
    """Those that have no address yet."""

    def __init__(self, listener: Listener, arch: Arch) -> None:
        self._listener = listener
        self._numbers = arch.numbers["connect"], arch.numbers["bind"]
        self._kinds: dict[int, int] = {}
        self._held: dict[int, socket.socket] = {}
        self.waiting: list[Waiting] = []
        """The calls that have not been answered."""
        self.datagram = False
        """Has somebody wanted to use a datagram socket?"""

    def kind(self, inode: int | None) -> int | None:
        """The type that was asked for; None if it is none of these."""
        return None if inode is None else self._kinds.get(inode)

    def make(self, kind: int, protocol: int) -> socket.socket:
        """One that has no address. The caller closes it."""
        asked = kind & TYPES
        new = socket.socket(socket.AF_UNIX, kind & ~TYPES | real(asked), protocol)
        try:
            self._bind(new, UNIX)
            new.listen(0)
            inode = os.fstat(new.fileno()).st_ino
            self._kinds[inode] = asked
            if len(self._kinds) > _MOST_KNOWN:
                del self._kinds[next(iter(self._kinds))]
            self._held[inode] = new.dup()  # for its options; that it stays open when the RUN has closed it, nobody sees
            if len(self._held) > _MOST_HELD:
                self._held.pop(next(iter(self._held))).close()
        except BaseException:
            new.close()
            raise
        return new

    def _bind(self, new: socket.socket, address: bytes) -> None:
        libc.syscall(self._numbers[1], "bind", new.fileno(), address, len(address))

    def connect(self, new: socket.socket, address: bytes) -> None:
        """As the system call."""
        libc.syscall(self._numbers[0], "connect", new.fileno(), address, len(address))

    def successor(self, inode: int) -> socket.socket:
        """One to take its place, with its options, which does not block."""
        new = socket.socket(socket.AF_UNIX, real(self._kinds[inode]) | socket.SOCK_NONBLOCK)
        old = self._held.get(inode)
        if old is not None:
            for option in _FLAGS:
                new.setsockopt(socket.SOL_SOCKET, option, old.getsockopt(socket.SOL_SOCKET, option))
            for option in _BUFFERS:
                size = old.getsockopt(socket.SOL_SOCKET, option)
                if size != new.getsockopt(socket.SOL_SOCKET, option):
                    new.setsockopt(socket.SOL_SOCKET, option, size // 2)  # the kernel doubles it
            for option in _TIMES:
                new.setsockopt(socket.SOL_SOCKET, option, old.getsockopt(socket.SOL_SOCKET, option, 16))
        return new

    def listen_at(self, inode: int, address: bytes) -> socket.socket:
        """A successor with this address. The caller closes it."""
        new = self.successor(inode)
        try:
            self._bind(new, address)
            new.listen(0)
        except BaseException:
            new.close()
            raise
        return new

    def forget(self, inode: int) -> None:
        """It has an address, and another is in its place."""
        self._kinds.pop(inode, None)
        if (held := self._held.pop(inode, None)) is not None:
            held.close()

    def wait(self, waiting: "Waiting") -> None:
        """Try again later to connect it: too many wait already at the other end. Raises OSError EAGAIN."""
        if len(self.waiting) >= _MOST_WAITING:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.waiting.append(waiting)

    def go_on(self) -> None:
        """Try those that wait. Raises nothing."""
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            try:
                if not self._listener.is_waiting(one.number):
                    one.close()
                elif not self._again(one):
                    self.waiting.append(one)
            except OSError as error:
                self._listener.answer(one.number, 0, error.errno or errno.EIO)
                self._listener.undelivered = None
                one.close()

    def _again(self, one: "Waiting") -> bool:
        try:
            self.connect(one.socket, one.address)
        except BlockingIOError:
            return False
        one.socket.setblocking(True)
        self._listener.replace(one.number, one.socket.fileno(), one.descriptor, close_on_exec=one.close_on_exec)
        self._listener.answer(one.number, 0, 0)
        self._listener.undelivered = None  # who is interrupted asks once more, and is told that it is connected
        self.forget(one.inode)
        one.close()
        return True

    def close(self) -> None:
        """All processes are gone."""
        for one in self.waiting:
            one.close()
        for held in self._held.values():
            held.close()


class Waiting:
    """A call of connect(2) that blocks its caller."""

    __slots__ = ("address", "close_on_exec", "descriptor", "inode", "number", "socket", "target")

    def __init__(self, number: int, inode: int, new: socket.socket, address: bytes, target: int) -> None:
        self.number = number
        self.inode = inode
        self.socket = new
        self.address = address
        self.target = target
        self.descriptor = -1
        self.close_on_exec = False

    def close(self) -> None:
        self.socket.close()
        if self.target >= 0:
            os.close(self.target)


def real(kind: int) -> int:
    """The type that is given to who asks for this one."""
    return int(socket.SOCK_SEQPACKET) if kind in DATAGRAM else kind
