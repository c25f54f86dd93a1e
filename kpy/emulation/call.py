"""One call that a process waits in, and what handlers have to answer it with."""

import os

from kpy.emulation.credentials import Credentials
from kpy.emulation.files import Files
from kpy.emulation.guard import Guard
from kpy.emulation.identities import Identities
from kpy.emulation.memory import Memory
from kpy.emulation.paths import Place, Places
from kpy.emulation.unconnected import Sockets
from kpy.linux.seccomp import Listener
from kpy.linux.syscalls import Arch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[["Call"], "int | None"]
    """Returns what the call returns, raises OSError for its errno; `PROCEED`: the kernel makes the call; `ANSWERED`:
    it is answered already."""

PROCEED = None
ANSWERED = -1


class World:
    """What all calls of a RUN share."""

    def __init__(self, listener: Listener, files: Files, first: Credentials, arch: Arch) -> None:
        self.listener = listener
        self.arch = arch
        self.files = files
        self.guard = Guard(files)
        self.places = Places()
        self.identities = Identities(first)
        self.number = 0
        self.sockets = Sockets(listener, arch)
        self.memory = Memory(self._is_waiting)
        self.umask_matters = False
        """Has somebody set an umask that takes bits from the owner?"""
        self.denied = b""
        """The first name in `/` that was to be made where nothing can be (kpy.emulation.slots)."""
        self.protects_links = _protects_links()
        self.afterwards: dict[int, Callable[[], None]] = {}
        """By process: what to do when it is heard of again, its last call made."""

    def _is_waiting(self) -> bool:
        return self.listener.is_waiting(self.number)


def _protects_links() -> bool:
    try:
        with open("/proc/sys/fs/protected_hardlinks", "rb") as file:
            return file.read().strip() != b"0"
    except OSError:
        return True


class Call:
    """The notification. `args` are 64 bits each, whatever the call takes."""

    __slots__ = ("_who", "args", "number", "pid", "world")

    def __init__(self, world: World, number: int, pid: int, args: tuple[int, ...]) -> None:
        self.world = world
        self.number = number
        self.pid = pid
        self.args = args
        self._who: Credentials | None = None

    @property
    def who(self) -> Credentials:
        """The caller's credentials."""
        who = self._who
        if who is None:
            who = self._who = self.world.identities.of(self.pid)
        return who

    def become(self, who: Credentials) -> None:
        """Change them."""
        if who != self.who:
            self.world.identities.become(self.pid, who)

    def place(self, directory: int, address: int) -> Place:
        """The path at an address, relative to a descriptor."""
        return self.world.places.of_path(self.pid, directory, self.world.memory.path(self.pid, address))

    def descriptor(self, number: int) -> Place:
        """What a descriptor is open on."""
        return self.world.places.of_descriptor(self.pid, number)

    def umask(self) -> int:
        """The caller's umask."""
        with open(f"/proc/{self.pid}/status", "rb", buffering=0) as file:
            head = file.read(256)
        start = head.find(b"Umask:")
        return int(head[start + 6 : head.index(b"\n", start)], 8) if start >= 0 else 0o022

    def read(self, address: int, size: int) -> bytes:
        """Memory of the caller, all of it."""
        return self.world.memory.exactly(self.pid, address, size)

    def write(self, address: int, data: bytes) -> None:
        """To memory of the caller."""
        self.world.memory.write(self.pid, address, data)


def refuse(number: int) -> OSError:
    """The error to raise for an errno."""
    return OSError(number, os.strerror(number))
