"""Device nodes where the kernel permits none: an empty file whose xattr says what it stands for (C16).

The extractor writes these placeholders, snapshots read them back. Refuses anything but this one format.
"""

from kpy.layer.entry import Kind

DEVICE_XATTR = "user.kpy.device"

# xattrs that only this host's file systems or kpy itself may set: from a layer they would forge whiteouts, redirects
# (Documentation/filesystems/overlayfs.rst) or device nodes
PRIVATE_XATTRS = ("trusted.overlay.", "user.overlay.", "user.kpy.")

_LETTERS = {Kind.CHAR: "c", Kind.BLOCK: "b"}


def encode_device(kind: Kind, device: tuple[int, int]) -> bytes:
    """The value of DEVICE_XATTR for a CHAR or BLOCK: `c:1:3`."""
    return f"{_LETTERS[kind]}:{device[0]}:{device[1]}".encode()


def decode_device(value: bytes) -> tuple[Kind, tuple[int, int]] | None:
    """Kind and numbers of a placeholder; None if the value is not one."""
    parts = value.split(b":")
    if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()) or len(value) > 32:
        return None
    for kind, letter in _LETTERS.items():
        if parts[0] == letter.encode():
            return kind, (int(parts[1]), int(parts[2]))
    return None
