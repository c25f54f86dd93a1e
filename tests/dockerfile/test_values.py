"""Ports, signals, durations, sizes (I04, I05, I09, R16)."""

import pytest

from kpy.dockerfile.durations import parse_duration
from kpy.dockerfile.expose import check_signal, parse_ports
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.mounts import parse_size


def test_ports() -> None:
    assert parse_ports(["8000", "53/UDP", "7000-7002/sctp", "80/", "127.0.0.1:80:81", "8080:82", "[::1]:1:83"]) == (
        "8000/tcp", "53/udp", "7000/sctp", "7001/sctp", "7002/sctp", "80/tcp", "81/tcp", "82/tcp", "83/tcp",
    )  # fmt: skip


@pytest.mark.parametrize(
    "word", ["http", "80/tpc", "65536", "2-1", "1-2-3", "-1", "", "/tcp", "80:", "x:80", "1.2.3:1:2", "1-2:3-5", "٣", "1" * 99]
)  # fmt: skip
def test_bad_ports(word: str) -> None:
    with pytest.raises(FormError, match="invalid"):
        parse_ports([word])


@pytest.mark.parametrize("text", ["SIGTERM", "term", "9", "SIGRTMIN+3", "rtmax-1", "64", "-1", "+9", "100"])
def test_signals(text: str) -> None:
    assert check_signal(text) == text


@pytest.mark.parametrize("text", ["SIGNONSENSE", "0", "-0", "+", "", "SIG", "RTMIN+16", "SIGTREM"])
def test_bad_signals(text: str) -> None:
    with pytest.raises(FormError, match="invalid signal"):
        check_signal(text)


def test_signal_of_two_lines_is_one_line_of_error() -> None:
    """Found by fuzzing; a value of --build-arg may hold line feeds."""
    with pytest.raises(FormError, match=r"invalid signal: 'a\\nb'"):
        check_signal("a\nb")


def test_durations() -> None:
    second = 10**9
    assert parse_duration("1h30m") == 5400 * second
    assert parse_duration("1.5s") == 1500000000
    assert parse_duration(".5ms") == 500000
    assert parse_duration("0") == 0
    assert parse_duration("-1s") == -second
    assert parse_duration("1µs1us1ns") == 2001
    for text in ("", "1", "s", "1x", "1s ", ".s", "--1s", "99999999h", "1" * 50 + "s"):
        with pytest.raises(FormError, match="invalid duration"):
            parse_duration(text)


def test_sizes() -> None:
    assert [parse_size(text) for text in ("100", "64m", "1.5GiB", "1 kB", "0")] == [100, 64 << 20, 3 << 29, 1024, 0]
    for text in ("", "m", "-1", "1x", "9999999999999t"):
        with pytest.raises(FormError, match="invalid value for size"):
            parse_size(text)
