"""JSON with one spelling: what is hashed is built here, once."""

import json
from typing import Any


def dumps(value: Any) -> bytes:
    """Encode as compact UTF-8 JSON with the keys in the order given (insertion order)."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def dumps_sorted(value: Any) -> bytes:
    """Encode as compact UTF-8 JSON with sorted keys, for cache keys and signatures."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, sort_keys=True).encode()
