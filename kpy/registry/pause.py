"""How long to wait before another try: backoff with jitter, and what the server asks for (N15)."""

import email.utils
import time
from collections.abc import Callable

from kpy.util.retry import Retry

LONGEST_ASKED = 120.0  # a server that wants us to wait longer gets no second try: a build should fail, not hang


class Pauses:
    """The waits of one operation. Mutable: each call of `pause` uses one up."""

    def __init__(self, retry: Retry, sleep: Callable[[float], None], jitter: Callable[[], float]) -> None:
        self._retry = retry
        self._sleep = sleep
        self._jitter = jitter
        self._waits = retry.waits()

    def pause(self, retry_after: str = "") -> bool:
        """Wait before the next try; False, at once, when there shall be none."""
        wait = next(self._waits, None)
        asked = seconds(retry_after)
        if wait is None or (asked is not None and asked > LONGEST_ASKED):
            return False
        # Half of it is fixed: many builds that failed together must not come back together.
        wait = wait / 2 + wait / 2 * self._jitter()
        self._sleep(wait if asked is None else asked + min(wait, 1.0))
        return True

    def refill(self) -> None:
        """Begin anew, after real progress."""
        self._waits = self._retry.waits()


def seconds(retry_after: str) -> float | None:
    """The seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3); None for none or rubbish."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    if not text:
        return None
    try:
        when = email.utils.parsedate_to_datetime(text)
        return max(0.0, when.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
