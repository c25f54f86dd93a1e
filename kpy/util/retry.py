"""Backoff as data."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """Try `attempts` times; wait `first` seconds after the first failure, `factor` times longer each time."""

    attempts: int = 4
    first: float = 0.5
    factor: float = 3.0
    longest: float = 30.0

    def waits(self) -> Iterator[float]:
        """The waits between attempts, in seconds: one fewer than there are attempts."""
        wait = self.first
        for _ in range(self.attempts - 1):
            yield min(wait, self.longest)
            wait *= self.factor
