"""The filter of system calls that every RUN has: run instruction by instruction, as the kernel would, and compared with those of
container runtimes."""

import errno
import json
from pathlib import Path

import pytest
from test_linux_seccomp import run

from kpy.linux import profile, syscalls
from kpy.linux.callnumbers import INTERFACES
from kpy.linux.seccomp import ALLOW, fail

KNOWN = json.loads((Path(__file__).parent / "profiles.json").read_text())
DENIED = {name for names in profile.DENIED.values() for name in names.split()}
WAYS = [
    pytest.param(machine, audit, numbers, id=f"{machine}-{audit:x}")
    for machine, interfaces in INTERFACES.items() for audit, numbers in interfaces
]  # fmt: skip
EACH = pytest.mark.parametrize(("machine", "audit", "numbers"), WAYS)
# What podman's profile says otherwise, and why ours is docker's there.
PODMAN_ALLOWS = {
    "it lets containers have containers in them, with user namespaces and mounts of their own": (
        "fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root setns umount umount2 unshare"
    ),
    "its flags are in memory: a user namespace could be made by it": "clone3",
    "no namespace has the kernel's keys": "keyctl",
    "it tells where memory is": "get_mempolicy mbind set_mempolicy",
    "it sees into other processes": "pidfd_getfd",
    "the kernel asks for a capability that RUN has not, and docker does not rely on that": "reboot syslog",
    "no C library of today calls it": "readdir sigaction signal sigpending sigsuspend",
}
PODMAN_DENIES = {
    "younger than its list": (
        "cachestat fchmodat2 futex_requeue futex_wait futex_waitv futex_wake getxattrat listmount listxattrat map_shadow_stack mseal "
        "removexattrat setxattrat statmount uretprobe"
    ),
    "docker has found no harm in it": "io_pgetevents io_pgetevents_time64 vmsplice",
}


def _allowed() -> set[str]:
    """Whatever the arguments."""
    known = {name for interfaces in INTERFACES.values() for _, numbers in interfaces for name in numbers}
    return {name for name in known - DENIED if profile.RULES.get(name, ((),))[-1] is not profile._ABSENT[0]}  # noqa: SLF001


def _list(name: str) -> set[str]:
    return set(" ".join(KNOWN[name]["allowed"]).split())


def _names(reasons: dict[str, str]) -> set[str]:
    return set(" ".join(reasons.values()).split())


def test_it_is_docker_s_default() -> None:
    known = {name for interfaces in INTERFACES.values() for _, numbers in interfaces for name in numbers}
    assert _allowed() == _list("docker") & known
    assert _list("docker") - known == {"riscv_hwprobe", "sync_file_range2"}  # of other machines
    assert sorted(profile.FAMILIES) == KNOWN["docker"]["families"]
    assert list(profile.PERSONALITIES) == KNOWN["docker"]["personalities"]


def test_what_podman_s_says_otherwise_has_a_reason() -> None:
    known = {name for interfaces in INTERFACES.values() for _, numbers in interfaces for name in numbers}
    assert _list("podman") & known - _allowed() == _names(PODMAN_ALLOWS)
    assert _allowed() - _list("podman") == _names(PODMAN_DENIES)


def test_what_is_denied_is_known_and_denied_once() -> None:
    known = {name for interfaces in INTERFACES.values() for _, numbers in interfaces for name in numbers}
    assert known >= DENIED
    assert len(DENIED) == sum(len(names.split()) for names in profile.DENIED.values())
    assert not DENIED & profile.RULES.keys()


@EACH
def test_every_number_gets_what_the_lists_say(machine: str, audit: int, numbers: dict[str, int]) -> None:
    program = profile.program(machine)
    names = {number: name for name, number in numbers.items()}
    for number in (*range(1200), *range(0xF0000, 0xF0010), 0x7FFFFFFF, 0xFFFFFFFF):
        name = names.get(number, "")
        expected = fail(errno.EPERM) if name in DENIED else ALLOW if name and name != "clone3" else fail(errno.ENOSYS)
        assert run(program, number, audit) == expected, (number, name)


@EACH
@pytest.mark.parametrize(
    ("name", "args", "refused"),
    [
        ("clone", (0x11,), False), ("clone", (0x3D0F00,), False), ("clone", (0x10000011,), True), ("clone", (0x00020000,), True),
        ("clone", (0x02000000,), True), ("clone", (0x04000000,), True), ("clone", (0x08000000,), True), ("clone", (0x20000000,), True),
        ("clone", (0x40000000,), True), ("clone", (0x01200011 | 1 << 40,), False),
        ("personality", (0,), False), ("personality", (8,), False), ("personality", (0xFFFFFFFF,), False), ("personality", (0x20008,), False),
        ("personality", (0x0040000,), True), ("personality", (0x0100000,), True), ("personality", (1,), True),
        *(("socket", (family, 1, 0), family not in KNOWN["docker"]["families"]) for family in range(64)),
        ("socket", (16, 3, 9), False), ("socket", (1 << 32 | 38, 1, 0), True), ("socket", (1 << 32 | 1, 1, 0), False), ("socket", (0xFFFFFFFF,), True),
    ],
)  # fmt: skip
def test_by_argument(machine: str, audit: int, numbers: dict[str, int], name: str, args: tuple[int, ...], refused: bool) -> None:
    assert run(profile.program(machine), numbers[name], audit, *args) == (fail(errno.EPERM) if refused else ALLOW)


def test_other_interfaces_fail() -> None:
    x86, arm = profile.program("x86_64"), profile.program("aarch64")
    assert run(x86, 0x40000000 | 39, syscalls.AUDIT_ARCH_X86_64) == fail(errno.ENOSYS)  # getpid of x32
    assert run(x86, 1, syscalls.AUDIT_ARCH_AARCH64) == fail(errno.ENOSYS)
    assert run(arm, 1, syscalls.AUDIT_ARCH_X86_64) == fail(errno.ENOSYS)
    assert profile.program("s390x") == b""


@pytest.mark.parametrize("arch", [syscalls.X86_64, syscalls.AARCH64, syscalls.I386], ids=lambda arch: arch.name)
def test_the_two_tables_of_numbers_agree(arch: syscalls.Arch) -> None:
    numbers = next(numbers for interfaces in INTERFACES.values() for audit, numbers in interfaces if audit == arch.audit)
    for name, number in arch.numbers.items():
        if number <= numbers["removexattrat"]:
            # The emulation calls those of 16 bits old_, and those of 32 by the name that they have elsewhere.
            theirs = name.removeprefix("old_") if name.startswith("old_") else name if numbers.get(name) == number else name + "32"
            assert numbers[theirs] == number, name


@EACH
def test_what_must_be_answered_by_an_emulation_reaches_it(machine: str, audit: int, numbers: dict[str, int]) -> None:
    """The kernel takes a refusal rather than a notification (seccomp(2)), so what root is told that it did is not refused here."""
    from kpy.emulation import filter as filters
    from kpy.linux.seccomp import NOTIFY

    answered = {name for name, rules in filters.RULES.items() if any(rule.action == NOTIFY for rule in rules)}
    assert {name for name in answered & numbers.keys() if run(profile.program(machine), numbers[name], audit) != ALLOW} == set()
