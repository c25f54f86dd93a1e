"""Transfers that wait for their peer end when they are told to."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from kpy.util.cancel import Cancel
from kpy.util.sockets import Sockets


@pytest.fixture
def listening() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


def test_abort_wakes_who_reads_and_lets_nobody_in(listening: tuple[str, int]) -> None:
    sockets = Sockets()
    with sockets.connect(*listening, 60, []) as sock:
        threading.Timer(0.05, sockets.abort).start()
        began = time.monotonic()
        assert sock.recv(1) == b""
        assert time.monotonic() - began < 10
    assert sockets.aborted
    with pytest.raises(OSError, match="canceled"):
        sockets.connect(*listening, 60, [])
    sockets.abort()


def test_what_was_closed_is_no_problem(listening: tuple[str, int]) -> None:
    sockets = Sockets()
    sockets.connect(*listening, 60, [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]).close()
    sockets.abort()


def test_the_last_address_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with pytest.raises(ConnectionRefusedError):
        Sockets().connect(*address, 5, [])


def test_a_cancel_calls_those_who_asked() -> None:
    calls: list[str] = []
    with Cancel() as cancel:
        cancel.then(lambda: calls.append("before"))
        assert calls == []
        cancel.set()
        cancel.set()
        cancel.then(lambda: calls.append("after"))
    assert calls == ["before", "after"]
