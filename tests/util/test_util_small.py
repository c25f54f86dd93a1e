"""The small helpers: modes, paths, proxies, locks, readers, retries, the flag that ends work."""

import hashlib
import io
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.errors import InterruptedBuildError, StoreError
from kpy.util import http, paths
from kpy.util.cancel import Cancel
from kpy.util.locks import FileLock, is_held_above
from kpy.util.modes import parse_mode
from kpy.util.proxies import Proxies
from kpy.util.retry import Retry
from kpy.util.streams import HashingReader, TeeReader, drain


@pytest.mark.parametrize(
    ("text", "before", "is_dir", "after"),
    [
        ("755", 0o600, False, 0o755), ("0644", 0o777, True, 0o644), ("7777", 0, False, 0o7777), ("0", 0o777, False, 0),
        ("u+x", 0o644, False, 0o744), ("+x", 0o644, False, 0o755), ("a-w", 0o666, False, 0o444), ("u=rw,go=", 0o777, False, 0o600),
        ("u=rwX,go=rX", 0o600, False, 0o644), ("u=rwX,go=rX", 0o700, False, 0o755), ("a+X", 0o600, True, 0o711),
        ("g=u", 0o640, False, 0o660), ("o=g-w", 0o660, False, 0o664), ("u+s", 0o755, False, 0o4755), ("g+s,+t", 0o755, True, 0o3755),
        ("u=rwx", 0o4600, False, 0o700), ("g=rx", 0o2770, True, 0o750), ("o=t", 0o755, True, 0o750), ("+xt", 0o644, False, 0o1644),
        ("u=g", 0o4750, False, 0o4550), ("u=rg", 0o640, False, 0o440), ("a=,u=rw", 0o7777, True, 0o1600), ("=X", 0o6755, False, 0o111), ("u-X", 0o755, True, 0o655),
        ("=", 0o777, False, 0),
    ],
)  # fmt: skip
def test_c09_modes(text: str, before: int, is_dir: bool, after: int) -> None:
    assert oct(parse_mode(text).apply(before, is_dir=is_dir)) == oct(after)


@pytest.mark.parametrize("text", ["", "8", "77777", "u", "u=q", "x", "u=r,", "u=r w", "+-", "²", "755\n"])
def test_c09_what_is_no_mode(text: str) -> None:
    try:
        found = parse_mode(text)
    except ValueError:
        return
    assert text == "+-", found


@given(st.text(st.sampled_from("ugoarwxXst+-=,7"), max_size=8), st.integers(0, 0o7777), st.booleans())
def test_any_mode_stays_within_its_bits(text: str, mode: int, is_dir: bool) -> None:
    try:
        found = parse_mode(text)
    except ValueError:
        return
    assert 0 <= found.apply(mode, is_dir=is_dir) <= 0o7777


@given(st.text(st.sampled_from("a./"), max_size=12))
def test_cleaned_paths_stay_inside(path: str) -> None:
    found = paths.clean(path)
    assert not found.startswith("/")
    assert ".." not in found.split("/")
    assert paths.clean(found) == found


def test_files_are_opened_without_following(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x")
    (tmp_path / "l").symlink_to("d")
    (tmp_path / "d" / "s").symlink_to("f")
    os.mkfifo(tmp_path / "p")
    root = os.open(tmp_path, os.O_PATH)
    try:
        os.close(paths.open_file(root, "d/f"))
        for path in ("l/f", "d/s", "p", "d", "no", "../x", "d/../d/f"):
            with pytest.raises(OSError):
                os.close(paths.open_file(root, path))
    finally:
        os.close(root)


@pytest.mark.parametrize(
    ("no_proxy", "url", "used"),
    [
        ("", "http://a.b/", True), ("*", "http://a.b/", False), ("a.b", "http://a.b/", False), (".b", "http://a.b/", False),
        ("b", "http://a.b/", False), ("x.b", "http://a.b/", True), ("ab", "http://xab/", True), ("a.b:81", "http://a.b:80/", True),
        ("a.b:80", "http://a.b:80/", False), ("10.0.0.0/8", "http://10.1.2.3/", False), ("10.0.0.0/8", "http://11.1.2.3/", True),
        ("::1", "http://[::1]:5000/", False), ("A.B", "http://a.b/", False), (" x , a.b ", "http://a.b/", False),
        ("*.b", "http://a.b/", False), (",", "http://a.b/", True),
    ],
)  # fmt: skip
def test_n20_proxies(no_proxy: str, url: str, used: bool) -> None:
    assert bool(Proxies("http://p", "http://s", no_proxy).choose(url)) == used


def test_n20_each_scheme_has_its_own() -> None:
    proxies = Proxies("http://user:secret@p", "")
    assert proxies.choose("http://a/") == {"http": "http://user:secret@p"}
    assert proxies.choose("https://a/") == {}
    assert "secret" not in repr(proxies)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h/x?token=1&b#f", "https://h/x?token=…&b=…"),
        ("http://h:1/x", "http://h:1/x"),
        ("http://[bad/", "(invalid URL)"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert http.redact(url) == shown


@pytest.mark.parametrize("target", ["ftp://h/x", "file:///etc/passwd", "http://", "http://h:0/", "javascript:x"])
def test_redirects_go_to_http_only(target: str) -> None:
    with pytest.raises(ValueError):
        http.join("https://h/a/b", target)
    assert http.join("https://h/a/b", "../c?d#e") == "https://h/c?d"


def test_locks(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path, shared=True), FileLock(path, shared=True):
        with pytest.raises(StoreError, match="locked by another process"), FileLock(path, timeout=0):
            pass
    with FileLock(path), pytest.raises(StoreError), FileLock(path, shared=True, timeout=0.02):
        pass


def test_who_waits_for_a_lock_knows_whether_it_is_held_by_an_ancestor(tmp_path: Path) -> None:
    """A kpy in a RUN of a kpy would wait for the root that the outer one has, for ever."""
    ask = "import sys; from kpy.util.locks import is_held_above; print(is_held_above(sys.argv[1]))"

    def asked() -> str:
        command = ["/bin/sh", "-c", '"$@"; true', "sh", sys.executable, "-c", ask, str(tmp_path / "lock")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert asked() == "False"
    with FileLock(tmp_path / "lock"):
        assert asked() == "True"
        assert not is_held_above(tmp_path / "lock")  # by ourselves is not above
    assert asked() == "False"


def test_a_lock_is_handed_over(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with FileLock(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with FileLock(tmp_path / "lock"):
        thread.start()
        time.sleep(0.03)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_wait_for_a_lock_can_be_cancelled(tmp_path: Path) -> None:
    with Cancel() as cancel, FileLock(tmp_path / "lock"):
        cancel.set()
        with pytest.raises(InterruptedBuildError), FileLock(tmp_path / "lock", cancel=cancel):
            pass


def test_transient_locks_leave_nothing(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock", transient=True):
        assert (tmp_path / "lock").exists()
    assert not (tmp_path / "lock").exists()


def test_a_lock_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot lock"), FileLock(tmp_path / "no" / "lock"):
        pass


def test_the_flag() -> None:
    with Cancel() as cancel:
        assert not cancel.is_set
        assert not cancel.wait(0)
        cancel.check()
        assert select.select([cancel], [], [], 0)[0] == []
        cancel.set()
        cancel.set()
        assert cancel.wait(0)
        assert select.select([cancel], [], [], 0)[0] == [cancel]
        with pytest.raises(InterruptedBuildError):
            cancel.check()


def test_the_flag_set_after_its_end_is_written_nowhere() -> None:
    """A signal may come as late as that, and its descriptors may be another file's by then."""
    with Cancel() as cancel:
        pass
    read, write = os.pipe2(os.O_NONBLOCK)  # the lowest numbers that are free: those that it had
    try:
        cancel.set()
        assert cancel.is_set
        with pytest.raises(BlockingIOError):
            os.read(read, 1)
    finally:
        os.close(read)
        os.close(write)


def test_retries_wait_longer_and_longer() -> None:
    assert list(Retry(attempts=4, first=1, factor=3, longest=5).waits()) == [1, 3, 5]
    assert list(Retry(attempts=1).waits()) == []


@given(st.binary(max_size=50), st.integers(1, 9))
def test_readers(data: bytes, piece: int) -> None:
    aside = bytearray()
    counts: list[int] = []
    hasher = HashingReader(cast(BinaryIO, io.BytesIO(data)), hashlib.sha256())
    tee = TeeReader(cast(BinaryIO, hasher), aside.extend, counts.append)
    buffered = io.BufferedReader(tee, piece)
    first = buffered.read(piece)
    drain(buffered)
    assert bytes(aside) == data
    assert sum(counts) == len(data)
    assert first == data[:piece]
    assert hasher.hexdigest() == hashlib.sha256(data).hexdigest()
