"""What is between a RUN and the kernel, in every mode: keys, system calls, abstract sockets, mounts over the kernel's own files."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bases
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
    "live unconfined root": ([*UNCONFINED], ["--isolation=live"]),
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


REFUSED = (
    "keyctl add_key request_key io_uring_enter bpf perf_event_open userfaultfd unshare-user unshare-mount clone-user clone-net setns "
    "open_by_handle_at mount fsopen open_tree pidfd_getfd kexec_load finit_module syslog mbind sethostname personality-norandom socket-alg "
    "socket-vsock socket-46"
).split()
ABSENT = "clone3 file_setattr call-600 call-4000 negative".split()
DONE = "clone personality-ask socket-unix socket-inet socket-netlink ptrace chroot".split()
OTHERS = {
    "x32-getpid": "ENOSYS", "x32-keyctl": "ENOSYS", "i386-getpid": "done", "i386-keyctl": "EPERM", "i386-unshare": "EPERM", "i386-bpf": "EPERM",
    "i386-userfaultfd": "EPERM", "i386-clone3": "ENOSYS", "i386-mount": "EPERM", "i386-socket-alg": "EPERM", "i386-socket-unix": "done",
    "i386-unknown": "ENOSYS",
}  # fmt: skip
UNFILTERED = {"live", "live unconfined root", "chroot", "chroot unconfined"}
"""Real root, who has not the capability that a filter needs: the container's filter holds for it, if there is one."""


@pytest.mark.parametrize("walls", [mode for mode in MODES if mode not in UNFILTERED], indirect=True)
@pytest.mark.parametrize("user", ["0", "7"])
def test_calls_are_those_of_a_container(walls: Walls, user: str) -> None:
    said = walls.answers(f'FROM scratch\nCOPY walls /bin/walls\nUSER {user}\nRUN ["/bin/walls", "calls"]\nRUN ["/bin/walls", "others"]\n')

    emulated = walls.mode in ("one id", "live restricted", "live unconfined", "shared pids")
    ring = said.pop("io_uring_setup")
    assert ring == ("ENOSYS" if emulated else "EPERM")
    if os.uname().machine == "x86_64":
        if said.pop("i386", "") != "none":  # a kernel that runs no 32-bit programs
            assert said.pop("i386-io_uring_setup") == ring
            # No filter sees these arguments; who makes sockets for the RUN does.
            assert said.pop("i386-socketcall-alg") in (("EPERM",) if "live" in walls.mode and emulated else ("done", "EAFNOSUPPORT"))
            assert said.pop("i386-socketcall-inet") == "done"
            assert {name: said.pop(name, "") for name in OTHERS} == OTHERS
        else:
            assert {said.pop(name) for name in ("x32-getpid", "x32-keyctl")} == {"ENOSYS"}
    # That container has no capability, and its own filter says so first.
    chroot = {} if user == "0" and walls.mode != "live restricted" else {"chroot": "EPERM"}
    expected = {**dict.fromkeys(REFUSED, "EPERM"), **dict.fromkeys(ABSENT, "ENOSYS"), **dict.fromkeys(DONE, "done"), **chroot}
    assert said == expected


@pytest.mark.parametrize("walls", ["userns", "userns of root", "one id", "chroot admin", "live admin", "shared pids, real ids"], indirect=True)
def test_set_user_id_works_under_the_filter(walls: Walls, busybox_base: str) -> None:
    """It is there without no_new_privs, or the emulation does what that forbids."""
    copied = "mkdir -p /opt && cp /bin/walls /opt/set-uid && chmod 4755 /opt/set-uid"
    privileges = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f 2 | xargs"
    see = "/opt/set-uid who" if "chroot" in walls.mode else f"/opt/set-uid who && echo has $({privileges})"  # it has no /proc

    said = walls.says(f"FROM {busybox_base}\nCOPY walls /bin/walls\nRUN {copied}\nUSER 1000\nRUN {see}\n")

    assert "wall who 1000:0\n" in said
    assert "chroot" in walls.mode or (" has 1 2\n" if walls.mode == "one id" else " has 0 2\n") in said, said


@pytest.mark.parametrize("walls", [mode for mode in MODES if mode not in UNFILTERED], indirect=True)
def test_abstract_sockets_are_the_run_s_own(walls: Walls) -> None:
    """One of this machine's, such as an X server's, is not reached (Linux 6.12), and one of the same RUN is."""
    name = f"kpy-canary-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(f"\0{name}")

        said = walls.answers(f'FROM scratch\nCOPY walls /bin/walls\nRUN ["/bin/walls", "ask", "{name}"]\nRUN ["/bin/walls", "listen", "mine", "/bin/walls", "ask", "mine"]\n')

    assert said == {name: "EPERM", "mine": "done"}


@pytest.mark.parametrize("walls", ["userns", "one id", "live", "live restricted", "live admin", "chroot"], indirect=True)
def test_files_move_between_directories_without_a_network(walls: Walls, busybox_base: str) -> None:
    """Of the several Landlock domains of such a RUN, none forbids it."""
    walls.says(f"FROM {busybox_base}\nRUN --network=none mkdir -p /opt/a /opt/b && cd /opt && echo x > a/f && ln a/f b/g && mv b/g a/h && ln a/h b/i\n")


@pytest.mark.parametrize("walls", sorted(UNFILTERED), indirect=True)
def test_what_is_open_to_root_is_said(walls: Walls) -> None:
    done = walls.says('FROM scratch\nCOPY walls /bin/walls\nRUN ["/bin/walls", "who"]\n')
    assert done.count("a RUN is root here as the builder is") == 1
    assert done.count("system calls of a RUN are not filtered") == (1 if "unconfined" in walls.mode else 0)


@pytest.mark.parametrize("walls", ["userns", "one id", "live restricted", "shared pids"], indirect=True)
def test_nothing_is_said_where_nothing_is_open(walls: Walls) -> None:
    done = walls.says('FROM scratch\nCOPY walls /bin/walls\nRUN ["/bin/walls", "who"]\n')
    assert "RUN can" not in done
    assert "RUN is root" not in done
    assert "not filtered" not in done


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


@pytest.mark.parametrize("walls", ["userns", "userns of root", "one id", "live"], indirect=True)
@pytest.mark.parametrize("user", ["0", "1000"])
def test_a_build_in_a_run(walls: Walls, docker: Docker, cache: Path, busybox_base: str, user: str) -> None:
    """It may make no user namespace: as root it builds in a chroot, and as another it says what to do."""
    if walls.mode != "live":  # there it is, and no image changes it
        made = docker("create", builders.make(docker))
        docker("cp", f"{made}:/kpy", walls.context / "kpy")
        docker("rm", made)
    inner = walls.context / "inner"
    inner.mkdir()
    shutil.copy(bases.layers("base/busybox:1", cache)[0], inner / "base.tar.gz")
    (inner / "Dockerfile").write_text("FROM scratch\nADD base.tar.gz /\nRUN echo inner $(id -u) made && touch /made && chown 5:6 /made\n")
    copy = "" if walls.mode == "live" else "COPY kpy/bin /kpy/bin\nCOPY kpy/lib /kpy/lib\n"
    build = "/kpy/bin/kpy build --progress plain -o type=cacheonly /opt/inner; echo code $?"

    walls.write(
        f"FROM {busybox_base}\n{copy}COPY --chmod=755 inner /opt/inner\nUSER {user}\n"
        f"RUN env -u KPY_DISPOSABLE_ROOT KPY_HOME=/tmp/state {build}\n"
    )
    said = walls.build().stderr

    assert "Traceback" not in said
    if user == "0" and walls.mode != "one id":
        assert re.search(r"\binner 0 made$", said, re.MULTILINE), said
        assert " code 0\n" in said
    else:
        assert " code 8\n" in said, said
        assert re.search(r"hint: .*(seccomp=unconfined|build this image before it)", said), said
