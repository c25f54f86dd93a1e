"""overlayfs as a user namespace may use it: `userxattr`, so that marks are `user.overlay.*`. Knows no layers.

With userxattr the kernel allows neither redirects nor metacopies: what is in an upper directory is complete.
"""

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack

from kpy.linux import libc
from kpy.linux.mount import MS_RDONLY, Pending, by_descriptor

PRIVATE_XATTRS = "user.overlay."
_OPAQUE = "user.overlay.opaque"
_PAGE = 4096  # mount(2) takes its options in one page


def mount(
    lowers: Sequence[str], target: str, *, upper: str = "", work: str = "", volatile: bool = False
) -> None:
    """Mount the directories `lowers`, the topmost first, below `upper`; without upper read-only, and then there must
    be two at least. `volatile`: nothing is synced to disk (Linux 5.10; ignored where unknown). Raises OSError."""
    with ExitStack() as stack:

        def name(path: str) -> bytes:
            # By descriptor: short, so that 200 layers fit the page, and no comma or colon to escape.
            descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            return by_descriptor(descriptor)

        # index=off: an upper directory must not remember the lower it had (Documentation/filesystems/overlayfs.rst)
        options = [(b"index", b"off"), *([(b"upperdir", name(upper)), (b"workdir", name(work))] if upper else [])]
        flags = [b"userxattr", *([b"volatile"] if volatile and upper else [])]
        layers = [name(lower) for lower in lowers]
        try:
            _mount(layers, options, flags, os.fsencode(target))
        except OSError as error:
            if error.errno != errno.EINVAL or b"volatile" not in flags:
                raise
            _mount(layers, options, flags[:1], os.fsencode(target))


def _mount(lowers: list[bytes], options: list[tuple[bytes, bytes]], flags: list[bytes], target: bytes) -> None:
    writable = any(key == b"upperdir" for key, _ in options)
    pairs = [*options, (b"lowerdir", b":".join(lowers))]
    data = b",".join([*flags, *(key + b"=" + value for key, value in pairs)])
    if len(data) < _PAGE:
        libc.mount(b"overlay", target, b"overlay", 0 if writable else MS_RDONLY, data)
        return
    with Pending(b"overlay") as pending:
        for flag in flags:
            pending.flag(flag)
        for key, value in [*options, *((b"lowerdir+", lower) for lower in lowers)]:  # Linux 6.5
            pending.text(key, value)
        pending.attach(target, read_only=not writable)


def is_whiteout(found: os.stat_result) -> bool:
    """Is this file of an upper directory a mark that the name is gone?"""
    return found.st_rdev == 0 and (found.st_mode & 0o170000) == 0o020000


def is_opaque(directory: bytes) -> bool:
    """Does this directory of an upper directory hide all that lower ones have at its path?"""
    try:
        return os.getxattr(directory, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False
