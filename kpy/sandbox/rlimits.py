"""Resource limits of a RUN (R19). Used by kpy, and by the process that becomes the command: no heavy imports."""

import resource

TYPE_CHECKING = False  # as mypy knows it; importing typing takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Sequence


class NotAllowed(Exception):
    """A limit that this process may not set."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def apply(limits: "Sequence[Sequence[str | int]]") -> None:
    """Set the limits, as (name, soft, hard), for this process and what comes of it. Raises NotAllowed."""
    for name, soft, hard in limits:
        try:
            resource.setrlimit(_number(str(name)), (_value(int(soft)), _value(int(hard))))
        except (ValueError, OSError) as error:
            raise NotAllowed(f"cannot set --ulimit {name}={soft}:{hard}: {str(error).lower()}") from error


def too_high(limits: "Sequence[tuple[str, int, int]]") -> str:
    """The first limit that only CAP_SYS_RESOURCE of the host may set, in words; "" if there is none."""
    for name, _, hard in limits:
        own = resource.getrlimit(_number(name))[1]
        if own != resource.RLIM_INFINITY and (hard == -1 or hard > own):
            return f"--ulimit {name}: {'no limit' if hard == -1 else hard} is above the hard limit of this process, {own}"
    return ""


def _number(name: str) -> int:
    return int(getattr(resource, f"RLIMIT_{name.upper()}"))


def _value(number: int) -> int:
    return resource.RLIM_INFINITY if number == -1 else number
