"""Durations in Go's syntax, such as `1h30m` and `1.5s`, as nanoseconds."""

import re

from kpy.dockerfile.forms import FormError

_UNITS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_PART = re.compile(r"(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
MAX = (1 << 63) - 1


def parse_duration(text: str) -> int:
    """time.ParseDuration. Raises FormError."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    total, position = 0, 0
    while position < len(body):
        part = _PART.match(body, position)
        if not part or not (part[1] or part[2]) or len(part[1]) > 20:
            break
        unit = _UNITS[part[3]]
        fraction = (part[2] or "")[:18]
        total += int(part[1] or "0") * unit + int(fraction or "0") * unit // 10 ** len(fraction)
        position = part.end()
    if not body or position < len(body) or total > MAX:
        raise FormError(f"invalid duration {text!r}", hint="write a number and a unit: 30s, 5m, 1h30m")
    return -total if text.startswith("-") else total


def show_duration(nanoseconds: int) -> str:
    """time.Duration.String, of one that is not negative: `0s`, `1.5ms`, `1h0m30s`."""
    if nanoseconds < 10**9:
        for name, unit in (("ms", 10**6), ("µs", 10**3), ("ns", 1)):
            if nanoseconds >= unit:
                return _decimal(nanoseconds, unit) + name
        return "0s"
    minutes, rest = divmod(nanoseconds, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{shown}{_decimal(rest, 10**9)}s"


def _decimal(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    digits = str(rest).zfill(len(str(unit)) - 1).rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
