"""The least rate of an answer: time is that of a clock which only the peer moves."""

import io

import pytest

from kpy.util.pace import Pace, PacedReader, TooSlowError


class Peer(io.RawIOBase):
    """Gives pieces, each after so many seconds."""

    def __init__(self, *pieces: tuple[float, int]) -> None:
        self.now = 0.0
        self._pieces = iter(pieces)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        seconds, size = next(self._pieces, (0.0, 0))
        self.now += seconds
        buffer[:size] = bytes(size)
        return size

    def pace(self) -> Pace:
        return Pace(clock=lambda: self.now)


def whole(*pieces: tuple[float, int]) -> int:
    peer = Peer(*pieces)
    return len(io.BufferedReader(PacedReader(peer, peer.pace())).read())


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, 1)] + [(59, 1)] * 1000,  # every single read is in time
        [(119, 1), (119, 1)],
        [(0, 8000)] + [(1, 1)] * 200,  # first quick, then slow
        [(0.1, 1)] * 10_000,
    ],
)
def test_a_trickle_is_an_error(pieces: list[tuple[float, int]]) -> None:
    with pytest.raises(TooSlowError, match="less than 1024 bytes came in 60 seconds"):
        whole(*pieces)


@pytest.mark.parametrize(
    "pieces",
    [
        [(119, 300)],  # a server that works long, and then says little
        [(119, 5000), (30, 1000), (29, 500)],
        [(1, 100)] * 1000,
        [(0, 1)] + [(59, 1024)] * 100,
        [(1, 10), (119, 0)],  # it hung up late
        [],
    ],
)
def test_a_slow_answer_is_an_answer(pieces: list[tuple[float, int]]) -> None:
    assert whole(*pieces) == sum(size for _, size in pieces)


def test_our_own_time_is_not_the_peers() -> None:
    peer = Peer(*[(0, 10)] * 100)
    reader = PacedReader(peer, peer.pace())
    for _ in range(100):
        assert len(reader.read(10)) == 10
        peer.now += 3600


def test_a_tumbling_window_of_its_own() -> None:
    peer = Peer((0, 1), (1, 1), (1, 1))
    reader = PacedReader(peer, Pace(least=2, seconds=1, clock=lambda: peer.now))
    assert reader.read(1) == b"\0"
    with pytest.raises(TooSlowError, match="less than 2 bytes came in 1 seconds"):
        reader.read(1)
