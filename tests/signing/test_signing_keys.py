"""Keys: cosign's format, other formats, wrong passphrases, files that are not overwritten (3.4)."""

import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kpy.errors import SignatureError, UsageError
from kpy.signing import keyfile, secretbox
from kpy.signing.base import Signer, Verifier
from kpy.signing.keys import PrivateKey, PublicKey, write_pair

_: type[Signer] = PrivateKey
__: type[Verifier] = PublicKey


def no_passphrase() -> bytes:
    raise AssertionError("asked for a passphrase that is not needed")


def test_secretbox_vector_of_nacl() -> None:
    # tests/secretbox.c of NaCl, "Cryptography in NaCl" section 10
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    message = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c6129"
        "6cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde"
        "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"
    )
    box = secretbox.seal(message, nonce, key)
    assert box[:32].hex() == "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce"
    assert secretbox.unseal(box, nonce, key) == message


@settings(max_examples=30)
@given(st.binary(max_size=200), st.binary(min_size=24, max_size=24), st.binary(min_size=32, max_size=32), st.integers(0, 2000))
def test_secretbox_round_trip_and_tampering(message: bytes, nonce: bytes, key: bytes, where: int) -> None:
    box = secretbox.seal(message, nonce, key)
    assert secretbox.unseal(box, nonce, key) == message
    changed = bytearray(box)
    changed[where % len(box)] ^= 1
    with pytest.raises(ValueError):
        secretbox.unseal(bytes(changed), nonce, key)


# Made by Go's x/crypto through go-securesystemslib (its test vectors; passphrase "supersecret").
VECTORS = [
    ('{"kdf":{"name":"scrypt","params":{"N":32768,"r":8,"p":1},"salt":"WO3mVvyTwJ9vwT5/Tk5OW5WPIBUofMjcpEfrLnfY4uA="},'
    '"cipher":{"name":"nacl/secretbox","nonce":"tCy7HcTFr4uxv4Nrg/DWmncuZ148U1MX"},'
    '"ciphertext":"08n43p5G5yviPEZpO7tPPF4aZQkWiWjkv4taFdhDBA0tamKH4nw="}'),
    ('{"kdf":{"name":"scrypt","params":{"N":65536,"r":8,"p":1},"salt":"FhzPOt9/bJG4PTq6lQ6ecG6GzaOuOy/ynG5+yRiFlNs="},'
    '"cipher":{"name":"nacl/secretbox","nonce":"aw1ng1jHaDz/tQ7V2gR9O2+IGQ8xJEuE"},'
    '"ciphertext":"HycvuLZL4sYH0BrYTh4E/H20VtAW6u5zL5Pr+IBjYLYnCPzDkq8="}'),
]


@pytest.mark.parametrize("text", VECTORS)
def test_envelopes_made_by_go(text: str) -> None:
    assert json.loads(keyfile.open_envelope(json.loads(text), b"supersecret")) == "cmVhbGx5aW1wb3J0YW50"
    with pytest.raises(SignatureError, match="cannot be decrypted"):
        keyfile.open_envelope(json.loads(text), b"other")


def change(path: str, value: object) -> dict:
    data = json.loads(VECTORS[0])
    *way, last = path.split("/")
    here = data
    for name in way:
        here = here[name]
    here[last] = value
    return data


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"kdf": 1, "cipher": 2}, change("kdf/name", "pbkdf2"), change("kdf/params/N", 1 << 20),
     change("kdf/params/N", 3), change("kdf/params/N", "x"), change("kdf/params/p", 10**9), change("kdf/params/r", 0),
     change("cipher/nonce", "AAAA"), change("ciphertext", "AA=="), change("ciphertext", "!"), change("kdf/salt", 5)],
)  # fmt: skip
def test_hostile_envelopes(data: object) -> None:
    with pytest.raises(SignatureError):
        keyfile.open_envelope(data, b"supersecret")


def test_key_pair_round_trip(tmp_path: Path) -> None:
    key = PrivateKey.generate()
    write_pair(key, tmp_path / "k.key", tmp_path / "k.pub", b"secret", force=False)
    assert (tmp_path / "k.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "k.key").read_bytes().startswith(b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    found = PrivateKey.load(tmp_path / "k.key", lambda: b"secret")
    public = PublicKey.load(tmp_path / "k.pub")
    assert found.key_id == public.key_id == key.key_id
    assert public.verifies(b"payload", found.sign(b"payload"))
    assert not public.verifies(b"Payload", found.sign(b"payload"))
    assert not public.verifies(b"payload", b"")
    with pytest.raises(SignatureError, match="cannot be decrypted"):
        PrivateKey.load(tmp_path / "k.key", lambda: b"wrong")


def test_openssl_agrees(tmp_path: Path) -> None:
    key = PrivateKey.generate()
    (tmp_path / "k.pub").write_bytes(key.public.pem)
    (tmp_path / "sig").write_bytes(key.sign(b"payload"))
    (tmp_path / "data").write_bytes(b"payload")
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "k.pub", "-signature", "sig", "data"], cwd=tmp_path, check=False,
        capture_output=True,
    )  # fmt: skip
    assert done.stdout == b"Verified OK\n"


def test_existing_files_stay(tmp_path: Path) -> None:
    key = PrivateKey.generate()
    (tmp_path / "k.pub").write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        write_pair(key, tmp_path / "k.key", tmp_path / "k.pub", b"", force=False)
    assert not (tmp_path / "k.key").exists()
    assert (tmp_path / "k.pub").read_text() == "precious"
    write_pair(key, tmp_path / "k.key", tmp_path / "k.pub", b"", force=True)
    assert PrivateKey.load(tmp_path / "k.key", lambda: b"").key_id == key.key_id


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("kind", ["p256", "p384", "rsa", "ed25519"])
@pytest.mark.parametrize("passphrase", [b"", b"secret"])
def test_other_kinds_and_formats(kind: str, form: PrivateFormat, passphrase: bytes) -> None:
    if kind == "ed25519" and form is PrivateFormat.TraditionalOpenSSL:
        form = PrivateFormat.PKCS8
    made = {
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    pem = made.private_bytes(Encoding.PEM, form, encryption)
    key = PrivateKey.parse(pem, (lambda: passphrase) if passphrase else no_passphrase)
    public = PublicKey.parse(made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert public.verifies(b"payload", key.sign(b"payload"))
    assert not public.verifies(b"payload", PrivateKey.generate().sign(b"payload"))
    if passphrase:
        for wrong in (b"", b"wrong"):
            with pytest.raises(SignatureError, match="cannot be decrypted"):
                PrivateKey.parse(pem, lambda wrong=wrong: wrong)


def test_confused_files() -> None:
    key = PrivateKey.generate()
    with pytest.raises(SignatureError, match="is a public key"):
        PrivateKey.parse(key.public.pem, no_passphrase)
    with pytest.raises(SignatureError, match="is a private key"):
        PublicKey.parse(key.encode(b""))
    for data in (b"", b"x", b"\xff", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(SignatureError):
            PublicKey.parse(data)
    for data in (b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                 b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n",
                 b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----"):  # fmt: skip
        with pytest.raises(SignatureError):
            PrivateKey.parse(data, lambda: b"")


def test_unsupported_kind() -> None:
    made = dsa.generate_private_key(1024)
    with pytest.raises(SignatureError, match="not supported"):
        PrivateKey.parse(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), no_passphrase)


KINDS = {
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
    "rsa2047": lambda: rsa.generate_private_key(65537, 2047),
    "p192": lambda: ec.generate_private_key(ec.SECP192R1()),
    "p224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
WEAK = {
    "rsa1024": "an RSA key of 1024 bits", "rsa2047": "an RSA key of 2047 bits", "p192": "the curve secp192r1",
    "p224": "the curve secp224r1", "secp256k1": "the curve secp256k1", "brainpool": "the curve brainpoolP256r1",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_strong_enough_or_refused(kind: str) -> None:
    """In each form that can be read, for signing and for verifying; and what is allowed signs what openssl can check."""
    made = KINDS[kind]()
    der = made.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    locked = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    public = made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private = (pem, locked, keyfile.encode(der, b"x"))
    if kind not in WEAK:
        for data in private:
            signature = PrivateKey.parse(data, lambda: b"x").sign(b"payload")
            assert PublicKey.parse(public).verifies(b"payload", signature)
        return
    for data in private:
        with pytest.raises(SignatureError, match=f"^k.key is .*{WEAK[kind]}") as refused:
            PrivateKey.parse(data, lambda: b"x", name="k.key")
        assert "RSA of 2048 bits and more, ECDSA on P-256, P-384 and P-521, and Ed25519" in refused.value.hint
    with pytest.raises(SignatureError, match=f"^k.pub is .*{WEAK[kind]}"):
        PublicKey.parse(public, name="k.pub")


@pytest.mark.parametrize(("kind", "said"), [("rsa2048", "an RSA key of 2048 bits is weak: use 3072 or more"), ("rsa3072", ""), ("p256", "")])
def test_a_key_that_is_just_allowed_says_so(kind: str, said: str) -> None:
    made = KINDS[kind]()
    public = PublicKey.parse(made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert public.weakness == said


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no key file"):
        PublicKey.load(tmp_path / "none")


def test_the_secret_is_not_shown() -> None:
    assert "0x" not in repr(PrivateKey.generate())
    assert "key" not in repr(PrivateKey.generate()).lower().replace("privatekey", "")
