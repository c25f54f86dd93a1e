"""live.py, spawn.py, supervisor.py: processes in `/`, without rights (R02-R05, R21, R23, R24)."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from kpy.errors import InterruptedBuildError, SandboxError
from kpy.linux import capabilities
from kpy.sandbox import live, spawn, userns
from kpy.sandbox.base import Identity, Mount, Process, Sandbox
from kpy.sandbox.live import LiveSandbox
from kpy.util.cancel import Cancel

_: type[Sandbox] = LiveSandbox
PATH = "PATH=/usr/local/bin:/usr/bin:/bin"


class Run:
    """Runs something and keeps what it said."""

    def __init__(self, state: Path) -> None:
        self.sandbox = LiveSandbox(str(state), protected=["kpy"])
        self.output = b""

    def __call__(
        self, *argv: str, env: Sequence[str] = (PATH, "HOME=/h"), cwd: str = "/", **more: object
    ) -> int:
        mounts = more.pop("mounts", ())
        identity = Identity(os.getuid(), os.getgid())
        process = Process(argv, tuple(env), cwd, identity, **more)
        with Cancel() as cancel:
            return self.sandbox.run(process, "/", mounts, self._log, cancel)

    def _log(self, data: bytes) -> None:
        self.output += data


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.mark.parametrize(
    ("script", "status"), [("true", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_exit_codes(run: Run, script: str, status: int) -> None:
    assert run("/bin/sh", "-c", script) == status


def test_output_of_both_streams(run: Run) -> None:
    assert run("/bin/sh", "-c", "echo out; echo err >&2") == 0
    assert run.output == b"out\nerr\n"


def test_environment_is_exactly_the_process_s(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")

    run("env", env=[PATH, "A=1", "EMPTY=", "HOME=/x"])

    assert sorted(run.output.split(b"\n")) == [b"", b"A=1", b"EMPTY=", b"HOME=/x", PATH.encode()]


def test_home_is_of_the_user(run: Run) -> None:
    import pwd

    run("/bin/sh", "-c", "echo $HOME", env=[PATH, "HOME="])
    run("/bin/sh", "-c", "echo $HOME", env=[PATH])

    assert run.output.decode().split() == [pwd.getpwuid(os.getuid()).pw_dir] * 2, "an empty HOME is none"


def _passwd_is(kind: str, path: Path) -> None:
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(path))
        case _:
            path.symlink_to(kind)


@pytest.mark.parametrize("kind", ["directory", "fifo", "socket", "nowhere", "passwd", "/proc/self/mem", "../../../dev/zero"])
def test_what_is_no_list_of_users_is_passed_over(tmp_path: Path, kind: str) -> None:
    """/etc/passwd of a hostile image: neither an error nor a wait."""
    (tmp_path / "etc").mkdir()
    _passwd_is(kind, tmp_path / "etc" / "passwd")
    process = Process(("true",), (PATH,), identity=Identity(7, 7))

    assert live.environment(process, str(tmp_path)) == (PATH, "HOME=/")
    assert userns.read_in_root(str(tmp_path), "/etc/passwd") is None


def test_umask_stdin_directory_session(run: Run, tmp_path: Path) -> None:
    """R05, R24"""
    run(
        "/bin/sh",
        "-c",
        "umask; pwd; read x || echo none; ps -o sid= -p $$ | tr -d ' '; echo $$",
        cwd=str(tmp_path),
    )

    umask, cwd, stdin, session, pid = run.output.decode().split()
    assert (umask, cwd, stdin, session) == ("0022", str(tmp_path), "none", pid)


def test_no_descriptor_is_inherited(run: Run) -> None:
    with open("/dev/null") as file:
        os.set_inheritable(file.fileno(), True)
        run("/bin/sh", "-c", "ls /proc/self/fd")

    assert run.output.split() == [b"0", b"1", b"2", b"3"]  # 3 is ls's own


def test_a_program_that_is_not_there(run: Run) -> None:
    assert run("nonesuch") == 127
    assert b'exec: "nonesuch": executable file not found in $PATH' in run.output


def test_a_program_that_is_not_executable(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    (tmp_path / "data").chmod(0o644)

    assert run(str(tmp_path / "data")) == 126


def test_a_missing_directory(run: Run) -> None:
    assert run("true", cwd="/nonesuch") == 127
    assert run.output == b"chdir to /nonesuch: no such file or directory\n"


def test_nothing_outlives_the_run(run: Run, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"setsid sh -c 'trap \"\" TERM HUP; echo $$ >> {pids}; sleep 100' & sleep 100 & echo $! >> {pids}; sleep 0.2"

    start = time.monotonic()
    assert run("/bin/sh", "-c", script) == 0

    assert time.monotonic() - start < 10
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    assert not any(os.path.exists(f"/proc/{pid}") for pid in left)


def test_cancel_ends_it(tmp_path: Path) -> None:
    process = Process(
        ("/bin/sh", "-c", "echo started; sleep 100"),
        (PATH, "HOME=/"),
        "/",
        Identity(os.getuid(), os.getgid()),
    )
    with Cancel() as cancel:
        threading.Timer(0.3, cancel.set).start()

        with pytest.raises(InterruptedBuildError):
            LiveSandbox(str(tmp_path)).run(process, "/", (), lambda data: None, cancel)


def test_an_error_in_the_log_ends_it(tmp_path: Path) -> None:
    process = Process(
        ("/bin/sh", "-c", "echo started; sleep 100"),
        (PATH, "HOME=/"),
        "/",
        Identity(os.getuid(), os.getgid()),
    )

    def log(data: bytes) -> None:
        raise ZeroDivisionError

    with Cancel() as cancel, pytest.raises(ZeroDivisionError):
        LiveSandbox(str(tmp_path)).run(process, "/", (), log, cancel)


def test_much_output_and_much_environment(run: Run) -> None:
    value = "x" * 100_000
    assert (
        run("/bin/sh", "-c", "head -c 3000000 /dev/zero; echo ${#V}", env=[PATH, "HOME=/", f"V={value}"]) == 0
    )
    assert run.output.endswith(b"\x00100000\n")
    assert len(run.output) == 3_000_007


def test_mounts_are_there(run: Run, tmp_path: Path) -> None:
    target = str(tmp_path / "root" / "secret")
    (tmp_path / "root").mkdir()
    mount = Mount("file", target, data=b"value", uid=os.getuid(), gid=os.getgid())

    assert run("cat", target, mounts=[mount]) == 0
    assert run.output == b"value"
    assert os.listdir(tmp_path / "root") == []


@pytest.mark.parametrize("target", ["/proc/x", "/kpy/state", "/kpy", "/dev/../sys/fs"])
def test_nothing_is_mounted_in_what_is_the_container_s(run: Run, target: str) -> None:
    with pytest.raises(SandboxError, match="nothing can be mounted in"):
        run.sandbox.check(Process(("true",), ()), [Mount("tmpfs", target)])


def test_files_can_be_put_into_dev(run: Run) -> None:
    """A here-document that starts with #! is a file there (H05)."""
    run.sandbox.check(Process(("true",), ()), [Mount("file", "/dev/pipes/EOF")])
    with pytest.raises(SandboxError, match="nothing can be mounted in /dev"):
        run.sandbox.check(Process(("true",), ()), [Mount("tmpfs", "/dev")])


def test_a_script_runs_elsewhere_if_dev_is_another_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H07, E2."""
    run = Run(tmp_path / "state")
    run.sandbox = LiveSandbox(str(tmp_path / "state"), protected=["kpy"], scripts=str(tmp_path / "scripts"))
    monkeypatch.setattr(live.os, "access", lambda path, _: path != "/dev")
    ours = {"uid": os.getuid(), "gid": os.getgid()}
    mount = Mount("file", "/dev/pipes/EOF", data=b"#!/bin/sh\necho $0", mode=0o755, **ours)

    assert run("/bin/sh", "-c", "/dev/pipes/EOF", mounts=[mount]) == 0
    assert run.output.decode() == f"{tmp_path}/scripts/pipes/EOF\n"
    assert not (tmp_path / "scripts").exists()


@pytest.mark.parametrize(("cwd", "refused"), [("/kpy", True), ("/kpy/x", True), ("/kpyx", False), ("/proc", False)])
def test_no_run_starts_in_what_is_the_builder_s(run: Run, cwd: str, refused: bool) -> None:
    """What it makes there would be lost without a word."""
    process = Process(("true",), (), cwd)
    if refused:
        with pytest.raises(SandboxError, match=f"WORKDIR {cwd}: /kpy is the builder's"):
            run.sandbox.check(process, ())
    else:
        run.sandbox.check(process, ())


SOCKETS = """
import errno, socket
def outcome(*kind):
    try:
        socket.socket(*kind).close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "made"
families = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK)
print({outcome(family, socket.SOCK_DGRAM) for family in families}, outcome(socket.AF_UNIX, socket.SOCK_STREAM))
a, b = socket.socketpair()
a.send(b"through a pair"); print(b.recv(99))
"""


def test_network_none_without_a_namespace(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """R10: no socket but Unix ones, for children too; no way around it by another process of kpy's."""
    monkeypatch.setattr(spawn, "network_isolation", lambda: "filter")

    assert run("/bin/sh", "-c", f"exec {sys.executable} -c '{SOCKETS}'", network="none") == 0
    assert run.output.decode().splitlines() == ["{'EAFNOSUPPORT'} made", "b'through a pair'"]

    run.output = b""
    assert run(sys.executable, "-c", SOCKETS) == 0
    assert b"{'EAFNOSUPPORT'}" not in run.output, "the filter is of one RUN"


def test_network_none_leaves_files_as_they_are(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Landlock, which closes abstract sockets, can forbid moving files between directories: not here."""
    monkeypatch.setattr(spawn, "network_isolation", lambda: "filter")
    script = "mkdir a b && echo x > a/f && mv a/f b/g && ln b/g a/h && chmod 600 a/h && rm -r a b && echo done"

    assert run("/bin/sh", "-c", script, cwd=str(tmp_path), network="none") == 0
    assert run.output == b"done\n"


def test_the_supervisor_cannot_be_traced(run: Run) -> None:
    """Else a RUN of the same user could make sockets in it."""
    assert run("/bin/sh", "-c", "cat /proc/$PPID/environ || cat /proc/$PPID/maps || echo closed") == 0
    assert run.output.endswith(b"closed\n") or os.getuid() == 0


def test_network_none_is_refused_before_anything_runs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(("true",), (PATH,), network="none")
    run.sandbox.check(process, ())

    monkeypatch.setattr(live, "network_isolation", lambda: "")

    with pytest.raises(SandboxError, match="--network=none"):
        run.sandbox.check(process, ())


def test_hosts_that_cannot_be_added_are_refused_before_anything_runs(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """R06: to a user who is not root, the container's /etc/hosts is read-only."""
    process = Process(("true",), (PATH,), hosts=(("h", "127.0.0.9"),))
    (tmp_path / "hosts").write_text("")
    monkeypatch.setattr(live, "_HOSTS", str(tmp_path / "hosts"))
    run.sandbox.check(process, ())

    monkeypatch.setattr(live, "_HOSTS", str(tmp_path / "none"))

    with pytest.raises(SandboxError, match="--add-host"):
        run.sandbox.check(process, ())


def test_another_user_needs_rights(run: Run, tmp_path: Path) -> None:
    process = Process(("id", "-u"), (PATH, "HOME=/"), "/", Identity(12345, 12345))
    with Cancel() as cancel:
        if os.getuid() == 0:
            assert run.sandbox.run(process, "/", (), run._log, cancel) == 0
            assert run.output == b"12345\n"
        else:
            with pytest.raises(SandboxError, match="cannot become user 12345:12345"):
                run.sandbox.run(process, "/", (), run._log, cancel)


@pytest.mark.parametrize(("protected", "refused"), [(["kpy"], True), (["."], False)])
def test_harden_refuses_an_interpreter_that_would_be_removed(protected: list[str], refused: bool) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from kpy.sandbox.live import harden; harden(sys.argv[2:]);"
        "import os, subprocess; os.open('/proc/self/fd/1', os.O_WRONLY); open('/proc/self/maps').read();"
        "print('read' if subprocess.run(['cat', f'/proc/{os.getpid()}/environ'], capture_output=True).stdout else 'closed')"
    )
    import kpy

    base = os.path.dirname(os.path.dirname(kpy.__file__))
    everything = sorted(os.listdir("/")) if protected == ["."] else protected
    done = subprocess.run(
        [sys.executable, "-c", code, base, *everything], capture_output=True, text=True, check=False
    )

    assert (done.returncode != 0) is refused, done.stderr
    assert ("would be removed with the root" in done.stderr) is refused
    if not refused and not capabilities.effective() >> capabilities.SYS_PTRACE & 1:
        assert done.stdout == "closed\n", "who has the same uid reads the builder's environment"


def test_signals_are_as_a_new_process_has_them(run: Run) -> None:
    """Also when whoever started kpy ignores some, as nohup and cron do."""
    old = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1)}
    try:
        assert run("sh", "-c", "grep Sig[IB] /proc/self/status; kill -HUP $$; sleep 5") == 129
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    assert run.output.split() == [b"SigBlk:", b"0" * 16, b"SigIgn:", b"0" * 16]


def test_output_is_bytes(run: Run) -> None:
    assert run("sh", "-c", "printf 'a\\000\\377\\033[1m\\r'; printf 'b\\303' >&2; printf '\\244c'") == 0
    assert run.output == b"a\x00\xff\x1b[1m\rb\xc3\xa4c"
