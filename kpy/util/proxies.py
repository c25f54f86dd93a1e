"""Which proxy a URL goes through (N20). Given as values, never read from the environment."""

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxy URLs by scheme. `no_proxy` holds, by commas: host suffixes, addresses, CIDR blocks, host:port, `*`."""

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    no_proxy: str = ""

    def choose(self, url: str) -> dict[str, str]:
        """The proxy for this URL, as requests wants it; empty for none (N20)."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        if not proxy or not parts.hostname or self._bypassed(parts.hostname, parts.port):
            return {}
        return {parts.scheme: proxy}

    def _bypassed(self, host: str, port: int | None) -> bool:
        for item in (part.strip().lower() for part in self.no_proxy.split(",")):
            if item == "*" or (item and _fits(item, host.lower(), port)):
                return True
        return False


def _fits(item: str, host: str, port: int | None) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(item, strict=False)
    except ValueError:
        pass
    name, colon, number = item.rpartition(":")
    if colon and number.isdigit():
        if int(number) != port:
            return False
        item = name
    item = item.removeprefix("*").removeprefix(".")
    return host == item or host.endswith("." + item)
