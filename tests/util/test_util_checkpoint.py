"""Work that can be told to end: in loops, threads, pools, and while it waits for pipes and programs."""

import io
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from kpy.errors import InterruptedBuildError
from kpy.util import erase, fs, threads, waiting
from kpy.util.cancel import Cancel
from kpy.util.checkpoint import Shielded, checked, checkpoint
from kpy.util.locks import FileLock
from kpy.util.sockets import Sockets
from kpy.util.streams import pieces


def test_nothing_ends_what_has_no_flag() -> None:
    with Cancel() as other:
        other.set()
    checkpoint()
    assert list(checked([1, 2])) == [1, 2]


def test_loops_end() -> None:
    with Cancel() as cancel:
        left = pieces(io.BytesIO(b"x" * 9), 4)
        assert next(left) == b"xxxx"
        cancel.set()
        for work in (left, checked(iter(int, 1))):
            with pytest.raises(InterruptedBuildError):
                next(iter(work))
        with Shielded():
            assert b"".join(pieces(io.BytesIO(b"all"))) == b"all"
        with pytest.raises(InterruptedBuildError):
            checkpoint()
    checkpoint()


def test_threads_and_pools_end_with_who_started_them() -> None:
    ended: list[bool] = []

    def work() -> None:
        try:
            while True:
                checkpoint()
        except InterruptedBuildError:
            ended.append(True)
            raise

    with Cancel() as cancel:
        thread = threads.start(lambda: pytest.raises(InterruptedBuildError, work), "x")
        with threads.Pool(2) as pool:
            found = [pool.submit(work) for _ in range(2)]
            cancel.set()
            assert [type(one.exception(5)) for one in found] == [InterruptedBuildError] * 2
        thread.join(5)
    assert ended == [True] * 3


def test_what_a_pool_has_not_begun_ends_with_an_error() -> None:
    done: list[int] = []
    with pytest.raises(ZeroDivisionError), threads.Pool(1) as pool:
        for number in range(100):
            pool.submit(lambda number=number: (time.sleep(0.01), done.append(number)))
        raise ZeroDivisionError
    assert len(done) < 5


def ends(cancel: Cancel, work: Callable[[], object]) -> None:
    threading.Timer(0.2, cancel.set).start()
    start = time.monotonic()
    with pytest.raises(InterruptedBuildError):
        work()
    assert time.monotonic() - start < 5


def test_pipes() -> None:
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as reader, open(write, "wb"), Cancel() as cancel:
        ends(cancel, lambda: waiting.source(cast(io.BufferedReader, reader)).read(1))


def test_what_goes_through_pipes_is_whole() -> None:
    read, write = os.pipe()
    data = os.urandom(1 << 20)
    with open(read, "rb", buffering=0) as reader, open(write, "wb") as writer:

        def send() -> None:
            writer.write(data)
            writer.close()

        thread = threads.start(send, "x")
        assert waiting.source(cast(io.BufferedReader, reader)).read() == data
        thread.join()


def test_programs() -> None:
    assert waiting.run(["cat"], 5, b"x" * 200_000).stdout == b"x" * 200_000
    assert waiting.run(["sh", "-c", "sleep 0.3; cat"], 5, b"late").stdout == b"late"
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.run(["sleep", "9"], 0.2)
    with Cancel() as cancel:
        ends(cancel, lambda: waiting.run(["sleep", "9"], 9))


def test_locks(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock"), Cancel() as cancel:
        ends(cancel, lambda: FileLock(tmp_path / "lock").__enter__())


def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answer.wait(20))
    sockets = Sockets()
    threading.Timer(0.2, sockets.abort).start()
    with pytest.raises(OSError, match="[Cc]ancel"):
        sockets.connect("slow.example", 80, None, [])
    answer.set()


@pytest.mark.parametrize("hurried", [False, True])
@pytest.mark.parametrize("remove", [lambda path, look: erase.remove(str(path), look=look), lambda path, look: fs.remove_tree(path, look=look)])
def test_what_the_next_build_removes_as_well_is_left_to_it(tmp_path: Path, remove: Callable[..., None], hurried: bool) -> None:  # noqa: FBT001
    for number in range(30):
        (tmp_path / "tree" / str(number)).mkdir(parents=True)
    with Cancel() as cancel:
        cancel.hurried = hurried
        cancel.set()
        if hurried:
            with pytest.raises(erase.LeftError):
                remove(tmp_path / "tree", erase.in_time(0))
        else:
            remove(tmp_path / "tree", erase.in_time(0))
    assert (tmp_path / "tree").exists() == hurried
