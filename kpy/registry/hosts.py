"""How to reach a registry: which host, which scheme, whom to trust. Opens no connection.

Plain HTTP is for this machine's loopback and for hosts given as insecure, nothing else (N19):

- loopback: HTTP first (what a throw-away registry speaks), unverified HTTPS when that is not answered;
- insecure: as docker's `insecure-registries`, HTTPS without verification first, then HTTP;
- unverified: HTTPS without verification only;
- all others: verified HTTPS only.
"""

import ipaddress
from dataclasses import dataclass, field

from kpy.oci.reference import DOCKER_HUB
from kpy.util.http import Timeouts
from kpy.util.proxies import Proxies
from kpy.util.trust import Trust

HUB_ENDPOINT = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to speak with a registry; `registry` is its name in references."""

    registry: str
    scheme: str
    host: str
    verify: bool = True

    @property
    def base(self) -> str:
        """The start of its URLs, without a slash at the end."""
        return f"{self.scheme}://{self.host}"


@dataclass(frozen=True, slots=True)
class Hosts:
    """What the user says about registries.

    `insecure` holds HOST, HOST:PORT, CIDR or *; HOST alone means each of its ports, * every host. So does `unverified`: HTTPS, whatever
    certificate is shown. `certificates` are (host, CA file), `client_certificates` (host, certificate, key), for that host
    alone. `concurrency` is how many transfers one registry gets at a time (N17): uploads are held to it here, downloads
    by who opens them.
    """

    insecure: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    ca_file: str = ""
    certificates: tuple[tuple[str, str], ...] = ()
    client_certificates: tuple[tuple[str, str, str], ...] = ()
    proxies: Proxies = field(default_factory=Proxies)
    timeouts: Timeouts = field(default_factory=Timeouts)
    concurrency: int = 4

    def trust(self, host: str, *, verify: bool) -> Trust:
        """The TLS trust for verified and for unverified connections to host[:port]."""
        files = tuple(file for name, file in self.certificates if _means((name,), host))
        pairs = [(cert, key) for name, cert, key in self.client_certificates if _means((name,), host)]
        cert, key = pairs[-1] if pairs else ("", "")
        return Trust(verify, (self.ca_file, *files) if self.ca_file else files, cert, key)

    def candidates(self, registry: str) -> tuple[Endpoint, ...]:
        """The ways to try, in order; with a single one there is nothing to probe."""
        host = HUB_ENDPOINT if registry == DOCKER_HUB else registry
        plain = Endpoint(registry, "http", host, verify=False)
        unverified = Endpoint(registry, "https", host, verify=False)
        if is_loopback(host):
            return (plain, unverified)
        if self.is_insecure(host):
            return (unverified, plain)
        if _means(self.unverified, host):
            return (unverified,)
        return (Endpoint(registry, "https", host),)

    def is_insecure(self, host: str) -> bool:
        """Did the user say so of this host[:port]?"""
        return _means(self.insecure, host)


def _means(items: tuple[str, ...], host: str) -> bool:
    """Does one of HOST, HOST:PORT, CIDR or * mean this host[:port]?"""
    name = hostname(host)
    for item in items:
        if item == "*" or item.lower() in (host.lower(), name):
            return True
        try:
            if ipaddress.ip_address(name) in ipaddress.ip_network(item, strict=False):
                return True
        except ValueError:
            continue
    return False


def hostname(host: str) -> str:
    """The host without its port and brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def is_loopback(host: str) -> bool:
    """Is it localhost, 127.0.0.0/8 or ::1? The name alone decides: what DNS says may be forged."""
    name = hostname(host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
