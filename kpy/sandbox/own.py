"""What a container lends to the RUNs in it, where none can have its own: /etc/hosts, resolv.conf, hostname, /dev/shm. Every
RUN finds them as the container's runtime made them: what one leaves in them, the next must not see (R06, R08).
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from kpy.errors import SandboxError
from kpy.sandbox.base import Process
from kpy.util.erase import remove
from kpy.util.mountinfo import mount_points

FILES = ("etc/hosts", "etc/resolv.conf", "etc/hostname")
SHM = "dev/shm"
_DEFAULT_HOSTNAME = Process.__dataclass_fields__["hostname"].default
_LIMIT = 1 << 20


@contextmanager
def lent(root: str = "/") -> Iterator[None]:
    """Have them afterwards as they are now. Only those that are mounts: others belong to the image."""
    mounted = {os.fsdecode(path) for path in mount_points(root)}
    with ExitStack() as stack:
        for name in FILES:
            if name in mounted:
                stack.enter_context(_kept(os.path.join(root, name)))
        if SHM in mounted:
            stack.enter_context(_emptied(os.path.join(root, SHM)))
        yield


@contextmanager
def _kept(path: str) -> Iterator[None]:
    """Written in place, for it cannot be replaced; through a descriptor of before, for the path may lead elsewhere then."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield  # who may not write it cannot put it back: no RUN can change it then, or it is a link of the image's
        return
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        before = file.read(_LIMIT) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
        try:
            yield
        finally:
            file.seek(0)
            if before is not None and file.read(_LIMIT) != before:
                with suppress(OSError):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, before, 0)


@contextmanager
def _emptied(directory: str) -> Iterator[None]:
    """What was there stays: whoever started the container put it there."""
    before = set(_names(directory))
    try:
        yield
    finally:
        for name in _names(directory):
            if name not in before:
                with suppress(OSError):
                    remove(os.path.join(directory, name))


def _names(directory: str) -> Sequence[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def check_lent(process: Process, shm: str = f"/{SHM}") -> None:
    """Raise SandboxError for a hostname or a size of /dev/shm that only a RUN with namespaces of its own could have."""
    here = os.uname().nodename
    if process.hostname not in (_DEFAULT_HOSTNAME, here):
        raise SandboxError(
            f"BUILDKIT_SANDBOX_HOSTNAME={process.hostname}: a RUN has the hostname of its container here, {here}",
            hint="leave it out, or build where user namespaces are allowed",
        )
    try:
        found = os.statvfs(shm)
    except OSError:
        return  # there is none, or it is an ordinary directory to come: as large as the disk
    size = found.f_blocks * found.f_frsize
    if process.shm_size > size:
        raise SandboxError(
            f"--shm-size={process.shm_size}: /dev/shm of this container has {size} bytes",
            hint="start the container with a larger one: docker run --shm-size, or an emptyDir of medium Memory",
        )
