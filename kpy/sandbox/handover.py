"""The ledger of an emulated root, handed to the process that emulates it for one RUN, and taken back."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kpy.errors import SandboxError
from kpy.linux import syscalls
from kpy.linux.ledger import Ledger


def unheard(text: str) -> None:
    """A warning that nobody wants."""


@dataclass(frozen=True, slots=True)
class Emulation:
    """A ledger where root is emulated, and who is told what cannot be. `refused`: the errno that says why no system call
    can be answered, where that is known; then what root does is forgotten."""

    ledger: Ledger | None = None
    warn: Callable[[str], None] = unheard
    refused: int = 0


NONE = Emulation()


def check_machine() -> None:
    """Raise SandboxError where root cannot be emulated."""
    if syscalls.native() is None:
        raise SandboxError(
            f"root cannot be emulated on {os.uname().machine}", hint="build on x86-64 or arm64, or as root"
        )


@contextlib.contextmanager
def handed(ledger: Ledger | None) -> Iterator[tuple[int, ...]]:
    """A file in memory with the ledger in it: the other process writes into it, which it could not to a pipe that we do
    not read. Its descriptor, or nothing."""
    if ledger is None:
        yield ()
        return
    with os.fdopen(os.memfd_create("ledger", os.MFD_CLOEXEC), "w+b") as file:
        file.write(ledger.dump())
        file.flush()
        file.seek(0)
        yield (file.fileno(),)


def take_back(ledger: Ledger, descriptor: int) -> None:
    """Bring the ledger up to date, in place, with what the other process wrote."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb", closefd=False) as file:
        ledger.records = Ledger.load(file.read()).records
