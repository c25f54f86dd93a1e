"""Sizes with units, as docker writes them: 64m, 1gb, 512 (bytes); powers of 1024."""

import re

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)i?b?\s*", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes. Raises ValueError when it is no size."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid size: {text!r}")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def show_size(count: float) -> str:
    """A size for people: `12.3MB`; powers of 1000, as docker prints them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f}{unit}" if unit == "B" else f"{count:.1f}{unit}" if count < 100 else f"{count:.0f}{unit}"
        count /= 1000
    return ""
