"""JSON with one spelling: what is hashed is built here, once. And JSON of strangers, read with limits."""

import json
import re
from typing import Any

MAX_DEPTH = 100  # no document of OCI or docker has a tenth of it

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def dumps(value: Any) -> bytes:
    """Encode as compact UTF-8 JSON with the keys in the order given (insertion order).

    What is not Unicode (bytes of a Dockerfile that are not UTF-8) becomes U+FFFD, as in Go.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return _LONE_SURROGATE.sub("\ufffd", text).encode()


def dumps_sorted(value: Any) -> bytes:
    """Encode as compact ASCII JSON with sorted keys, for cache keys and signatures. Loses nothing."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, sort_keys=True).encode()


def loads(raw: bytes) -> Any:
    """Read the JSON of a stranger. Raises ValueError, also for NaN and for what is nested too deep."""
    try:
        value = json.loads(raw, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return value
    raise ValueError("it is nested too deep")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
