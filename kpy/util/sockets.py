"""The sockets of HTTP connections, so that another thread can end a transfer that waits for its peer. Knows no HTTP."""

import errno
import os
import socket
import threading
import weakref
from collections.abc import Sequence
from typing import TypeAlias

from kpy.util import threads

_Address: TypeAlias = "tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]"


class Sockets:
    """Thread-safe. Once `abort` was called, what is open breaks and nothing new opens."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._aborted = False

    @property
    def aborted(self) -> bool:
        """Was `abort` called?"""
        return self._aborted

    def add(self, sock: socket.socket) -> None:
        """Know this one too. Raises OSError after `abort`."""
        with self._lock:
            if not self._aborted:
                self._open.add(sock)
                return
        sock.close()
        raise _aborted()

    def abort(self) -> None:
        """Shut all down: whoever reads, writes or connects gets an end or an OSError. Idempotent."""
        with self._lock:
            self._aborted = True
            self._lock.notify_all()
            known = list(self._open)
        for sock in known:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # unlike close, it wakes who waits in another thread
            except OSError:
                pass  # closed, or not connected any more

    def connect(self, host: str, port: int, timeout: float | None, options: Sequence[tuple[int, int, int | bytes]]) -> socket.socket:
        """A connected socket, to the first address of the host that answers. Raises OSError."""
        problem: OSError = OSError(errno.EADDRNOTAVAIL, "the name has no address")
        for family, kind, protocol, _, address in self._addresses(host.strip("[]"), port):
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:  # IPv6 where the kernel has none
                problem = error
                continue
            try:
                for option in options:
                    sock.setsockopt(*option)
                sock.settimeout(timeout)
                self.add(sock)
                sock.connect(address)
            except OSError as error:
                problem = error
                sock.close()
                if self._aborted:
                    break
                continue
            return sock
        raise problem

    def _addresses(self, host: str, port: int) -> "Sequence[_Address]":
        """In a thread: a name server that does not answer holds getaddrinfo(3), and all that its thread may do, for long."""
        found: list[Sequence[_Address]] = []
        failed: list[OSError] = []

        def ask() -> None:
            try:
                found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except OSError as error:
                failed.append(error)
            with self._lock:
                self._lock.notify_all()

        threads.start(ask, "kpy-name")
        with self._lock:
            self._lock.wait_for(lambda: found or failed or self._aborted)
        if failed:
            raise failed[0]
        if not found:
            raise _aborted()
        return found[0]


def _aborted() -> OSError:
    return OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
