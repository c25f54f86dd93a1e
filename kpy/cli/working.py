"""Work that shows progress and can be interrupted."""

from collections.abc import Callable
from typing import TypeVar

from kpy.cli.heard import heard
from kpy.cli.interrupt import caught
from kpy.cli.options import ProgressMode
from kpy.cli.progress import choose
from kpy.cli.record import Record
from kpy.cli.terminal import Terminal
from kpy.errors import InterruptedBuildError, KpyError
from kpy.events import Reporter
from kpy.util.cancel import Cancel

T = TypeVar("T")


def work(mode: ProgressMode, terminal: Terminal, action: Callable[[Reporter, Cancel], T], record: Record | None = None) -> T:
    """Do it, and write down what it reports. Raises what it raises, and InterruptedBuildError with the signal's exit code when one came."""
    with caught(terminal=terminal.stderr_is_terminal) as interrupt:
        try:
            with heard(terminal, interrupt.cancel) as patient, choose(mode, patient) as progress:
                return action(record.with_(progress) if record else progress, interrupt.cancel)
        except (KpyError, KeyboardInterrupt) as error:
            if not interrupt.signal and isinstance(error, KpyError):
                raise
            # Whatever failed after the request to end failed because of it.
            stopped = InterruptedBuildError("interrupted")
            stopped.exit_code = interrupt.exit_code
            raise stopped from error
