"""The emulation of one RUN: takes notifications and has them answered, each one, whatever happens.

In the process that is the parent of all that a RUN starts. One thread: a call is answered before the next is looked
at, so what handlers do to files and ledger is one step for the processes.
"""

import errno
import struct

from kpy.emulation import attributes, create, ids, listing, names, owners, peers, programs, slots, sockets
from kpy.emulation.call import ANSWERED, PROCEED, Call, World
from kpy.emulation.credentials import Credentials
from kpy.emulation.files import Files
from kpy.emulation.interrupted import Interrupted
from kpy.emulation.quick import LATER, Quicker
from kpy.emulation.stats import Stats
from kpy.linux.ledger import Ledger
from kpy.linux.seccomp import Listener
from kpy.linux.syscalls import Arch, compatible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kpy.emulation.call import Handler

# struct seccomp_notif: id, pid, flags; seccomp_data: nr, arch, ip, args (without flags and ip)
_NOTIFICATION = struct.Struct("<QI4xiI8x6Q")
_MOST_PROBLEMS = 20
_MOST_AFTERWARDS = 4096


class Emulation:
    """Has the listener and answers it."""

    def __init__(self, listener: int, ledger: Ledger, first: Credentials, arch: Arch, tops: frozenset[bytes] | None = None) -> None:
        self._listener = Listener(listener)
        self._world = World(self._listener, Files(ledger, arch, tops), first, arch)
        self._native = arch.audit
        self._quicker = Quicker(self._world, arch)
        self._handlers: dict[int, dict[int, tuple[str, Handler]]] = _tables(arch)
        self._interrupted = Interrupted(self._listener)
        self.problems: list[str] = []
        """What went wrong in here, for a developer."""

    @property
    def denied(self) -> bytes:
        """See World."""
        return self._world.denied

    @property
    def datagram(self) -> bool:
        """See Sockets."""
        return self._world.sockets.datagram

    def step(self) -> None:
        """Answer one notification; wait for it if there is none, but not longer than until a signal. Raises nothing."""
        if self._world.sockets.waiting:
            self._world.sockets.go_on()
        try:
            fields = _NOTIFICATION.unpack(self._listener.receive())
        except OSError:
            return  # a signal; or it was killed before we could read it
        number, pid, call_number, audit = fields[:4]
        args = fields[4:]
        world = self._world
        world.number = number
        if world.afterwards:
            self._catch_up(pid)
        if self._interrupted.calls and self._interrupted.again(number, pid, call_number, args):
            return
        if audit == self._native:
            try:
                quick = self._quicker.answer(call_number, pid, args)
            except OSError:
                quick = LATER
            except Exception as error:
                self._note("quick", error)
                quick = LATER
            if quick != LATER:
                if quick is PROCEED:
                    self._listener.proceed(number)
                else:
                    self._listener.answer(number, max(quick, 0), max(-quick, 0))
                    self._listener.undelivered = None  # nothing was done: who is interrupted asks once more
                return
        name, handler = self._handlers[audit].get(call_number, ("", None))
        if handler is None:
            self._listener.proceed(number)
            return
        try:
            answer = handler(Call(world, number, pid, args))
        except OSError as error:
            number_of_error = error.errno or errno.EIO
            if number_of_error == errno.ENOENT and world.places.is_bad():
                number_of_error = errno.EBADF
            self._listener.answer(number, 0, number_of_error)
        except Exception as error:  # a fault of ours must not hang the process
            self._note(name, error)
            self._listener.answer(number, 0, errno.EIO)
        else:
            if answer is PROCEED:
                self._listener.proceed(number)
            elif answer is not ANSWERED:
                self._listener.answer(number, answer, 0)
        world.places.done()
        if self._listener.undelivered is not None:
            self._interrupted.keep(pid, call_number, args)

    def _catch_up(self, pid: int) -> None:
        todo = self._world.afterwards.pop(pid, None)
        if todo is not None:
            try:
                todo()
            except OSError:
                pass  # what it was about is gone
        elif len(self._world.afterwards) > _MOST_AFTERWARDS:
            self._world.afterwards.clear()  # of processes that were never heard of again

    def _note(self, name: str, error: Exception) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
            self.problems.append(f"{name}: {type(error).__name__}: {error} ({place})")

    def close(self) -> None:
        """All processes are gone."""
        self._world.memory.close()
        self._world.sockets.close()
        self._interrupted.close()


def _tables(arch: Arch) -> "dict[int, dict[int, tuple[str, Handler]]]":
    """By architecture and number: the name and the handler of each call."""
    handlers: dict[str, Handler] = {}
    stats = Stats(arch)
    rooms = (ids, owners, create, names, listing, attributes, programs, peers, stats)
    for table in [room.handlers if isinstance(room, Stats) else room.HANDLERS for room in rooms]:
        handlers.update(table)
    handlers = sockets.around(slots.around(handlers))
    return {
        interface.audit: {
            number: (name, handlers[name]) for name, number in interface.numbers.items() if name in handlers
        }
        for interface in (arch, *compatible(arch))
    }
