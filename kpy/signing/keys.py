"""Key pairs: make, write, read, sign, check. ECDSA, RSA and Ed25519, as cosign uses them: SHA-256, PKCS#1 v1.5.

A key that is too weak is refused where it is read, for signing and for verifying alike. The seam to the cryptography package: none of its exceptions leaves this file.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from kpy.errors import SignatureError, UsageError
from kpy.signing import keyfile
from kpy.util import fs

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    Private: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    Public: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_MAX_FILE = 64 << 10
# NIST SP 800-131A: fewer than 112 bits of security are disallowed; secp256k1 is not among the curves of SP 800-186.
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_RSA_LEAST = 2048
_RSA_ADVISED = 3072  # SP 800-57 part 1: 112 bits of security, which 2048 have, are enough until 2030
_ALLOWED = f"RSA of {_RSA_LEAST} bits and more, ECDSA on P-256, P-384 and P-521, and Ed25519"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A Verifier."""

    _key: "Public" = field(repr=False)

    @property
    def pem(self) -> bytes:
        """As PEM, SubjectPublicKeyInfo: what cosign calls cosign.pub."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def key_id(self) -> str:
        """The SHA-256 of the key's DER form."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        der = self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"SHA256:{hashlib.sha256(der).hexdigest()}"

    def verifies(self, payload: bytes, signature: bytes, /) -> bool:
        """Was this signature of this payload made with the private half of this key?"""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

        try:
            if isinstance(self._key, ec.EllipticCurvePublicKey):
                self._key.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
            elif isinstance(self._key, rsa.RSAPublicKey):
                self._key.verify(signature, payload, padding.PKCS1v15(), hashes.SHA256())
            else:
                self._key.verify(signature, payload)
        except (InvalidSignature, ValueError):
            return False
        return True

    @property
    def weakness(self) -> str:
        """What to tell who uses the key, which is allowed; empty for most."""
        from cryptography.hazmat.primitives.asymmetric import rsa

        if isinstance(self._key, rsa.RSAPublicKey) and self._key.key_size < _RSA_ADVISED:
            return f"an RSA key of {self._key.key_size} bits is weak: use {_RSA_ADVISED} or more"
        return ""

    @staticmethod
    def parse(pem: bytes, *, name: str = "the public key") -> "PublicKey":
        """Read a PEM public key. Raises SignatureError, also for a key that is too weak."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        if b"PRIVATE KEY-----" in pem:
            raise SignatureError(f"{name} is a private key", hint="verifying takes the public key, such as cosign.pub")
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise SignatureError(f"{name} is not a PEM public key") from error
        if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey)):
            raise SignatureError(f"{name} is of a kind that is not supported", hint=f"allowed are {_ALLOWED}")
        _check(key, name)
        return PublicKey(key)

    @staticmethod
    def load(path: Path) -> "PublicKey":
        """Read a public key file. Raises SignatureError, UsageError if there is none."""
        return PublicKey.parse(_read(path), name=f"{path}")


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A Signer. Never shows its secret."""

    _key: "Private" = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self._key.public_key())

    @property
    def key_id(self) -> str:
        """The SHA-256 of the public half's DER form."""
        return self.public.key_id

    def sign(self, payload: bytes, /) -> bytes:
        """The signature of the payload."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(payload, ec.ECDSA(hashes.SHA256()))
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
        return self._key.sign(payload)

    def verifies(self, payload: bytes, signature: bytes, /) -> bool:
        """Was this signature made with this key?"""
        return self.public.verifies(payload, signature)

    def encode(self, passphrase: bytes) -> bytes:
        """The key in cosign's encrypted format."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        der = self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return keyfile.encode(der, passphrase)

    @staticmethod
    def generate() -> "PrivateKey":
        """A new key, ECDSA on P-256 as cosign's are."""
        from cryptography.hazmat.primitives.asymmetric import ec

        return PrivateKey(ec.generate_private_key(ec.SECP256R1()))

    @staticmethod
    def parse(pem: bytes, passphrase: Callable[[], bytes], *, name: str = "the private key") -> "PrivateKey":
        """Read a key in cosign's format or in PEM (PKCS#8, SEC 1, PKCS#1). Asks for the passphrase only if the key is
        encrypted. Raises SignatureError, which says whether passphrase or file is wrong, or the key too weak."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

        if b"-----BEGIN PUBLIC KEY" in pem:
            raise SignatureError(f"{name} is a public key", hint="signing takes the private key, such as cosign.key")
        try:
            if keyfile.is_encrypted_key(pem):
                key = load_der_private_key(keyfile.decode(pem, passphrase()), None)
            else:
                encrypted = b"ENCRYPTED" in pem
                key = load_pem_private_key(pem, (passphrase() or None) if encrypted else None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            if b"ENCRYPTED" in pem:
                raise SignatureError(f"{name} cannot be decrypted", hint="check the passphrase, in KPY_KEY_PASSWORD") from error
            raise SignatureError(f"{name} is not a PEM private key") from error
        if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
            raise SignatureError(f"{name} is of a kind that is not supported", hint=f"allowed are {_ALLOWED}")
        _check(key.public_key(), name)
        return PrivateKey(key)

    @staticmethod
    def load(path: Path, passphrase: Callable[[], bytes]) -> "PrivateKey":
        """Read a private key file. Raises SignatureError, UsageError if there is none."""
        return PrivateKey.parse(_read(path), passphrase, name=f"{path}")


def _check(key: "Public", name: str) -> None:
    """Raise SignatureError for a key that is too weak to trust what it signs."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _RSA_LEAST:
        raise SignatureError(f"{name} is an RSA key of {key.key_size} bits, which is too short", hint=f"allowed are {_ALLOWED}")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in _CURVES:
        raise SignatureError(f"{name} is an ECDSA key on the curve {key.curve.name}, which is not allowed", hint=f"allowed are {_ALLOWED}")


def write_pair(key: PrivateKey, private: Path, public: Path, passphrase: bytes, *, force: bool) -> None:
    """Write the key, encrypted and readable for its owner only, and its public half.

    Without `force`, existing files are an error, and stay as they are.
    """
    if not force:
        refuse_existing(private, public)
    data = key.encode(passphrase)
    with fs.io_errors("write", private):
        fs.write_atomic(private, data, mode=0o600, durable=True)
    with fs.io_errors("write", public):
        fs.write_atomic(public, key.public.pem, mode=0o644, durable=True)


def refuse_existing(*paths: Path) -> None:
    """Raise UsageError for a file that is there: a key that is lost cannot be made again."""
    for path in paths:
        if os.path.lexists(path):
            raise UsageError(f"{path} exists already", hint="choose another name, with --output-key-prefix, or remove it")


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(_MAX_FILE)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"there is no key file {path}", hint="kpy keygen makes a pair of keys") from error
    except OSError as error:
        raise fs.store_error("read", path, error) from error
