"""The terminal of the builder's container, which a RUN finds as /dev/pts/0 and /dev/console: nothing of an image writes to
it past kpy. Those that a RUN makes (openpty) are its own."""

import fcntl
import os
import termios
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

_TIOCGEXCL = 0x80045440  # asm-generic/ioctls.h
_CONSOLE = "/dev/console"
_PSEUDO = range(136, 144)  # majors of what is in /dev/pts (Documentation/admin-guide/devices.txt)


@contextmanager
def exclusive() -> Iterator[None]:
    """Nobody can open them while the block runs, by whatever name (TIOCEXCL, ioctl_tty(2)): EBUSY, for root too, unless it
    has CAP_SYS_ADMIN, and only who has one open can undo it. Who has them open goes on."""
    with ExitStack() as stack:
        held = [number for number in (0, 1, 2) if _is_terminal(number)]
        with suppress(OSError):
            console = os.open(_CONSOLE, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            stack.callback(os.close, console)
            if _is_terminal(console):
                held.append(console)
        for number in held:
            if _is_open_to_all(number):
                with suppress(OSError):  # it was hung up
                    fcntl.ioctl(number, termios.TIOCEXCL)
                    stack.callback(_open_to_all, number)
        yield


def _is_terminal(number: int) -> bool:
    """Is it one of /dev/pts? Others are the machine's."""
    try:
        return os.isatty(number) and os.major(os.fstat(number).st_rdev) in _PSEUDO
    except OSError:
        return False


def _is_open_to_all(number: int) -> bool:
    """Or did somebody want it for itself?"""
    answer = bytearray(4)
    try:
        fcntl.ioctl(number, _TIOCGEXCL, answer)
    except OSError:
        return True
    return not int.from_bytes(answer, "little")


def _open_to_all(number: int) -> None:
    with suppress(OSError):
        fcntl.ioctl(number, termios.TIOCNXCL)
