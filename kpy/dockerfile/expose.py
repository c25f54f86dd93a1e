"""Values of EXPOSE and STOPSIGNAL, checked after expansion (I04, I09). Pure; errors are `FormError`."""

import ipaddress
import re
from collections.abc import Iterable

from kpy.dockerfile.forms import FormError
from kpy.dockerfile.span import suggest

PROTOCOLS = ("tcp", "udp", "sctp")
_SIGNALS = ["ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX"] + [f"RTMIN+{n}" for n in range(1, 16)] + [f"RTMAX-{n}" for n in range(1, 15)]  # fmt: skip


def parse_ports(words: Iterable[str]) -> tuple[str, ...]:
    """The ports of expanded EXPOSE words, in their order, as the config's keys are: such as `("8000/tcp", "53/udp")`.

    A word is `[[ip:]host:]port[-port][/protocol]`; what is before the port is checked and dropped.
    """
    found: list[str] = []
    for word in words:
        port, _, protocol = word.partition("/")
        protocol = protocol.lower() or "tcp"
        if protocol not in PROTOCOLS:
            raise FormError(
                f"invalid proto: {protocol}",
                hint=suggest(protocol, PROTOCOLS) or "tcp, udp and sctp are known",
            )
        outer, _, inner = port.rpartition(":")
        first, last = _range(inner, "containerPort", word)
        if outer:
            _check_host(outer, last - first, word)
        found += (f"{number}/{protocol}" for number in range(first, last + 1))
    return tuple(found)


def _range(text: str, what: str, word: str) -> tuple[int, int]:
    ends = text.split("-") if text else []
    if not 1 <= len(ends) <= 2 or not all(re.fullmatch("[+]?[0-9]{1,8}", end) for end in ends):
        raise FormError(f"invalid {what}: {text or word!r}", hint="write port, port/udp, or first-last")
    first, last = int(ends[0]), int(ends[-1])
    if first > last or last > 65535:
        raise FormError(f"invalid {what}: {text}: ports must be ascending, and not above 65535")
    return first, last


def _check_host(outer: str, length: int, word: str) -> None:
    """`host` or `ip:host` before the port, as docker's -p has it; the IP may be in brackets."""
    address, _, host = outer.rpartition(":")
    if host:
        first, last = _range(host, "hostPort", word)
        if length and last - first != length:
            raise FormError(f"invalid ranges specified for container and host ports: {word}")
    if address:
        try:
            ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise FormError(f"invalid IP address: {address}") from None


def check_signal(text: str) -> str:
    """The text itself, which the config keeps, if it names a signal: `SIGTERM`, `term`, `9`, `RTMIN+3`.

    Any number but 0 will do, as in docker; whether the container's kernel has it is seen when it is sent.
    """
    if re.fullmatch("[+-]?[0-9]{1,8}", text):
        if int(text) != 0:
            return text
        raise FormError(f"invalid signal: {text!r}")
    name = text.upper().removeprefix("SIG")
    if name not in _SIGNALS:
        near = suggest(name, _SIGNALS).replace('"', '"SIG', 1)
        raise FormError(f"invalid signal: {text!r}", hint=near or "write a name such as SIGTERM, or a number")
    return text
