"""What a sandbox is, and the values it takes. Implementations stand beside this file."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from kpy.linux.ledger import Ledger
from kpy.linux.users import Identity as Identity  # noqa: PLC0414 - others import it from here
from kpy.util.cancel import Cancel


@dataclass(frozen=True, slots=True)
class Process:
    """What to run. `argv[0]` without a slash is looked up in the PATH of `env`, in the root (R02).

    `env` items are `NAME=value`. `cwd` is absolute. umask is 0022 (R05), stdin /dev/null (R24).
    `network`: `default` and `host` share the builder's network where the environment gives no other; `none` has
    only a loopback interface, or where that cannot be, no network sockets at all; or is a SandboxError before anything
    runs.
    `hosts` are extra (name, address) lines of /etc/hosts. `shm_size` bytes, 0 = the default 64 MiB.
    `ulimits` are (name, soft, hard) with the names of docker's --ulimit, -1 for no limit (R19).
    """

    argv: tuple[str, ...]
    env: tuple[str, ...] = field(repr=False)
    cwd: str = "/"
    identity: Identity = Identity()  # noqa: RUF009 - frozen
    network: Literal["default", "none", "host"] = "default"
    hostname: str = "buildkitsandbox"
    hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0
    ulimits: tuple[tuple[str, int, int], ...] = ()

    def with_identity(self, identity: Identity) -> "Process":
        """The same process as somebody else."""
        return replace(self, identity=identity)


@dataclass(frozen=True, slots=True)
class Mount:
    """Something to mount in the root for one RUN; the target is made if it is not there, and removed again (R07).

    `bind`: `source` is a path on the host (directory, file or socket). Its beginning `base` is trusted: kpy made it, or the
    user named it; below it, an image or a context may have made links, and none is followed. "": all but the last name is
    trusted. With `discard`, it is writable and what is
    written is dropped (R14 rw), with the source if that is `ours`: made for this RUN; where root is emulated, it shows as
    `uid` and `gid`'s, and `ledger` knows of its files what the disk cannot say, after the RUN too where what is written is
    kept. `tmpfs`: `size` bytes, 0 = no limit. `file`: `data` as a file of `mode`, `uid`, `gid` (secrets, R17: never on
    disk).
    `target` is an absolute path in the root; symlinks are followed inside the root, never out of it.
    """

    kind: Literal["bind", "tmpfs", "file"]
    target: str
    source: str = ""
    base: str = ""
    read_only: bool = False
    discard: bool = False
    ours: bool = False
    size: int = 0
    data: bytes = field(default=b"", repr=False)
    mode: int = 0o400
    uid: int = 0
    gid: int = 0
    ledger: Ledger | None = field(default=None, repr=False, compare=False)


    @property
    def trusted(self) -> str:
        """The beginning of the source below which no link is followed."""
        return self.base or os.path.dirname(self.source) or "/"


class Sandbox(Protocol):
    """Runs processes in root file systems."""

    def check(self, process: Process, mounts: Sequence[Mount], /) -> None:
        """Raise SandboxError, naming the instruction's flag, if this environment cannot run it. Called for every
        RUN before the first one runs."""
        ...

    def run(
        self,
        process: Process,
        root: str,
        mounts: Sequence[Mount],
        log: Callable[[bytes], None],
        cancel: Cancel,
        /,
    ) -> int:
        """Run to the end and return the exit code (128+N for signal N). stdout and stderr go to `log` as they come.

        When it returns or raises, no process of it is left (R23), mounts are gone, and stubs made for them are
        removed with the times of their parents as they were. `cancel` ends it: raises InterruptedBuildError.
        A program that cannot be started (not found, not executable) is exit code 127 or 126 with a line in the log.
        Raises SandboxError when the environment refuses.
        """
        ...
