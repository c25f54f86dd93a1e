"""What the tests of kpy.registry share: clients that wait no time, a CA."""

import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from kpy.oci.reference import Reference
from kpy.registry.client import RegistryClient
from kpy.registry.credentials import Credentials
from kpy.registry.hosts import Hosts
from kpy.registry.repository import RemoteRepository
from kpy.util.http import Timeouts
from tests.registry_server import RegistryServer


@dataclass
class Clock:
    """Time that passes only by sleeping."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as found:
        yield found


@pytest.fixture
def connect(clock: Clock) -> Iterator[Callable[..., RegistryClient]]:
    clients: list[RegistryClient] = []

    def make(hosts: Hosts | None = None, config: dict | None = None, **others) -> RegistryClient:
        files = [("config.json", json.dumps(config).encode())] if config is not None else []
        client = RegistryClient(
            hosts or Hosts(timeouts=Timeouts(5, 5)), others.pop("credentials", None) or Credentials(files),
            sleep=clock.sleep, clock=clock, jitter=lambda: 1.0, **others,
        )  # fmt: skip
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def repo(server: RegistryServer, connect) -> RemoteRepository:
    """The repository `app` of the fake registry."""
    server.repo("app")
    return connect().repository(Reference.parse(f"{server.host}/app:1"))


@dataclass(frozen=True)
class Authority:
    ca_file: str
    server: ssl.SSLContext


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Authority:
    """A CA, and a server's TLS context with a certificate of it for 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    place = tmp_path_factory.mktemp("ca")
    now = dt.datetime.now(dt.timezone.utc)

    def certificate(name, key, issuer, issuer_key, *, ca):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
        )
        return builder.sign(issuer_key, hashes.SHA256())

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = certificate("test CA", ca_key, None, ca_key, ca=True)
    leaf = certificate("127.0.0.1", key, ca.subject, ca_key, ca=False)
    (place / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (place / "leaf.pem").write_bytes(
        leaf.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "leaf.pem")
    return Authority(str(place / "ca.pem"), context)
