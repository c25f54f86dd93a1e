"""cosign's format of a private key: PEM around JSON around PKCS#8, encrypted with scrypt and secretbox. Bytes only."""

import base64
import binascii
import hashlib
import json
import secrets
import textwrap
from typing import Any

from kpy.errors import SignatureError
from kpy.signing import secretbox
from kpy.util import canonical

LABELS = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
_N, _R, _P = 65536, 8, 1  # "standard" of go-securesystemslib, which cosign uses
_MAX_MEMORY = 512 << 20


def is_encrypted_key(pem: bytes) -> bool:
    """Is this the PEM of a key in cosign's format?"""
    return any(b"-----BEGIN " + label.encode() + b"-----" in pem for label in LABELS)


def encode(der: bytes, passphrase: bytes) -> bytes:
    """The PEM of a PKCS#8 key, encrypted with the passphrase (which may be empty)."""
    salt, nonce = secrets.token_bytes(32), secrets.token_bytes(24)
    box = secretbox.seal(der, nonce, _derive(passphrase, salt, _N, _R, _P))
    data = canonical.dumps(
        {
            "kdf": {"name": "scrypt", "params": {"N": _N, "r": _R, "p": _P}, "salt": _b64(salt)},
            "cipher": {"name": "nacl/secretbox", "nonce": _b64(nonce)},
            "ciphertext": _b64(box),
        }
    )
    lines = "\n".join(textwrap.wrap(_b64(data), 64))
    return f"-----BEGIN {LABELS[0]}-----\n{lines}\n-----END {LABELS[0]}-----\n".encode()


def decode(pem: bytes, passphrase: bytes) -> bytes:
    """The PKCS#8 key in the PEM. Raises SignatureError: a wrong passphrase, or a broken file."""
    label = next(item for item in LABELS if f"-----BEGIN {item}-----".encode() in pem)
    body = pem.partition(f"-----BEGIN {label}-----".encode())[2].partition(b"-----END")[0]
    try:
        data = json.loads(base64.b64decode(b"".join(body.split()), validate=True))
    except (ValueError, RecursionError) as error:
        raise SignatureError(f"the private key is broken: {error}") from error
    return open_envelope(data, passphrase)


def open_envelope(data: Any, passphrase: bytes) -> bytes:
    """What is encrypted in the JSON object. Raises SignatureError."""
    try:
        kdf, cipher = data["kdf"], data["cipher"]
        if (kdf["name"], cipher["name"]) != ("scrypt", "nacl/secretbox"):
            raise SignatureError(f"the private key is encrypted with {kdf['name']!r} and {cipher['name']!r}: not supported")
        n, r, p = (kdf["params"][name] for name in ("N", "r", "p"))
        salt, nonce, box = (_unb64(text) for text in (kdf["salt"], cipher["nonce"], data["ciphertext"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureError(f"the private key is broken: {type(error).__name__} in its envelope") from error
    if not all(isinstance(item, int) and 0 < item <= 1 << 20 for item in (n, r, p)) or 128 * n * r > _MAX_MEMORY or p > 16:
        raise SignatureError(f"the private key asks for scrypt with N={n!r} r={r!r} p={p!r}, which is out of bounds")
    if len(nonce) != 24 or not 16 <= len(box) <= 64 << 10:
        raise SignatureError("the private key is broken: its nonce or ciphertext has a wrong length")
    try:
        return secretbox.unseal(box, nonce, _derive(passphrase, salt, n, r, p))
    except ValueError as error:
        raise SignatureError(
            "the private key cannot be decrypted", hint="check the passphrase, in KPY_KEY_PASSWORD: it is wrong, or the file was changed"
        ) from error


def _derive(passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(passphrase, salt=salt, n=n, r=r, p=p, maxmem=_MAX_MEMORY + (64 << 20), dklen=32)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
