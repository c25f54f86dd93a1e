"""socketfilter.py: the program by a small interpreter of it, so that every machine's is tested on each (R10)."""

import errno
import socket
import struct

import pytest

from kpy.linux import socketfilter

X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
ALLOWED, NO_FAMILY, NO_CALL = 0x7FFF0000, 0x50000 | errno.EAFNOSUPPORT, 0x50000 | errno.ENOSYS


def outcome(machine: str, architecture: int, number: int, argument: int = 0) -> int:
    """What the filter says to a system call: BPF as seccomp(2) lets it be, of which four instructions are used."""
    steps = list(struct.iter_unpack("<HBBI", socketfilter.program(machine)))
    data = struct.pack("<iIQ6Q", number, architecture, 0, argument, *[0] * 5)
    at = held = 0
    while True:
        code, if_true, if_false, value = steps[at]
        at += 1
        match code:
            case 0x20:
                (held,) = struct.unpack_from("<I", data, value)
            case 0x15:
                at += if_true if held == value else if_false
            case 0x35:
                at += if_true if held >= value else if_false
            case 0x06:
                return int(value)
            case _:
                pytest.fail(f"instruction {code:#x}")


@pytest.mark.parametrize(
    ("machine", "architecture", "create", "pair", "other"),
    [
        ("x86_64", X86_64, 41, 53, 42),
        ("x86_64", I386, 359, 360, 41),
        ("aarch64", AARCH64, 198, 199, 41),
        ("aarch64", ARM, 281, 288, 102),
    ],
)
def test_only_unix_sockets(machine: str, architecture: int, create: int, pair: int, other: int) -> None:
    for number in (create, pair):
        assert outcome(machine, architecture, number, socket.AF_UNIX) == ALLOWED
        for family in (0, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, 0xFFFFFFFF):
            assert outcome(machine, architecture, number, family) == NO_FAMILY
        # The kernel takes an int: what is above it does not count.
        assert outcome(machine, architecture, number, 7 << 32 | socket.AF_UNIX) == ALLOWED
        assert outcome(machine, architecture, number, 7 << 32 | socket.AF_INET) == NO_FAMILY
    assert outcome(machine, architecture, other, socket.AF_INET) == ALLOWED
    assert outcome(machine, architecture, 425) == NO_CALL, "io_uring makes sockets too"


def test_socketcall_of_i386() -> None:
    """Its family is in memory: making sockets is refused, the use of those there are is not."""
    for call, expected in ((1, NO_FAMILY), (8, NO_FAMILY), (2, ALLOWED), (3, ALLOWED), (20, ALLOWED)):
        assert outcome("x86_64", I386, 102, call) == expected


def test_no_other_way_in() -> None:
    assert outcome("x86_64", X86_64, 0x40000000 | 41, socket.AF_UNIX) == NO_CALL, "x32"
    assert outcome("x86_64", AARCH64, 198, socket.AF_UNIX) == NO_CALL
    assert outcome("aarch64", X86_64, 41, socket.AF_UNIX) == NO_CALL


def test_an_unknown_machine_has_none() -> None:
    assert socketfilter.program("mips") == b""
