"""/etc/resolv.conf and /etc/hosts as a RUN sees them (R06). Changes nothing on the host."""

from collections.abc import Sequence

_LIMIT = 1 << 20
# Where systemd-resolved keeps the servers behind its stub, whose loopback address means nothing elsewhere.
_BEHIND_STUB = "/run/systemd/resolve/resolv.conf"
_STUBS = ("127.0.0.53", "127.0.0.54")
_FALLBACK = b"nameserver 8.8.8.8\nnameserver 8.8.4.4\n"  # as docker and BuildKit when the host names no server


def resolver_file(path: str = "/etc/resolv.conf", behind_stub: str = _BEHIND_STUB) -> bytes:
    """The host's resolv.conf; if it names only systemd-resolved's stub, the one with the real servers.

    The network is the host's own, so other loopback servers are kept: they can be reached.
    """
    content = _read(path)
    servers = nameservers(content)
    if servers and all(server in _STUBS for server in servers):
        content = _read(behind_stub) or content
    return content if nameservers(content) else content + _FALLBACK


def nameservers(content: bytes) -> list[str]:
    """The servers that a resolv.conf names."""
    rows = [line.split() for line in content.decode("utf-8", "replace").splitlines()]
    return [row[1] for row in rows if len(row) > 1 and row[0] == "nameserver"]


def hosts_file(extra: Sequence[tuple[str, str]], hostname: str) -> bytes:
    """Loopback names, the sandbox's own, and the (name, address) lines asked for."""
    lines = [f"127.0.0.1\tlocalhost {hostname}", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{address}\t{name}" for name, address in extra]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT)
    except OSError:
        return b""
