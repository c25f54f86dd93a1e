"""The emulation of root in the process that is the parent of a RUN: starts with the RUN, ends with its child, and
writes the ledger. Imports little: `supervisor.py` and `child.py` are programs that must start soon.

The ledger is in a file that was handed down by descriptor (handover.py), and is written back into it.
"""

import os
import signal
import socket

from kpy.emulation import credentials, start
from kpy.emulation.loop import Emulation
from kpy.linux.birth import identify
from kpy.linux.ledger import Ledger, Record
from kpy.linux.syscalls import native
from kpy.sandbox import reap

TYPE_CHECKING = False  # as mypy knows it; importing typing takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Iterable

_TICK = 0.05  # seconds


class Emulated:
    """The side that answers. Made before the fork of the RUN's first process, which is `uid`, `gid` and `groups`.
    `refused`: the errno that says why it can answer nothing, 0 if it can. `sockets`: are there some to be kept from the RUN? `whole`: the
        paths of what is its own, where the rest is the builder's (kpy.linux.landlock.only)."""

    def __init__(
        self, ledger: int, uid: int, gid: int, groups: "Iterable[int]", refused: int = 0, *, sockets: bool = False,
        whole: "Iterable[str] | None" = None,
    ) -> None:  # fmt: skip
        self._file = ledger
        os.set_inheritable(self._file, False)
        with open(self._file, "rb", closefd=False) as file:
            self._ledger = Ledger.load(file.read())
        arch = native()
        assert arch is not None  # who started us has looked
        self._arch = arch
        self._refused = refused
        self._sockets = sockets
        self._tops = None if whole is None else frozenset(os.fsencode(path).split(b"/")[1] for path in whole)
        self._first = credentials.of_user(uid, gid, tuple(groups))
        self._ours, self._theirs = socket.socketpair()
        self._emulation: Emulation | None = None
        self.warning = ""
        """What a RUN lacked, for the user."""
        self._has_ended = False
        """Somebody, since we last looked."""
        signal.signal(signal.SIGCHLD, self._ended)

    def _ended(self, *_: object) -> None:
        self._has_ended = True

    @property
    def problems(self) -> list[str]:
        """What went wrong in the emulation, for a developer."""
        return self._emulation.problems if self._emulation is not None else []

    def tell(self, place: int, mode: int, uid: int, gid: int) -> None:
        """What this is open on has this owner and mode for the RUN."""
        key, born = identify(place)
        self._ledger.records[key] = Record(mode, uid, gid, born=born)

    def confine(self) -> bool:
        """In the child: see kpy.emulation.start."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._ours.close()
        with self._theirs:
            attributes = self._ledger.has_attributes()
            return start.confine(
                self._theirs, self._arch, root=self._first.euid == 0, attributes=attributes, refused=self._refused,
                sockets=self._sockets,
            )

    def follow(self, child: int) -> int | None:
        """Answer until the child ends; its exit code. None if there is nothing to answer, and the child may live."""
        os.umask(0)  # modes are as the emulation computes them
        self._theirs.close()
        with self._ours:
            listener, number = start.receive(self._ours)
        if listener < 0:
            self.warning = start.lost(number)
            return None
        self._emulation = emulation = Emulation(listener, self._ledger, self._first, self._arch, self._tops)
        # The wait for a notification ends with a signal: to poll before each would make all calls slower by a tenth.
        # A signal that came just before the wait is seen at the next tick.
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)
        while True:
            emulation.step()
            if self._has_ended:
                self._has_ended = False
                status = _reap(child)
                if status is not None:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    self.warning = start.denied(emulation.denied)
                    if emulation.datagram:
                        self.warning += "; " * bool(self.warning) + start.NO_DATAGRAMS
                    return status

    def finish(self, passing: "Iterable[int]" = ()) -> None:
        """All processes are gone: write the ledger, without what it says of files on `passing` devices, which end now
        and whose numbers others will have."""
        if self._emulation is None:
            return
        self._emulation.close()
        gone = frozenset(passing)
        records = self._ledger.records
        for key in [key for key in records if key[0] in gone]:
            del records[key]
        data = self._ledger.dump()
        with open(self._file, "r+b") as file:
            file.seek(0)
            file.write(data)
            file.truncate()


def _reap(child: int) -> int | None:
    """Reap all that has ended; the exit code of the child if it is among them."""
    found = None
    try:
        while (gone := reap.ended(os.WNOHANG)) is not None:
            if gone[0] == child:
                found = gone[1]
    except ChildProcessError:
        pass  # nobody is left
    return found
