"""TLS: whom to believe, as a value and as a context. Opens no connection."""

import ssl
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe: the system's CAs and those of `ca_files`; anybody when `verify` is false."""

    verify: bool = True
    ca_files: tuple[str, ...] = ()
    client_cert: str = ""
    client_key: str = ""


def ssl_context(trust: Trust) -> ssl.SSLContext:
    """A TLS context of this trust. Raises OSError or ssl.SSLError when a file of it is not usable."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if not trust.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        import certifi

        context.load_verify_locations(certifi.where())
        for file in trust.ca_files:
            context.load_verify_locations(file)
    if trust.client_cert:
        context.load_cert_chain(trust.client_cert, trust.client_key or None)
    return context
