"""Where long work looks whether it is to end. Imports little: programs inside a sandbox use what uses this.

Which flag ends it belongs to the thread, as a working directory does, and is not handed down: loops over somebody else's
bytes and files are everywhere, and one without the flag would hold the builder after SIGTERM for as long as its owner wants. A
test finds loops that do not come by here.
"""

from contextvars import ContextVar, Token

TYPE_CHECKING = False  # as mypy knows it; importing typing takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol, TypeVar

    Item = TypeVar("Item")

    class Ending(Protocol):
        """What the work looks at: kpy.util.cancel.Cancel."""

        def check(self) -> None:
            """Raise if the work is to end."""
            ...

        @property
        def hurried(self) -> bool:
            """Does somebody wait for the end?"""
            ...


_EVERY = 256  # items between two looks: some take a microsecond
_current: "ContextVar[Ending | None]" = ContextVar("kpy_ending", default=None)


def begin(ending: "Ending | None") -> "Token[Ending | None]":
    """From here on, this is what ends the work of this thread and of those that it starts (kpy.util.threads). None: nothing
    does."""
    return _current.set(ending)


def end(token: "Token[Ending | None]") -> None:
    """Back to what it was at `begin`."""
    _current.reset(token)


def checkpoint() -> None:
    """Raise InterruptedBuildError if the work of this thread is to end. For each piece of a loop that may take long."""
    ending = _current.get()
    if ending is not None:
        ending.check()


def checked(items: "Iterable[Item]") -> "Iterator[Item]":
    """The same items, with a `checkpoint` now and then."""
    number = 0
    for item in items:
        if not number:
            checkpoint()
            number = _EVERY
        number -= 1
        yield item


def hurried() -> bool:
    """Does somebody wait for this process to end? Then what the next build can clean up is left to it."""
    ending = _current.get()
    return ending is not None and ending.hurried


class Shielded:
    """`with Shielded():` for work that has to come to its end: what is half done would be lost."""

    def __enter__(self) -> None:
        self._token = begin(None)

    def __exit__(self, *_: object) -> None:
        end(self._token)
