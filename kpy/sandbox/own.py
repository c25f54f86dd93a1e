"""What a container lends to the RUNs in it, where none can have its own: /etc/hosts, resolv.conf, hostname, /dev/shm and
/dev/mqueue. Every RUN finds them as the container's runtime made them: what one leaves in them, the next must not see.
The message that Kubernetes shows when the container ends is the builder's, too.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO

from kpy.errors import SandboxError
from kpy.linux.beneath import LIST, Beneath, names
from kpy.sandbox.base import Process
from kpy.util.erase import remove
from kpy.util.mountinfo import mount_points

FILES = ("etc/hosts", "etc/resolv.conf", "etc/hostname")
MESSAGE = "dev/termination-log"
"""Where Kubernetes takes that message from, unless told otherwise (terminationMessagePath)."""
SHM, QUEUES = "dev/shm", "dev/mqueue"
_DEFAULT_HOSTNAME = Process.__dataclass_fields__["hostname"].default
_LIMIT = 1 << 20


@contextmanager
def lent(root: str = "/") -> Iterator[None]:
    """Have them afterwards as they are now. Only those that are mounts: others belong to the image. All by descriptors of
    before the RUN, and below the root no link is followed: it may have put one there."""
    mounted = {os.fsdecode(path) for path in mount_points(root)}
    with ExitStack() as stack:
        tree = stack.enter_context(Beneath(root))
        for name in (*FILES, MESSAGE):
            if name in mounted:
                stack.enter_context(_kept(tree, os.fsencode(name)))
        for name in (SHM, QUEUES):
            if name in mounted:
                stack.enter_context(_emptied(tree, os.fsencode(name)))
        yield


@contextmanager
def _kept(tree: Beneath, path: bytes) -> Iterator[None]:
    """Written in place, for it cannot be replaced."""
    try:
        file = _open_in_place(tree, path)
    except OSError:
        yield  # who may not write it cannot put it back: no RUN can change it then, or it is a link of the image's
        return
    if file is None:
        yield
        return
    with file:
        before = file.read(_LIMIT)
        try:
            yield
        finally:
            file.seek(0)
            if file.read(_LIMIT) != before:
                with suppress(OSError):
                    os.ftruncate(file.fileno(), 0)
                    os.pwrite(file.fileno(), before, 0)


def _open_in_place(tree: Beneath, path: bytes) -> FileIO | None:
    """A regular file that is to be read and written; None for anything else. Raises OSError."""
    descriptor = tree.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return FileIO(descriptor, "r+b")
    os.close(descriptor)
    return None


@contextmanager
def _emptied(tree: Beneath, path: bytes) -> Iterator[None]:
    """What was there stays: whoever started the container put it there."""
    try:
        directory = tree.open(path, LIST)
    except OSError:
        yield
        return
    try:
        before = set(names(directory))
        try:
            yield
        finally:
            for name in names(directory):
                if name not in before:
                    with suppress(OSError):
                        remove(name, directory)
    finally:
        os.close(directory)


@contextmanager
def extra_hosts(hosts: Sequence[tuple[str, str]], root: str = "/") -> Iterator[None]:
    """Have these (name, address) lines in the container's /etc/hosts (written in place: it is a mount) while the block runs.
    Raises SandboxError if it cannot be written, or is no regular file."""
    if not hosts:
        yield
        return
    try:
        with Beneath(root) as tree:
            file = _open_in_place(tree, b"etc/hosts")
        if file is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        old = file.readall()
        file.write((b"\n" if old and not old.endswith(b"\n") else b"") + hosts_lines(hosts))
    except OSError as error:
        raise SandboxError(
            f"cannot add hosts to /etc/hosts: {error.strerror}", errno=error.errno or 0
        ) from error
    with file:
        try:
            yield
        finally:
            os.ftruncate(file.fileno(), 0)
            os.pwrite(file.fileno(), old, 0)


def hosts_lines(hosts: Sequence[tuple[str, str]]) -> bytes:
    """Lines of /etc/hosts for (name, address) pairs."""
    return "".join(f"{address}\t{name}\n" for name, address in hosts).encode()


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
