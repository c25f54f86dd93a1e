"""seccomp.py and the emulation's filter: the program is run here, instruction by instruction, as the kernel would, for
every architecture, on calls that it must and must not let through."""

import errno
import struct

import pytest

from kpy.emulation import filter as filters
from kpy.emulation.loop import _tables
from kpy.linux.seccomp import ALLOW, NOTIFY, Argument, Rule, assemble, fail
from kpy.linux.syscalls import AARCH64, I386, X32_BIT, X86_64, Arch

ARCHES = [pytest.param(X86_64, id="x86_64"), pytest.param(AARCH64, id="aarch64")]
EITHER = pytest.mark.parametrize("arch", ARCHES)


def run(program: bytes, number: int, audit: int, *args: int) -> int:
    """What a classic BPF machine returns for this call (Documentation/networking/filter.rst)."""
    full = [*args, *[0] * (6 - len(args))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, audit, 0, *full)
    code = list(struct.iter_unpack("<HBBI", program))
    assert 0 < len(code) <= 4096
    accumulator = place = 0
    for _ in range(len(code)):
        operation, yes, no, value = code[place]
        place += 1
        if operation == 0x20:
            assert value % 4 == 0 and value < len(data)
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x06:
            return value
        elif operation == 0x05:
            place += value
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[operation]
            place += yes if holds else no
    raise AssertionError("it does not end")


@EITHER
def test_all_calls_get_what_the_table_says(arch: Arch) -> None:
    program = filters.watching(arch)
    for number in range(500):
        name = arch.named().get(number, "")
        rules = filters.RULES.get(name, ())
        plain = next((rule.action for rule in rules if not rule.tests), ALLOW)
        assert run(program, number, arch.audit) == plain, name


@EITHER
def test_what_is_watched_has_a_handler_and_the_reverse(arch: Arch) -> None:
    handled = {name for name, _ in _tables(X86_64)[X86_64.audit].values()}
    assert handled == {name for name in X86_64.numbers if _notifies(name)}
    assert {name for name, _ in _tables(arch)[arch.audit].values()} <= {name for name in arch.numbers if _notifies(name)}


def _notifies(name: str) -> bool:
    return any(rule.action == NOTIFY for rule in (*filters.RULES.get(name, ()), *filters.SOCKETS.get(name, ())))


@EITHER
@pytest.mark.parametrize(
    ("name", "args", "action"),
    [
        ("openat", (0, 0, 0), NOTIFY),
        ("faccessat", (0, 0, 4), NOTIFY),
        ("umask", (0o022,), ALLOW),
        ("umask", (0o277,), NOTIFY),
        ("prctl", (4, 0), fail(0)),
        ("prctl", (39,), fail(0)),
        ("prctl", (23, 1), NOTIFY),
        ("prctl", (15, 1), ALLOW),  # PR_SET_NAME
        ("prlimit64", (0, 10, 0, 1), ALLOW),  # it may look
        ("prlimit64", (0, 10, 1, 0), fail(0)),
        ("prlimit64", (0, 10, 1 << 40, 0), fail(0)),
        ("prlimit64", (0, 7, 1, 0), ALLOW),
        ("prlimit64", (5, 7, 1, 0), NOTIFY),
        ("prlimit64", (5, 10, 1, 0), fail(0)),
        ("sched_setscheduler", (0, 5), ALLOW),
        ("sched_setscheduler", (7, 5), NOTIFY),
        ("setpriority", (0, 0, 5), ALLOW),
        ("setpriority", (0, 7, 5), NOTIFY),
        ("setpriority", (2, 0, 5), NOTIFY),
        ("ioprio_set", (1, 0, 5), ALLOW),
        ("ioprio_set", (3, 0, 5), NOTIFY),
        ("setrlimit", (10, 1), fail(0)),
        ("setrlimit", (7, 1), ALLOW),
        ("getsockopt", (3, 1, 17), NOTIFY),
        ("getsockopt", (3, 6, 17), ALLOW),
        ("getsockopt", (3, 1, 4), ALLOW),
        ("socket", (16, 3, 9), fail(errno.EPROTONOSUPPORT)),
        ("socket", (16, 3, 0), ALLOW),
        ("io_uring_setup", (), fail(errno.ENOSYS)),
        ("seccomp", (), ALLOW),
        ("getuid", (), NOTIFY),
        ("execve", (), NOTIFY),
    ],
)  # fmt: skip
def test_by_argument(arch: Arch, name: str, args: tuple[int, ...], action: int) -> None:
    assert run(filters.watching(arch), arch.numbers[name], arch.audit, *args) == action


@EITHER
def test_attributes_are_not_asked_for_where_none_are_recorded(arch: Arch) -> None:
    program, every = filters.watching(arch, attributes=False), filters.watching(arch)
    for name, args, action in (
        ("flistxattr", (3, 0, 0), ALLOW), ("listxattr", (1, 2, 256), NOTIFY), ("fgetxattr", (3, 1, 2, 132), ALLOW),
        ("lgetxattr", (1, 2, 3, 0), NOTIFY), ("getxattr", (1, 2, 3, 24), NOTIFY), ("fsetxattr", (3, 1, 2, 20), NOTIFY),
    ):  # fmt: skip
        assert run(program, arch.numbers[name], arch.audit, *args) == action, name
        assert run(every, arch.numbers[name], arch.audit, *args) == NOTIFY, name


@EITHER
def test_sockets_are_looked_at_where_there_are_some_to_be_kept(arch: Arch) -> None:
    """What a RUN sends costs nothing, and neither do sockets of the internet until they are connected."""
    program, none = filters.watching(arch, sockets=True), filters.watching(arch)
    for name, args, action in (
        ("connect", (3, 1, 16), NOTIFY), ("socket", (1, 1, 0), NOTIFY), ("socket", (1, 0x80002, 0), NOTIFY), ("socket", (1 << 32 | 1, 1, 0), NOTIFY),
        ("socket", (2, 2, 0), ALLOW), ("socketpair", (1, 1, 0), ALLOW), ("socketpair", (1, 5, 0), ALLOW), ("socketpair", (1, 0x802, 0), NOTIFY),
        ("socketpair", (1, 3, 0), NOTIFY), ("getsockopt", (3, 1, 77), fail(errno.ENOPROTOOPT)),
    ):  # fmt: skip
        assert run(program, arch.numbers[name], arch.audit, *args) == action, name
        assert run(none, arch.numbers[name], arch.audit, *args) == ALLOW, name
    assert run(program, arch.numbers["socket"], arch.audit, 16, 3, 9) == fail(errno.EPROTONOSUPPORT)
    assert run(program, arch.numbers["getsockopt"], arch.audit, 3, 1, 17) == NOTIFY


def test_32_bit_programs_on_x86() -> None:
    program = filters.watching(X86_64)
    assert run(program, I386.numbers["getuid"], I386.audit) == NOTIFY
    assert run(program, I386.numbers["old_setuid"], I386.audit) == fail(0)
    assert run(program, 102, I386.audit) == ALLOW  # getuid of x86_64, socketcall here
    assert run(program, I386.numbers["open"], I386.audit, 0, 1) == NOTIFY
    keeping = filters.watching(X86_64, sockets=True)
    assert [run(keeping, 102, I386.audit, sub) == NOTIFY for sub in (1, 2, 3, 4, 8, 11, 16)] == [True, True, True, False, True, False, False]


def test_interfaces_that_nobody_answers_for_fail() -> None:
    for arch in (X86_64, AARCH64):
        program = filters.watching(arch)
        assert run(program, 1, 0x40000028) == fail(errno.ENOSYS)  # 32-bit ARM
    program = filters.watching(X86_64)
    assert run(program, X32_BIT | 1, X86_64.audit) == fail(errno.ENOSYS)
    assert run(program, -1, X86_64.audit) == fail(errno.ENOSYS)
    assert run(filters.watching(AARCH64), -1, AARCH64.audit) == ALLOW


@EITHER
@pytest.mark.parametrize("root", [True, False])
def test_without_a_listener(arch: Arch, root: bool) -> None:
    program = filters.forgetting(arch, root=root)
    assert run(program, arch.numbers["fchownat"], arch.audit) == fail(0)
    assert run(program, arch.numbers["setgroups"], arch.audit) == fail(0)
    assert run(program, arch.numbers["getuid"], arch.audit) == (fail(0) if root else ALLOW)
    assert run(program, arch.numbers["openat"], arch.audit, 0, 0, 0o101) == ALLOW


def test_rules_are_tried_in_order_and_all_tests_must_hold() -> None:
    rules = {
        "openat": (
            Rule(fail(1), Argument(0, "is", 5), Argument(1, "any", 6, high=1)),
            Rule(fail(2), Argument(0, "is", 5)),
        ),
        "nonesuch": (Rule(fail(3)),),
    }
    program = assemble(X86_64, rules)
    number = X86_64.numbers["openat"]
    assert run(program, number, X86_64.audit, 5, 4 << 32) == fail(1)
    assert run(program, number, X86_64.audit, 5, 6) == fail(2)
    assert run(program, number, X86_64.audit, 4, 6 << 32) == ALLOW


def test_distances_beyond_a_conditional_jump() -> None:
    rules = {name: tuple(Rule(fail(1), Argument(0, "is", value)) for value in range(3)) for name in X86_64.numbers}
    program = assemble(X86_64, rules)
    for name, number in X86_64.numbers.items():
        assert run(program, number, X86_64.audit, 2) == fail(1), name
        assert run(program, number, X86_64.audit, 3) == ALLOW, name


def test_no_number_is_given_twice() -> None:
    for arch in (X86_64, AARCH64, I386):
        assert len(arch.named()) == len(arch.numbers)
