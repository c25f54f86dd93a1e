"""WWW-Authenticate (RFC 9110, 11.6.1): challenges from a hostile header, and scopes of tokens. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

MAX_HEADER = 16 << 10
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PARAMETER = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))")
_BLANK = re.compile(r"[ \t,]*")
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*(?=[ \t]*(?:,|$))")

Access: TypeAlias = tuple[str, str, str]  # (type, name, action): ("repository", "library/alpine", "pull")
Scopes: TypeAlias = frozenset[Access]


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme (lower case) with its parameters (names in lower case)."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)


def parse(header: str) -> tuple[Challenge, ...]:
    """The challenges of one or several (comma-joined) headers. Never raises: reading ends where it is senseless."""
    header = header[:MAX_HEADER]
    found: list[Challenge] = []
    position = _skip(header, 0)
    while position < len(header):
        scheme = _TOKEN.match(header, position)
        if scheme is None:
            break
        position = scheme.end()
        parameters: dict[str, str] = {}
        if position < len(header) and header[position] in " \t":
            position, parameters = _parameters(header, position)
        found.append(Challenge(scheme[0].lower(), parameters))
        position = _skip(header, position)
    return tuple(found)


def _parameters(header: str, position: int) -> tuple[int, dict[str, str]]:
    parameters: dict[str, str] = {}
    start = _skip(header, position)
    if (single := _TOKEN68.match(header, start)) and single[0].endswith("="):
        return single.end(), parameters  # `Negotiate abc==`
    position = start
    while (match := _PARAMETER.match(header, position)) is not None:
        value = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        parameters.setdefault(match[1].lower(), value)
        position = match.end()
        following = _skip(header, position)
        if following == position and position < len(header):
            return len(header), parameters  # rubbish after a value: believe nothing more
        position = following
    return position, parameters


def _skip(header: str, position: int) -> int:
    match = _BLANK.match(header, position)
    return match.end() if match else position


def repository_scope(name: str, *actions: str) -> Scopes:
    """The scope of actions on a repository."""
    return frozenset(("repository", name, action) for action in actions)


def parse_scope(text: str) -> Scopes:
    """Read `repository:a:pull,push repository:b:pull`; what does not have this form is left out."""
    found: set[Access] = set()
    for item in text.split()[:64]:
        kind, _, rest = item.partition(":")
        name, colon, actions = rest.rpartition(":")  # names may hold a port
        if kind and name and colon:
            found |= {(kind, name, action) for action in actions.split(",") if action}
    return frozenset(found)


def format_scopes(scopes: Iterable[Access]) -> list[str]:
    """One text for each resource, in a fixed order (N04)."""
    actions: dict[tuple[str, str], set[str]] = {}
    for kind, name, action in scopes:
        actions.setdefault((kind, name), set()).add(action)
    return [f"{kind}:{name}:{','.join(sorted(does))}" for (kind, name), does in sorted(actions.items())]
