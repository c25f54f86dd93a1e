"""Private key files as an SSH agent that lists its keys and signs (draft-miller-ssh-agent; RFC 4253, 5656, 8332, 8709).

No key with a passphrase: nobody is there to be asked. No SHA-1, no DSA.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from kpy.errors import UsageError

_FAILURE, _REQUEST_IDENTITIES, _IDENTITIES, _SIGNATURE = 5, 11, 12, 14
_SHA2_256, _SHA2_512 = 2, 4  # flags of a sign request
_CURVES: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "secp256r1": ("ecdsa-sha2-nistp256", hashes.SHA256()),
    "secp384r1": ("ecdsa-sha2-nistp384", hashes.SHA384()),
    "secp521r1": ("ecdsa-sha2-nistp521", hashes.SHA512()),
}

Key = ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class KeyAgent:
    """Keys by their public blob, each with a comment for `ssh-add -l`."""

    keys: dict[bytes, tuple[Key, str]] = field(repr=False)

    @staticmethod
    def load(ident: str, files: Sequence[tuple[str, bytes]]) -> "KeyAgent":
        """Read key files, as (path, content). Raises UsageError that names the file."""
        keys: dict[bytes, tuple[Key, str]] = {}
        for path, data in files:
            key = _load(f"--ssh {ident}: {path}", data)
            public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
            keys[base64.b64decode(public.split()[1])] = (key, path.rpartition("/")[2])
        return KeyAgent(keys)

    def answer(self, message: bytes, _upstream: object, /) -> bytes:
        """The answer to an identities or a sign request. Raises ValueError for what is no request."""
        if message[0] == _REQUEST_IDENTITIES:
            rows = [_string(blob) + _string(comment.encode()) for blob, (_, comment) in self.keys.items()]
            return bytes([_IDENTITIES]) + len(rows).to_bytes(4, "big") + b"".join(rows)
        blob, rest = _read(message[1:])
        data, rest = _read(rest)
        if len(rest) < 4:
            raise ValueError("cut off")
        found = self.keys.get(blob)
        signed = _sign(found[0], data, int.from_bytes(rest[:4], "big")) if found else None
        return bytes([_FAILURE]) if signed is None else bytes([_SIGNATURE]) + _string(signed)


def _load(shown: str, data: bytes) -> Key:
    hint = "it must be a private key, RSA, ECDSA or Ed25519, in OpenSSH's or PEM format"
    openssh = b"-----BEGIN OPENSSH PRIVATE KEY-----" in data
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        key = load(data, None)
    except TypeError as error:  # cryptography says so of a key that wants a password
        raise UsageError(
            f"{shown} is protected by a passphrase", hint="add it to an agent (ssh-add), and give the agent: --ssh default"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{shown} is no private key that can be used", hint=hint) from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        return key
    raise UsageError(f"{shown} is a key of a type that is not supported", hint=hint)


def _sign(key: Key, data: bytes, flags: int) -> bytes | None:
    """A signature in SSH's form; None where only SHA-1 would do."""
    match key:
        case ed25519.Ed25519PrivateKey():
            return _string(b"ssh-ed25519") + _string(key.sign(data))
        case rsa.RSAPrivateKey():
            if flags & _SHA2_512:
                return _string(b"rsa-sha2-512") + _string(key.sign(data, padding.PKCS1v15(), hashes.SHA512()))
            if flags & _SHA2_256:
                return _string(b"rsa-sha2-256") + _string(key.sign(data, padding.PKCS1v15(), hashes.SHA256()))
            return None
        case _:
            name, algorithm = _CURVES[key.curve.name]
            r, s = decode_dss_signature(key.sign(data, ec.ECDSA(algorithm)))
            return _string(name.encode()) + _string(_mpint(r) + _mpint(s))


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _mpint(number: int) -> bytes:
    return _string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _read(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:4], "big")
    if len(data) < 4 or size > len(data) - 4:
        raise ValueError("cut off")
    return data[4 : 4 + size], data[4 + size :]
