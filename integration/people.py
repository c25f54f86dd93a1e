"""Users, and kpy as one of them."""

import pwd
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import servers


@dataclass(frozen=True)
class User:
    """An account to run kpy as."""

    name: str
    uid: int
    gid: int
    subordinate: bool


def account(name: str, ids: str = "") -> User:
    """The user of this name, made if need be, with subordinate ids: FIRST-LAST for one who has none yet, none if empty."""
    with servers.turn("accounts"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            subprocess.run([servers.tool("useradd"), "--create-home", "--shell", "/bin/bash", name], check=True)
            found = pwd.getpwnam(name)
        for kind in ("uids", "gids"):
            spans = _subordinate(name, Path(f"/etc/sub{kind[:-1]}"))
            if ids and not spans:
                change = [f"--add-sub{kind}", ids]
            else:  # useradd may have given some
                change = [word for span in spans if not ids for word in (f"--del-sub{kind}", span)]
            if change:
                subprocess.run([servers.tool("usermod"), *change, name], check=True)
    return User(name, found.pw_uid, found.pw_gid, subordinate=bool(ids))


def _subordinate(name: str, file: Path) -> list[str]:
    rows = [line.split(":") for line in file.read_text().splitlines()] if file.exists() else []
    return [f"{first}-{int(first) + int(count) - 1}" for owner, first, count in rows if owner == name and first.isdigit()]


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
