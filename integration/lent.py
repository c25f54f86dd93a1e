"""What a RUN may find of others in the container that it shares with its builder, and leave there. Standard library only.

    lent.py make|see|write KEY
"""

import ctypes
import errno
import os
import pty
import sys

_libc = ctypes.CDLL(None, use_errno=True)
CREATE, READ = 0o1000, 0o444


def _make(key: int) -> None:
    mode = CREATE | 0o600
    for name, answer in (
        ("shm", _libc.shmget(key, 4096, mode)), ("sem", _libc.semget(key, 1, mode)), ("msg", _libc.msgget(key, mode)),
        ("queue", _libc.mq_open(b"/kpy-%x-%d" % (key, os.getuid()), os.O_CREAT | os.O_RDWR, 0o600, None)),
    ):  # fmt: skip
        print("made" if answer >= 0 else errno.errorcode[ctypes.get_errno()], name, flush=True)


def _see(key: int) -> None:
    for kind in ("shm", "sem", "msg"):
        with open(f"/proc/sysvipc/{kind}", encoding="ascii") as file:
            keys = [int(line.split()[0]) for line in list(file)[1:]]
        print("seen", kind, keys.count(key), keys.count(key + 1), flush=True)
    print("seen queue", *os.listdir("/dev/mqueue"), flush=True)


def _write() -> None:
    """To the terminals of others, and to the message of the container; and to a terminal of one's own."""
    for path in ("/dev/console", "/dev/pts/0", "/dev/tty", "/proc/self/fd/0", "/dev/termination-log"):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY)
            print("opened", path, flush=True)
            if path != "/proc/self/fd/0":
                os.write(descriptor, b"forged")
            os.close(descriptor)
        except OSError as error:
            print(errno.errorcode[error.errno or 0], path, flush=True)
    for change in (lambda path: os.truncate(path, 0), os.unlink, lambda path: os.rename("/tmp/x", path)):  # noqa: S108
        with open("/tmp/x", "w") as file:  # noqa: S108
            file.write("forged")
        try:
            change("/dev/termination-log")
            print("changed", flush=True)
        except OSError as error:
            print(errno.errorcode[error.errno or 0], "change", flush=True)
    master, slave = pty.openpty()
    os.write(slave, b"mine")
    print("own terminal", os.read(master, 10).decode(), os.path.exists(os.ttyname(slave)), flush=True)
    with open(os.ttyname(slave), "wb", buffering=0) as again:
        again.write(b"again")
    print("own again", os.read(master, 10).decode(), flush=True)


if __name__ == "__main__":
    what, key = sys.argv[1], int(sys.argv[2])
    {"make": _make, "see": _see}.get(what, lambda _: _write())(key)
