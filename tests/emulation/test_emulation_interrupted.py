"""interrupted.py: the first answer is given to the same call made anew, and to no other."""

import os

import pytest

from kpy.emulation.interrupted import Interrupted


class FakeListener:
    """Delivers nothing while `away`."""

    def __init__(self) -> None:
        self.undelivered: tuple[int, int, bool] | None = None
        self.away = False
        self.said: list[tuple[object, ...]] = []

    def answer(self, number: int, value: int, error: int) -> None:
        self.said.append((number, value, error))
        if self.away:
            self.undelivered = value, -1, False

    def give(self, number: int, descriptor: int, *, close_on_exec: bool) -> None:
        self.said.append((number, os.fstat(descriptor).st_ino, close_on_exec))
        if self.away:
            self.undelivered = 0, os.dup(descriptor), close_on_exec


@pytest.fixture
def listener() -> FakeListener:
    return FakeListener()


@pytest.fixture
def interrupted(listener: FakeListener) -> Interrupted:
    return Interrupted(listener)  # type: ignore[arg-type]


def test_the_same_call_gets_the_answer_once(listener: FakeListener, interrupted: Interrupted) -> None:
    listener.undelivered = 5, -1, False
    interrupted.keep(9, 83, (1, 2))
    assert not interrupted.again(1, 10, 83, (1, 2))  # another process
    assert interrupted.again(2, 9, 83, (1, 2))
    assert not interrupted.again(3, 9, 83, (1, 2))
    assert listener.said == [(2, 5, 0)]
    assert not interrupted.calls


def test_another_call_in_between_and_it_is_forgotten(listener: FakeListener, interrupted: Interrupted) -> None:
    for call in ((84, (1, 2)), (83, (1, 3))):
        listener.undelivered = 0, -1, False
        interrupted.keep(9, 83, (1, 2))
        assert not interrupted.again(1, 9, *call)
        assert not interrupted.again(2, 9, 83, (1, 2))
    assert listener.said == []


def test_it_may_be_interrupted_again(listener: FakeListener, interrupted: Interrupted) -> None:
    read, write = os.pipe()
    inode, before = os.fstat(read).st_ino, len(os.listdir("/proc/self/fd"))
    listener.undelivered = 0, os.dup(read), True
    interrupted.keep(9, 257, (1,))
    listener.away = True
    assert interrupted.again(1, 9, 257, (1,))
    assert interrupted.again(2, 9, 257, (1,))
    listener.away = False
    assert interrupted.again(3, 9, 257, (1,))
    assert listener.said == [(1, inode, True), (2, inode, True), (3, inode, True)]
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(read)
    os.close(write)


def test_of_many_that_never_come_back_no_descriptors_are_kept(listener: FakeListener, interrupted: Interrupted) -> None:
    read, write = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    for pid in range(200):
        listener.undelivered = 0, os.dup(read), True
        interrupted.keep(pid, 257, (1,))
    assert len(os.listdir("/proc/self/fd")) < before + 100
    interrupted.close()
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(read)
    os.close(write)
