"""`kpy verify` as a whole, against a registry: which keys it takes."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from kpy.cli.terminal import Terminal
from kpy.cli.verify import run
from kpy.errors import SignatureError
from kpy.exporter.push import PushExporter, Target
from kpy.oci.content import Repository
from kpy.oci.descriptor import Descriptor
from kpy.oci.reference import Reference
from kpy.registry.client import RegistryClient
from kpy.signing import cosign
from kpy.signing.keys import PrivateKey
from tests.exporter.exporting import one
from tests.registry_server import RegistryServer


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as found:
        found.repo("app")
        yield found


def pushed(server: RegistryServer, key: PrivateKey) -> str:
    name = f"{server.host}/app:1"

    def sign(repository: Repository, reference: Reference, root: Descriptor) -> None:
        cosign.sign_manifest(repository, reference, root, key)

    with RegistryClient(sleep=lambda _: None) as client:
        reference = Reference.parse(name)
        PushExporter((Target(client.repository(reference, writable=True), (reference,)),), sign=sign).export(one())
    return name


def verify(directory: Path, key: bytes, name: str) -> tuple[str, str]:
    (directory / "k.pub").write_bytes(key)
    terminal = Terminal(io.BytesIO(), io.BytesIO(), io.BytesIO(), {"HOME": str(directory)}, str(directory))
    assert run(["--key", "k.pub", name], terminal) == 0
    return terminal.stdout.getvalue().decode(), terminal.stderr.getvalue().decode()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("bits", "said"), [(2048, "warning: k.pub: an RSA key of 2048 bits is weak: use 3072 or more\n"), (3072, "")]
)
def test_a_short_rsa_key_is_taken_with_a_warning(server: RegistryServer, tmp_path: Path, bits: int, said: str) -> None:
    made = rsa.generate_private_key(65537, bits)
    key = PrivateKey.parse(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), lambda: b"")
    digest = f"{one().descriptor.digest}\n"
    assert verify(tmp_path, key.public.pem, pushed(server, key)) == (digest, said)


def test_a_key_that_is_too_weak_is_refused_before_the_registry_is_asked(server: RegistryServer, tmp_path: Path) -> None:
    weak = ec.generate_private_key(ec.SECP256K1()).public_key()
    pem = weak.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(SignatureError, match="secp256k1, which is not allowed"):
        verify(tmp_path, pem, f"{server.host}/app:1")
    assert server.lines == []
