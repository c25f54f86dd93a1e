"""The home directory that a root's /etc/passwd gives a user. Never asks the C library: it would read the files of
whichever root it is in, and load the modules that nsswitch.conf names there."""

import os
import stat

from kpy.errors import SandboxError
from kpy.sandbox.emulate import resolve

_LIMIT = 1 << 20


def home(root: str, uid: int) -> str:
    """HOME of a process that has none (R04): of the first line with this uid, else `/`."""
    try:
        descriptor = os.open(
            resolve(root, "/etc/passwd"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except (OSError, SandboxError):
        return "/"
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return "/"
        text = file.read(_LIMIT).decode("utf-8", "surrogateescape")
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) > 5 and fields[2].strip() == str(uid):
            return fields[5] or "/"
    return "/"
