"""Answers that did not arrive. Before Linux 5.19 a signal interrupts a process that waits for one; after its handler it
makes the call anew (SA_RESTART), and what was made for it the first time would be in its way. It gets the first answer then.

Not all can be had: one that a signal wakes in the moment of the answer drops it, and the kernel tells us nothing. And a
handler without SA_RESTART makes the call fail with EINTR, whatever we did.
"""

import os

from kpy.linux.seccomp import Listener

_MOST = 64


class Interrupted:
    """The calls that were answered in vain, by process: only its next one can be the same made anew. A process that was
    killed leaves one, too."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.calls: dict[int, tuple[int, tuple[int, ...], tuple[int, int, bool]]] = {}

    def keep(self, pid: int, call_number: int, args: tuple[int, ...]) -> None:
        """The answer that the listener could not deliver was for this call."""
        undelivered, self._listener.undelivered = self._listener.undelivered, None
        if undelivered is not None:
            if len(self.calls) >= _MOST:
                self.close()
            self.calls[pid] = call_number, args, undelivered

    def again(self, number: int, pid: int, call_number: int, args: tuple[int, ...]) -> bool:
        """Is it such a call? It is answered then, or interrupted again."""
        held = self.calls.pop(pid, None)
        if held is None:
            return False
        known, before, (value, descriptor, close_on_exec) = held
        if descriptor < 0:
            if (known, before) == (call_number, args):
                self._listener.answer(number, value, 0)
                self.keep(pid, call_number, args)
                return True
            return False
        try:
            if (known, before) == (call_number, args):
                self._listener.give(number, descriptor, close_on_exec=close_on_exec)
                self.keep(pid, call_number, args)
                return True
        finally:
            os.close(descriptor)
        return False

    def close(self) -> None:
        """Forget all."""
        for _, _, (_, descriptor, _) in self.calls.values():
            if descriptor >= 0:
                os.close(descriptor)
        self.calls.clear()
