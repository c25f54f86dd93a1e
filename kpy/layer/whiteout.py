"""Whiteouts: the marker files of a layer and what they mean (OCI image-spec, layer.md#whiteouts).

Knows nothing of tar or disks.
"""

from kpy.errors import ContentError
from kpy.layer.entry import Kind

PREFIX = ".wh."
OPAQUE_NAME = ".wh..wh..opq"
META_PREFIX = ".wh..wh."  # what AUFS kept for itself; docker skips it


def marker(path: str) -> str:
    """The name under which a layer says that `path` goes: `a/b` -> `a/.wh.b`."""
    parent, slash, name = path.rpartition("/")
    return f"{parent}{slash}{PREFIX}{name}"


def opaque_marker(path: str) -> str:
    """The name under which a layer says that the lower content of directory `path` goes."""
    return f"{path}/{OPAQUE_NAME}" if path else OPAQUE_NAME


def holds_marker(path: str) -> bool:
    """Does a component of the path begin like a marker? No ordinary file of a layer may be called so (C29)."""
    return path.startswith(PREFIX) or "/.wh." in path


def read_marker(path: str) -> tuple[Kind, str] | None:
    """What a path of a layer in which `holds_marker` means: (WHITEOUT, what goes), (OPAQUE, the directory).

    None for the metadata of AUFS, which is to be skipped. Raises ContentError for a marker of nothing, of `.` or
    `..`, and for a path below a marker, as containerd does.
    """
    parent, _, name = path.rpartition("/")
    if holds_marker(parent):
        if any(part.startswith(META_PREFIX) for part in parent.split("/")):
            return None
        raise ContentError(f"layer has {path[:200]!r}, a file below a whiteout")
    if name == OPAQUE_NAME:
        return Kind.OPAQUE, parent
    if name.startswith(META_PREFIX):
        return None
    target = name[len(PREFIX) :]
    if target in ("", ".", ".."):
        raise ContentError(f"layer has the invalid whiteout {path[:200]!r}")
    return Kind.WHITEOUT, f"{parent}/{target}" if parent else target
