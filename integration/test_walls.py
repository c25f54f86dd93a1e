"""What is between a RUN and the kernel, the same in every mode: keys, mounts over the kernel's own files."""

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import builder as builders
import pytest
from builder import LiveKpy
from people import Kpy, User, account
from servers import Docker, tool
from test_restricted import RESTRICTED

HERE = Path(__file__).resolve().parent
UNCONFINED = ("--security-opt", "seccomp=unconfined")
IN_CONTAINER = {
    "live": ([], []),
    "live restricted": (["--user", "1000:1000", *RESTRICTED], []),
    "live unconfined": (["--user", "1000:1000", *RESTRICTED, *UNCONFINED], ["--isolation=live"]),
    "live admin": (["--cap-add", "SYS_ADMIN", *UNCONFINED], ["--isolation=live"]),
    "chroot": ([], ["--isolation=chroot"]),
    "chroot unconfined": ([*UNCONFINED], ["--isolation=chroot"]),
    "chroot admin": (["--cap-add", "SYS_ADMIN", *UNCONFINED], ["--isolation=chroot"]),
    "shared pids": (["--user", "1000:1000", *UNCONFINED], ["--isolation=userns"]),
    "shared pids, real ids": ([*UNCONFINED], ["--isolation=userns"]),
}
"""Options of `docker run`, and flags of `kpy build`."""
ON_HOST = ("userns", "userns of root", "one id")
MODES = [*ON_HOST, *IN_CONTAINER]
# The builder has a key in its session keyring, which is new, and then becomes kpy.
WITH_KEY = """import ctypes, os, sys
call = ctypes.CDLL(None, use_errno=True).syscall
call.restype = ctypes.c_long
join, add = {"x86_64": (250, 248), "aarch64": (219, 217)}[os.uname().machine]
if call(ctypes.c_long(join), ctypes.c_long(1), None) >= 0:
    made = call(ctypes.c_long(add), b"user", b"kpy-canary", b"k3y-of-the-builder", ctypes.c_long(18), ctypes.c_long(-3))
    print("has a key" if made >= 0 else "has no key", file=sys.stderr, flush=True)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Walls:
    """A way to build `Dockerfile` of a directory."""

    mode: str
    context: Path
    build: Callable[..., "subprocess.CompletedProcess[str]"]

    def write(self, dockerfile: str) -> None:
        (self.context / "Dockerfile").write_text(dockerfile)

    def says(self, dockerfile: str) -> str:
        """Build it; what is said."""
        self.write(dockerfile)
        done = self.build()
        assert done.returncode == 0, done.stderr
        return done.stderr

    def answers(self, dockerfile: str) -> dict[str, str]:
        """What walls.c says."""
        return dict(re.findall(r"^#\d+ [\d.]+ wall (\S+) (.*)$", self.says(dockerfile), re.MULTILINE))


@pytest.fixture(params=MODES)
def walls(request: pytest.FixtureRequest, program: str, dev: User, docker: Docker, area: Path, workdir: Path) -> Walls:
    context = workdir / "context"
    context.mkdir(mode=0o755)
    context.chmod(0o755)
    subprocess.run([tool("gcc"), "-O1", "-static", "-o", context / "walls", HERE / "walls.c"], check=True)
    (context / "walls").chmod(0o755)
    mode: str = request.param
    common = ["build", "--progress", "plain", "--no-cache", "-o", "type=cacheonly"]
    if mode in ON_HOST:
        home = workdir / "home"
        user = {"userns": dev, "userns of root": User("root", 0, 0, subordinate=False)}.get(mode) or account("kpy-solo")
        home.mkdir()
        os.chown(home, user.uid, user.gid)
        python = str(Path(program).parent / "python")
        kpy = Kpy(python, user, home)
        return Walls(mode, context, lambda: kpy("-c", WITH_KEY, program, *common, "--isolation=userns", context, check=False))
    options, flags = IN_CONTAINER[mode]
    live = LiveKpy(docker, builders.make(docker))

    def build() -> "subprocess.CompletedProcess[str]":
        given = ["--volume", f"{context}:/kpy/workspace:ro", "--entrypoint", "/kpy/bin/python3", *options]
        return live("-ISXutf8", "-c", WITH_KEY, "/kpy/bin/kpy", *common, *flags, "/kpy/workspace", check=False, options=given)

    return Walls(mode, context, build)


def test_the_keys_of_the_builder_are_not_the_run_s(walls: Walls) -> None:
    """In containers whose profile of system calls forbids them, there are none for anybody."""
    walls.write('FROM scratch\nCOPY walls /bin/walls\nRUN ["/bin/walls", "keys"]\nUSER 7\nRUN ["/bin/walls", "keys"]\n')

    done = walls.build()

    assert done.returncode == 0, done.stderr
    assert "k3y" not in done.stderr
    assert ("has a key" in done.stderr) == (walls.mode in ON_HOST or "seccomp=unconfined" in IN_CONTAINER[walls.mode][0])
    said = re.findall(r"wall key (\S+)", done.stderr)
    assert len(said) == 2
    assert set(said) <= {"EPERM", "ENOKEY", "ENOSYS"}


@pytest.mark.parametrize(
    ("target", "why"),
    [("/proc", "/proc"), ("/proc/x", "/proc"), ("/proc/sys/kernel", "/proc"), ("/opt/in/x", "/proc"), ("/opt/in/1", "/proc"), ("/opt/in", "/proc"),
     ("/sys/nothing", "/sys"), ("/opt/nothing", "/sys")],
)
@pytest.mark.parametrize("walls", ["userns", "one id", "live", "live restricted", "chroot", "shared pids"], indirect=True)
def test_a_mount_in_what_is_the_kernel_s_is_an_error_that_names_it(walls: Walls, busybox_base: str, target: str, why: str) -> None:
    links = "RUN mkdir -p /opt && ln -s /proc /opt/in && ln -s /sys/nothing /opt/nothing\n"
    walls.write(f"FROM {busybox_base}\n{links}RUN --mount=type=tmpfs,target={target} true\n")

    done = walls.build()

    assert done.returncode == 8, done.stderr
    (line,) = re.findall(r"^error: (.*)$", done.stderr, re.MULTILINE)
    assert f" {target}" in line
    assert why in line
    assert "Dockerfile:3" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Errno" not in done.stderr


@pytest.mark.parametrize("walls", ["userns", "one id", "shared pids", "shared pids, real ids"], indirect=True)
def test_a_mount_on_what_is_there_in_dev_and_sys_is_made(walls: Walls, busybox_base: str) -> None:
    walls.says(
        f"FROM {busybox_base}\n"
        "RUN --mount=type=tmpfs,target=/dev/shm touch /dev/shm/x\n"
        "RUN --mount=type=tmpfs,target=/dev/shm/deep/er --mount=target=/dev/made touch /dev/shm/deep/er/x && test -x /dev/made/walls\n"
        "RUN --mount=target=/sys/fs test -x /sys/fs/walls\n"
        "RUN --mount=target=/sys test -x /sys/walls\n"
    )
