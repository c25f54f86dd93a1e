"""seccomp.Listener against the kernel, with processes of its own, and where the kernel is older or a signal comes."""

import errno
import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kpy.linux.seccomp import Listener

# A process asks to open a file, the second answers with a descriptor, and the third answers the second's ioctl calls,
# by another listener: where ADDFD_SEND is asked for, as a kernel before 5.14, and lets the kernel make the others.
BEFORE_5_14 = r"""
import array, errno, os, socket, struct, sys
from kpy.linux import seccomp
from kpy.linux.seccomp import NOTIFY, Argument, Rule
from kpy.linux.syscalls import Arch, native

ADDFD = 0x40182103
arch = native()
arch = Arch(arch.name, arch.audit, arch.stat, f"seccomp {arch.numbers['seccomp']} openat {arch.numbers['openat']} "
            f"ioctl {dict(x86_64=16, aarch64=29)[arch.name]}")

def watched(name, channel, *tests):
    seccomp.no_new_privs()
    listener = seccomp.install_with_listener(seccomp.assemble(arch, {name: [Rule(NOTIFY, *tests)]}), arch)
    channel.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
    os.close(listener)

def listener_of(channel):
    _, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(4))
    return seccomp.Listener(array.array("i", ancillary[0][2])[0])

def asks(channel):
    watched("openat", channel)
    os._exit(os.read(os.open("/nowhere", os.O_RDONLY), 9) != b"given" or os.read(os.open("/nowhere", os.O_RDONLY), 9) != b"given")

def answers(channel):
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        asks(theirs)
    listener = listener_of(ours)
    watched("ioctl", channel, Argument(1, "is", ADDFD))
    for _ in range(2):
        read, write = os.pipe()
        os.write(write, b"given")
        number, = struct.unpack_from("<Q", listener.receive())
        listener.give(number, read, close_on_exec=False)
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]) or listener.undelivered is not None)

ours, theirs = socket.socketpair()
if (child := os.fork()) == 0:
    answers(theirs)
listener = listener_of(ours)
asked = []
while len(asked) < 3:
    fields = struct.unpack("<QIIiIQ6Q", listener.receive())
    with open(f"/proc/{child}/mem", "rb", buffering=0) as memory:
        memory.seek(fields[8])
        asked.append(struct.unpack("<QIIII", memory.read(24))[1])
    if asked[-1] & 2:
        listener.answer(fields[0], 0, errno.EINVAL)
    else:
        listener.proceed(fields[0])
print(asked, os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_descriptors_are_given_by_kernels_before_5_14() -> None:
    """Without ADDFD_SEND; it is tried once."""
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_5_14], capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.stdout == "[2, 0, 0] 0\n", done.stderr


def _failing(monkeypatch: pytest.MonkeyPatch, *errors: int) -> list[int]:
    """ioctl raises these, one after the other, and then gives 7."""
    left = list(errors)

    def ioctl(_descriptor: int, request: int, _argument: object) -> int:
        if left:
            number = left.pop(0)
            raise OSError(number, "no")
        return 7

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    return left


@pytest.mark.parametrize(
    "use",
    [
        lambda listener: listener.answer(1, 0, 0),
        lambda listener: listener.proceed(1),
        lambda listener: listener.give(1, 0, close_on_exec=True),
        lambda listener: listener.replace(1, 0, 3, close_on_exec=True),
        lambda listener: listener.is_waiting(1),
    ],
)
def test_a_signal_to_us_loses_no_answer(monkeypatch: pytest.MonkeyPatch, use: Callable[[Listener], object]) -> None:
    """EINTR of the kernel's lock: the caller would wait forever, or be told EINTR by a call that never gives that."""
    _failing(monkeypatch)
    listener = Listener(0)
    left = _failing(monkeypatch, errno.EINTR, errno.EINTR)
    use(listener)
    assert (left, listener.undelivered) == ([], None)


def test_what_was_not_delivered_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch)
    listener = Listener(0)
    _failing(monkeypatch, errno.ENOENT, errno.ENOENT, errno.ENOENT)
    listener.answer(1, 0, errno.EPERM)
    assert listener.undelivered is None  # who asks again is told again
    listener.answer(1, 5, 0)
    assert listener.undelivered == (5, -1, False)
