"""Finding and starting the program of a RUN as runc does, in words that a user understands when it fails. Runs in the
process that becomes the program: no heavy imports."""

import errno
import os
import struct

NOT_FOUND = 127
NOT_EXECUTABLE = 126

_MACHINES = {3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64",
             243: "riscv64", 258: "loong64"}  # fmt: skip


class CannotStart(Exception):
    """The program cannot be started: one line for the log, and the exit code."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


def execute(argv: list[bytes], env: list[bytes]) -> None:
    """Become the program, looked up with the process's own rights in the PATH of `env` (R02). Raises CannotStart."""
    variables = dict(item.split(b"=", 1) for item in env if b"=" in item)
    name = argv[0]
    path = name if b"/" in name else _search(name, variables.get(b"PATH", b""))
    try:
        os.execve(path, argv, variables)  # noqa: S606 - no shell is meant
    except OSError as error:
        raise _explained(name, path, error) from error


def _search(name: bytes, path: bytes) -> bytes:
    forbidden = False
    for directory in path.split(b":") if path else []:
        candidate = (directory or b".") + b"/" + name
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK, effective_ids=True):
                return candidate
            forbidden = True
    if forbidden:
        raise CannotStart(f'exec: "{_text(name)}": permission denied', NOT_EXECUTABLE)
    raise CannotStart(f'exec: "{_text(name)}": executable file not found in $PATH', NOT_FOUND)


def _explained(name: bytes, path: bytes, error: OSError) -> CannotStart:
    start = f'exec: "{_text(name)}": '
    if error.errno in {errno.ENOENT, errno.ENOTDIR} and not os.path.lexists(path):
        return CannotStart(f"{start}stat {_text(path)}: no such file or directory", NOT_FOUND)
    if error.errno == errno.ENOENT:
        wanted = _interpreter(path)
        if wanted:
            return CannotStart(f"{start}its interpreter {_text(wanted)} is not in the image", NOT_FOUND)
        return CannotStart(f"{start}no such file or directory", NOT_FOUND)
    if error.errno == errno.EACCES and os.path.isdir(path):
        return CannotStart(f"{start}is a directory", NOT_EXECUTABLE)
    if error.errno == errno.ENOEXEC:
        return CannotStart(f"{start}exec format error{_machine(path)}", NOT_EXECUTABLE)
    return CannotStart(f"{start}{os.strerror(error.errno or 0).lower()}", NOT_EXECUTABLE)


def _interpreter(path: bytes) -> bytes:
    head = _head(path)
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].split()
        return words[0].removesuffix(b"\r") if words else b""
    if not head.startswith(b"\x7fELF") or len(head) < 64:
        return b""
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    try:
        offset = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
        size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
        for index in range(min(count, 64)):
            at = offset + index * size
            if struct.unpack_from(order + "I", head, at)[0] == 3:  # PT_INTERP
                begin = struct.unpack_from(order + ("Q" if wide else "I"), head, at + (8 if wide else 4))[0]
                return head[begin : begin + 4096].split(b"\0", 1)[0]
    except struct.error:
        pass
    return b""


def _machine(path: bytes) -> str:
    head = _head(path)
    if head.startswith(b"\x7fELF") and len(head) > 20:
        number = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)[0]
        return f": it is a program for {_MACHINES.get(number, f'ELF machine {number}')}"
    if not head:
        return ": it is empty, or may not be read"
    return "" if head.startswith(b"#!") else ": it is no program, or a script without a #! line"


def _head(path: bytes) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _text(name: bytes) -> str:
    return os.fsdecode(name)
