"""seccomp: filters as data, and the calls that install one and answer its notifications. Knows no policy.

A filter is a table from the name of a system call to its rules; `assemble` makes a classic BPF program of it for one
architecture and those that are compatible with it (seccomp(2), Documentation/userspace-api/seccomp_filter.rst).
"""

import ctypes
import errno
import fcntl
import os
import signal
import struct

from kpy.linux import libc
from kpy.linux.syscalls import AUDIT_ARCH_X86_64, X32_BIT, Arch, compatible

TYPE_CHECKING = False  # as mypy knows it; importing typing takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ALLOW = 0x7FFF0000
NOTIFY = 0x7FC00000

PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_NEW_LISTENER = 8
_WAIT_KILLABLE_RECV = 32
_SPEC_ALLOW = 4

_RECV, _SEND, _ID_VALID, _ADDFD, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103, 0x40082104
_SYNC_WAKE_UP = 1
_CONTINUE = 1
_ADDFD_SET, _ADDFD_SEND = 1, 2
_SIGNALS = (signal.SIGALRM, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)  # those that a supervisor has handlers for
NOTIFICATION_SIZE = 80
_RESPONSE = struct.Struct("<QqiI")  # struct seccomp_notif_resp: id, val, error, flags
_respond = _RESPONSE.pack_into

# BPF instructions (linux/bpf_common.h): load an absolute word, jumps against a constant, return a constant
_LD, _JA, _JEQ, _JGE, _JSET, _RET = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
_TESTS = {"any": _JSET, "is": _JEQ, "least": _JGE}
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data


def fail(number: int) -> int:
    """The action of a call that is not made: it returns -1 with this errno, or 0 for `fail(0)`."""
    return 0x00050000 | number


class Argument:
    """A test of the low or high 32 bits of an argument. "any": has it any of the bits? "is": does it equal them? "least": is it
    that or more?"""

    __slots__ = ("argument", "bits", "high", "how")

    def __init__(self, argument: int, how: str, bits: int, high: int = 0) -> None:
        self.argument = argument
        self.how = how
        self.bits = bits
        self.high = high


class Rule:
    """An action, if all tests hold. The first rule of a call that holds decides; a call that none holds for is made."""

    __slots__ = ("action", "tests")

    def __init__(self, action: int, *tests: Argument) -> None:
        self.action = action
        self.tests = tests


class _Program:
    """BPF with labels. Conditional jumps reach only 255 instructions: each is made of one over a long jump."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int | str]] = []
        self._labels: dict[str, int] = {}
        self._made = 0

    def fresh(self) -> str:
        self._made += 1
        return f"label {self._made}"

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def load(self, offset: int) -> None:
        self._code.append((_LD, 0, 0, offset))

    def give(self, action: int) -> None:
        self._code.append((_RET, 0, 0, action))

    def jump(self, label: str) -> None:
        self._code.append((_JA, 0, 0, label))

    def jump_if(self, operation: int, value: int, label: str) -> None:
        self._code.append((operation, 0, 1, value))
        self.jump(label)

    def jump_unless(self, operation: int, value: int, label: str) -> None:
        self._code.append((operation, 1, 0, value))
        self.jump(label)

    def bytes(self) -> bytes:
        lines = []
        for place, (code, yes, no, value) in enumerate(self._code):
            number = self._labels[value] - place - 1 if isinstance(value, str) else value
            lines.append(struct.pack("<HBBI", code, yes, no, number))
        return b"".join(lines)


def assemble(arch: Arch, rules: "Mapping[str, Sequence[Rule]]") -> bytes:
    """The program for `arch`. Names that an interface lacks are no rules there. Calls of unknown architectures fail,
    for nothing of what they do would be answered; those of x32, which differ from x86_64 in a bit, too."""
    program = _Program()
    program.load(_ARCH)
    interfaces = (arch, *compatible(arch))
    for interface in interfaces:
        program.jump_if(_JEQ, interface.audit, interface.name)
    program.give(fail(errno.ENOSYS))
    for interface in interfaces:
        program.label(interface.name)
        program.load(_NR)
        if interface.audit == AUDIT_ARCH_X86_64:
            proceed = program.fresh()
            program.jump_unless(_JGE, X32_BIT, proceed)
            program.give(fail(errno.ENOSYS))
            program.label(proceed)
        numbered = sorted((interface.numbers[name], rules[name]) for name in rules if name in interface.numbers)
        _search(program, numbered)
    return program.bytes()


Segments = list[tuple[int, tuple[Rule, ...]]]
"""In order: a number of a call, and the rules for it and those above, up to the next. The last of the rules has no tests."""


def assemble_segments(interfaces: "Sequence[tuple[int, Segments]]") -> bytes:
    """The program that has something to say of every call, by interface as the audit names it, the most used first. Calls of
    others fail. Runs of calls that are treated alike are one segment, and found by a binary search; the kernel finds out
    which are always allowed and does not ask the program for them (since 5.11, seccomp_cache_prepare in kernel/seccomp.c)."""
    program = _Program()
    program.load(_ARCH)
    for audit, _ in interfaces:
        program.jump_if(_JEQ, audit, f"interface {audit}")
    program.give(fail(errno.ENOSYS))
    for audit, segments in interfaces:
        program.label(f"interface {audit}")
        program.load(_NR)
        _find(program, segments)
    return program.bytes()


def _find(program: _Program, segments: Segments) -> None:
    if len(segments) == 1:
        for rule in segments[0][1]:
            _apply(program, rule)
        return
    middle = len(segments) // 2
    upper = program.fresh()
    program.jump_if(_JGE, segments[middle][0], upper)
    _find(program, segments[:middle])
    program.label(upper)
    _find(program, segments[middle:])


def _search(program: _Program, numbered: "Sequence[tuple[int, Sequence[Rule]]]") -> None:
    """A binary search: every call that a process makes goes through this."""
    if len(numbered) == 0:
        program.give(ALLOW)
    elif len(numbered) == 1:
        number, rules = numbered[0]
        other = program.fresh()
        program.jump_unless(_JEQ, number, other)
        for rule in rules:
            _apply(program, rule)
        program.label(other)
        program.give(ALLOW)
    else:
        middle = len(numbered) // 2
        upper = program.fresh()
        program.jump_if(_JGE, numbered[middle][0], upper)
        _search(program, numbered[:middle])
        program.label(upper)
        _search(program, numbered[middle:])


def _apply(program: _Program, rule: Rule) -> None:
    following = program.fresh()
    for test in rule.tests:
        program.load(_ARGS + 8 * test.argument + 4 * test.high)  # little-endian: the low word is first
        program.jump_unless(_TESTS[test.how], test.bits, following)
    program.give(rule.action)
    program.label(following)


def no_new_privs() -> None:
    """Give up what programs could win by set-id bits; the kernel asks it of those who install a filter."""
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)


def install(program: bytes, arch: Arch, flags: int = 0) -> int:
    """seccomp(2): filter this thread and all that comes of it. With a listener's flag, the listener."""
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP" if struct.calcsize("P") == 8 else "HxxP", len(program) // 8, ctypes.addressof(code))
    return libc.syscall(arch.numbers["seccomp"], "seccomp", _SET_MODE_FILTER, flags, header)


def install_lasting(program: bytes, arch: Arch) -> None:
    """Install one that is there for all that a process does. Before 5.16 kernels slow down every filtered process, for the
    sake of those that run several users' programs in one memory; what comes of a RUN is a process each (SPEC_ALLOW, 4.17)."""
    try:
        install(program, arch, _SPEC_ALLOW)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        install(program, arch)


def is_there(arch: Arch) -> bool:
    """Has this kernel filters of system calls, whoever may install one (since 4.14)?"""
    try:
        libc.syscall(arch.numbers["seccomp"], "seccomp", _GET_ACTION_AVAIL, 0, struct.pack("I", ALLOW))
    except OSError as error:
        return error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
    return True


def install_with_listener(program: bytes, arch: Arch) -> int:
    """Install it and give the listener. Raises OSError: EBUSY if a filter that is on this process has one already.

    WAIT_KILLABLE_RECV (5.19): a call that is being answered is not interrupted by signals, else the many signals of
    Go's scheduler make it start anew, forever perhaps.
    """
    try:
        return install(program, arch, _NEW_LISTENER | _WAIT_KILLABLE_RECV)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return install(program, arch, _NEW_LISTENER)


class Listener:
    """The end of a filter's notifications. Not thread-safe: one buffer for all."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._buffer = bytearray(NOTIFICATION_SIZE)
        self._empty = bytes(NOTIFICATION_SIZE)
        # Of bytes, fcntl.ioctl first makes the text of an error that nobody sees, which takes longer than the call.
        self._response = bytearray(_RESPONSE.size)
        self._adds_and_sends = True
        self.undelivered: tuple[int, int, bool] | None = None
        """What a call was to return that its caller does not wait in any more: as `answer` or, if the second is not -1,
        as a descriptor of ours, as `give`. Whoever reads it sets it to None, and closes the descriptor."""
        self.synchronous = True
        try:
            # 6.6. The answering process runs on the asking one's CPU, at once: 4-10 times faster (EXECUTION B3)
            fcntl.ioctl(descriptor, _SET_FLAGS, _SYNC_WAKE_UP)
        except OSError:
            self.synchronous = False

    def receive(self) -> bytearray:
        """The next notification (struct seccomp_notif); waits for it. The buffer is reused. Raises FileNotFoundError
        if the caller has been killed before it could be read, and InterruptedError after a signal's handler."""
        self._buffer[:] = self._empty  # the kernel insists
        fcntl.ioctl(self.descriptor, _RECV, self._buffer)
        return self._buffer

    def answer(self, number: int, value: int, error: int) -> None:
        """Return `value`, or -1 with `error` as errno. A caller that is gone is no error."""
        _respond(self._response, 0, number, value, -error, 0)
        if not self._send() and not error:
            self.undelivered = value, -1, False

    def proceed(self, number: int) -> None:
        """Let the kernel make the call as if there were no filter."""
        _respond(self._response, 0, number, 0, 0, _CONTINUE)
        self._send()

    def _send(self) -> bool:
        try:
            fcntl.ioctl(self.descriptor, _SEND, self._response)
        except InterruptedError:  # a signal of ours while another had the kernel's lock: the caller still waits
            return self._send()
        except OSError:
            return False  # ENOENT: the caller was killed or, before 5.19, interrupted
        return True

    def give(self, number: int, descriptor: int, *, close_on_exec: bool) -> None:
        """Return a copy of our descriptor. Raises OSError, EMFILE say, and then the call is not yet answered."""
        flags = 0o2000000 if close_on_exec else 0
        if self._adds_and_sends:
            try:
                self._add(struct.pack("<QIIII", number, _ADDFD_SEND, descriptor, 0, flags))
                return
            except FileNotFoundError:
                self.undelivered = 0, os.dup(descriptor), close_on_exec
                return
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._adds_and_sends = False  # before 5.14 there was no way to do both at once
        self.answer(number, self._add(struct.pack("<QIIII", number, 0, descriptor, 0, flags)), 0)

    def put(self, number: int, descriptor: int, *, close_on_exec: bool) -> int:
        """Give the caller a copy of our descriptor, and say which it is there. The call is not yet answered."""
        return self._add(struct.pack("<QIIII", number, 0, descriptor, 0, 0o2000000 if close_on_exec else 0))

    def replace(self, number: int, descriptor: int, target: int, *, close_on_exec: bool) -> None:
        """Put a copy of our descriptor in the place of the caller's own. The call is not yet answered."""
        flags = 0o2000000 if close_on_exec else 0
        self._add(struct.pack("<QIIII", number, _ADDFD_SET, descriptor, target, flags))

    def _add(self, request: bytes) -> int:
        """Waits for the caller to take the descriptor. Without signals: one that came in between would end the wait
        with the answer given and the descriptor not (seccomp_notify_addfd in kernel/seccomp.c)."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            return int(fcntl.ioctl(self.descriptor, _ADDFD, bytearray(request)))  # of bytes, ioctl gives no number
        except InterruptedError:  # another signal
            return self._add(request)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def is_waiting(self, number: int) -> bool:
        """Is the caller still there? If so, whatever was opened by its pid before was its own and not a successor's."""
        try:
            fcntl.ioctl(self.descriptor, _ID_VALID, struct.pack("<Q", number))
        except InterruptedError:
            return self.is_waiting(number)
        except FileNotFoundError:
            return False
        return True
