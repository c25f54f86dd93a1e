"""What a thing is known by: all fields of its dataclass. A field is left out only where it says why, beside its name."""

import dataclasses
from typing import Any

_BESIDE = "beside"
ALWAYS, IN_CACHE = "always", "cache"


def beside(why: str, *, in_steps: bool = False, **options: Any) -> Any:
    """A dataclass field that no key has. `why` nothing that is made depends on it. `in_steps`: it still tells two steps of one
    build from each other."""
    if not why:
        raise ValueError("a field that is in no key says why")
    return dataclasses.field(metadata={_BESIDE: IN_CACHE if in_steps else ALWAYS, "why": why}, **options)


def data_of(value: Any, *, cache: bool = False) -> Any:
    """The value as JSON has it, dataclasses as objects without the fields that are beside. `cache`: for a key that outlives
    the build."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        left_out = (ALWAYS, IN_CACHE) if cache else (ALWAYS,)
        fields = (item for item in dataclasses.fields(value) if item.metadata.get(_BESIDE) not in left_out)
        return {item.name: data_of(getattr(value, item.name), cache=cache) for item in fields}
    if isinstance(value, tuple | list):
        return [data_of(item, cache=cache) for item in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    raise TypeError(f"no key knows what a {type(value).__name__} is")
