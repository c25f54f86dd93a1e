"""Builder flags of instructions (P10) against what each instruction knows.

Takes flags that `forms.split_flags` cut off. What `--mount` holds is read in `mounts.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from kpy.dockerfile.forms import FormError
from kpy.dockerfile.mounts import check_mount, parse_mount
from kpy.dockerfile.span import suggest

__all__ = ["Flags", "Kind", "check_mount", "parse_flags", "parse_mount"]


class Kind(Enum):
    """What a flag takes."""

    BOOL = "bool"
    STRING = "string"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags that were given, by name without dashes."""

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """The value, empty if the flag was not given."""
        return self.values.get(name, ("",))[0]

    def list(self, name: str) -> tuple[str, ...]:
        """All values."""
        return self.values.get(name, ())

    def boolean(self, name: str) -> bool | None:
        """True, False, or None if the flag was not given."""
        found = self.values.get(name)
        return None if found is None else found[0] == "true"


def parse_flags(words: Sequence[str], known: Mapping[str, Kind]) -> Flags:
    """Check the flags of one instruction. Raises FormError."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        kind = known.get(name)
        if kind is None:
            hint = suggest(f"--{name}", (f"--{other}" for other in known))
            raise FormError(f"unknown flag: --{name}", hint=hint or _all(known))
        if name in found and kind is not Kind.LIST:
            raise FormError(f"duplicate flag specified: --{name}: it is allowed only once")
        if kind is Kind.BOOL:
            value = _boolean(name, value.lower() if equals else "true", value)
        elif not equals:
            raise FormError(f"missing a value on flag: --{name}", hint=f"write --{name}=value")
        found.setdefault(name, []).append(value)
    return Flags({name: tuple(values) for name, values in found.items()})


def _boolean(name: str, value: str, written: str) -> str:
    if value not in ("true", "false"):
        raise FormError(
            f"expecting boolean value for flag --{name}, not: {written!r}: it must be true or false"
        )
    return value


def _all(known: Mapping[str, Kind]) -> str:
    return (
        f"there are {' '.join(f'--{name}' for name in known)}" if known else "this instruction takes no flags"
    )
