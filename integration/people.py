"""Users, and kpy as one of them."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass(frozen=True)
class User:
    """An account to run kpy as."""

    name: str
    uid: int
    gid: int
    subordinate: bool


@dataclass(frozen=True)
class Kpy:
    """kpy, as `user`, with `home` as its home: everything it keeps is below that."""

    program: str
    user: User
    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def __call__(
        self,
        *argv: str | Path,
        check: bool = True,
        cwd: Path | None = None,
        stdin: bytes = b"",
        timeout: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end. With `check`, an exit code other than 0 fails the test and shows the output."""
        done = subprocess.run(
            [self.program, *map(str, argv)], cwd=cwd or self.home, input=stdin, capture_output=True, timeout=timeout,
            check=False, **self.spawn(),
        )  # fmt: skip
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode:
            pytest.fail(
                f"kpy {' '.join(map(str, argv))}: exit code {done.returncode}\n{out}{err}", pytrace=False
            )
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def spawn(self) -> dict[str, object]:
        """The arguments for subprocess that make a program run as this user, in this home, with a bare environment."""
        environment = {
            "HOME": str(self.home),
            "USER": self.user.name,
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
        }
        return {
            "user": self.user.uid,
            "group": self.user.gid,
            "extra_groups": [],
            "umask": 0o022,
            "env": {**environment, **self.variables},
        }

    def with_env(self, **variables: str) -> "Kpy":
        """The same, with more environment variables."""
        return Kpy(self.program, self.user, self.home, {**self.variables, **variables})
