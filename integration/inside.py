"""Run a test function in a process of its own that entered a user namespace, as root or as an ordinary user.

kpy enters once and for good; a test must come back. So: fork, become the user, enter, call, report.
"""

import os
import pwd
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kpy.sandbox.enter import IdMap, enter


class FailedInside(AssertionError):
    """The function raised; the message is its traceback."""


def inside(user: str, function: Callable[[IdMap], None]) -> None:
    """Call it in a user namespace entered by `user`. What it raises fails the test."""
    as_user(user, lambda: function(enter()))


def as_user(user: str, function: Callable[[], None]) -> None:
    """Call it in a fork that is `user`."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        status = 1
        try:
            account = pwd.getpwnam(user)
            os.initgroups(user, account.pw_gid)
            os.setresgid(*[account.pw_gid] * 3)
            os.setresuid(*[account.pw_uid] * 3)
            os.chdir("/")
            function()
            status = 0
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-60000:])
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        text = stream.read().decode()
    _, status = os.waitpid(pid, 0)
    if status:
        raise FailedInside(text or f"ended with {status}")


@contextmanager
def place_of(user: str) -> Iterator[Path]:
    """A directory on disk that belongs to the user."""
    path = Path(tempfile.mkdtemp(prefix="kpy-userns-", dir="/var/tmp"))
    account = pwd.getpwnam(user)
    os.chown(path, account.pw_uid, account.pw_gid)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def busybox_root(path: Path) -> Path:
    """A root file system with a shell, made inside the namespace."""
    (path / "bin").mkdir(parents=True)
    path.chmod(0o755)
    shutil.copy("/bin/busybox", path / "bin/busybox")
    (path / "bin/busybox").chmod(0o755)
    for name in BUSYBOX:
        (path / "bin" / name).symlink_to("busybox")
    (path / "etc").mkdir()
    (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\nstaff:x:50:app\napp:x:1000:\n")
    (path / "tmp").mkdir()
    (path / "tmp").chmod(0o1777)
    return path


BUSYBOX = (
    "cat chmod chown cp df dd echo env false grep hostname id ip kill ln ls mkdir mkfifo mknod mount mv nohup ps pwd "
    "readlink rm rmdir seq sh sleep sort stat su test touch true umount wc find head sync ping"
).split()
