"""NaCl's secretbox, XSalsa20-Poly1305, for the few hundred bytes of a key file.

cosign keeps its keys in it, and the cryptography package has Poly1305 but no Salsa20. Pure Python: too slow for more
than keys, and not constant-time, which matters to nobody who runs on the machine where the passphrase is typed.
Source: Bernstein, "Salsa20 specification", "Extending the Salsa20 nonce" and "Cryptography in NaCl".
"""

import struct

_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_MASK = 0xFFFFFFFF
_ROUND = (  # (target, a, b, rotation): x[target] ^= rotl(x[a] + x[b]); a column round, then a row round
    (4, 0, 12, 7), (8, 4, 0, 9), (12, 8, 4, 13), (0, 12, 8, 18), (9, 5, 1, 7), (13, 9, 5, 9), (1, 13, 9, 13),
    (5, 1, 13, 18), (14, 10, 6, 7), (2, 14, 10, 9), (6, 2, 14, 13), (10, 6, 2, 18), (3, 15, 11, 7), (7, 3, 15, 9),
    (11, 7, 3, 13), (15, 11, 7, 18), (1, 0, 3, 7), (2, 1, 0, 9), (3, 2, 1, 13), (0, 3, 2, 18), (6, 5, 4, 7),
    (7, 6, 5, 9), (4, 7, 6, 13), (5, 4, 7, 18), (11, 10, 9, 7), (8, 11, 10, 9), (9, 8, 11, 13), (10, 9, 8, 18),
    (12, 15, 14, 7), (13, 12, 15, 9), (14, 13, 12, 13), (15, 14, 13, 18),
)  # fmt: skip


def _state(key: bytes, block: bytes) -> list[int]:
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", block)
    return [_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3]]


def _mix(state: list[int]) -> list[int]:
    x = list(state)
    for _ in range(10):
        for target, a, b, rotation in _ROUND:
            total = (x[a] + x[b]) & _MASK
            x[target] ^= ((total << rotation) | (total >> (32 - rotation))) & _MASK
    return x


def _hsalsa20(key: bytes, block: bytes) -> bytes:
    x = _mix(_state(key, block))
    return struct.pack("<8I", *(x[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))


def _xsalsa20(key: bytes, nonce: bytes, length: int) -> bytes:
    derived = _hsalsa20(key, nonce[:16])
    parts = []
    for counter in range(-(-length // 64)):
        state = _state(derived, nonce[16:] + struct.pack("<Q", counter))
        mixed = _mix(state)
        parts.append(struct.pack("<16I", *((a + b) & _MASK for a, b in zip(state, mixed, strict=True))))
    return b"".join(parts)[:length]


def _xor(data: bytes, stream: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, stream, strict=True))


def seal(message: bytes, nonce: bytes, key: bytes) -> bytes:
    """Encrypt; the result is 16 bytes longer. The nonce has 24 bytes and must never come again with the same key."""
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    stream = _xsalsa20(key, nonce, 32 + len(message))
    sealed = _xor(message, stream[32:])
    return Poly1305.generate_tag(stream[:32], sealed) + sealed


def unseal(box: bytes, nonce: bytes, key: bytes) -> bytes:
    """Decrypt. Raises ValueError when key or nonce are not those, or the box was changed."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    tag, sealed = box[:16], box[16:]
    stream = _xsalsa20(key, nonce, 32 + len(sealed))
    try:
        Poly1305.verify_tag(stream[:32], sealed, tag)
    except InvalidSignature as error:
        raise ValueError("the box cannot be opened") from error
    return _xor(sealed, stream[32:])
