"""What planning may use: how much text variables may make of a Dockerfile, and until when. Pure: who interrupts is told by
a function."""

from collections.abc import Callable
from dataclasses import dataclass

from kpy.dockerfile.span import Span

MOST = 64 << 20
"""Characters that the variables of a Dockerfile expand to, in all its instructions; that is kept, some of it several times."""

LARGEST_SCOPE = 4 << 20
"""Characters of all variables of one stage. Linux starts no process with more (execve(2), "Limits on size of arguments")."""


def goes_on() -> None:
    """Nobody interrupts."""


@dataclass
class Effort:
    """Counts down while one Dockerfile is planned. `check` raises when somebody wants the work to end."""

    check: Callable[[], None] = goes_on
    left: int = MOST

    def spend(self, size: int, span: Span) -> None:
        """So many characters more are kept. Raises DockerfileError at the span, and what `check` raises."""
        self.check()
        self.left -= max(size, 0)
        if self.left < 0:
            raise span.error(
                f"variables make more than {MOST >> 20} MiB of this Dockerfile", hint="put large texts into files of the context"
            )
