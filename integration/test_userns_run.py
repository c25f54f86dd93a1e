"""RUN in a user namespace, for real: as root of a host and as an ordinary user (R01-R10, R14-R18, R21, R23, R24)."""

import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from inside import busybox_root, inside, place_of

from kpy.errors import InterruptedBuildError, SandboxError
from kpy.sandbox.base import Identity, Mount, Process
from kpy.sandbox.userns import UsernsSandbox
from kpy.util.cancel import Cancel

pytestmark = pytest.mark.parametrize("user", ["root", "dev"])


@pytest.fixture
def place(user):
    with place_of(user) as path:
        yield path


class Box:
    """A root with busybox, and a sandbox to run things in it."""

    def __init__(self, place: Path, **options: object) -> None:
        self.root = busybox_root(place / "root")
        self.place = place
        self.sandbox = UsernsSandbox(str(place / "scratch"), **options)

    def run(self, script, *mounts, cancel=None, env=("PATH=/bin",), **process):
        argv = ("/bin/sh", "-c", script) if isinstance(script, str) else tuple(script)
        out = bytearray()
        job = Process(argv, env, **process)
        with Cancel() as own:
            status = self.sandbox.run(job, str(self.root), mounts, out.extend, cancel or own)
        return status, out.decode(errors="surrogateescape")

    def says(self, script, *mounts, **process):
        status, out = self.run(script, *mounts, **process)
        assert status == 0, out
        return out


def tree(path: Path) -> dict[str, tuple[int, ...]]:
    found = {}
    for top, directories, files in os.walk(path):
        for name in [*directories, *files, "."]:
            full = os.path.join(top, name)
            st = os.lstat(full)
            found[os.path.relpath(full, path)] = (st.st_mode, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns)
    return found


def test_ids_processes_and_environment(user, place):
    def body(ids):
        assert ids.full
        box = Box(place)
        assert box.says("id -u; id -g") == "0\n0\n"
        assert set(box.says(["/bin/env"]).split()) == {"PATH=/bin", "HOME=/root"}
        assert box.says(["env"], env=("PATH=/bin", "HOME=/x")).split() == ["PATH=/bin", "HOME=/x"]
        app = Identity(1000, 1000, (50,))
        assert box.says("id", identity=app) == "uid=1000(app) gid=1000(app) groups=50(staff),1000(app)\n"
        assert "HOME=/home/app" in box.says(["env"], identity=app)
        assert box.says("umask; pwd; hostname", cwd="/tmp", hostname="here") == "0022\n/tmp\nhere\n"
        assert box.says("ls /proc | grep -c '^[0-9]'; echo $$") .split()[1] == "2"
        assert int(box.says("ls /proc | grep -c '^[0-9]'")) <= 5
        assert box.says("cat; readlink /proc/self/fd/0") == "/dev/null\n"
        assert box.says("ls /proc/self/fd 2>/dev/null | wc -l").strip() == "4"  # 0, 1, 2, and ls's own
        assert box.says("mkdir -p /made; pwd", cwd="/new/work") == "/new/work\n"
        box.says("touch /tmp/mine", identity=app)
        assert os.stat(box.root / "tmp/mine").st_uid == 1000

    inside(user, body)


def test_capabilities(user, place):
    def body(ids):
        box = Box(place)
        script = "cat /proc/self/status | grep -E 'Cap|NoNewPrivs'"
        found = dict(line.split(":\t") for line in box.says(script).splitlines())
        assert found == {"CapInh": "0" * 16, "CapPrm": "00000000a80425fb", "CapEff": "00000000a80425fb",
                         "CapBnd": "00000000a80425fb", "CapAmb": "0" * 16, "NoNewPrivs": "0"}  # fmt: skip
        found = dict(line.split(":\t") for line in box.says(script, identity=Identity(1000, 1000)).splitlines())
        assert found["CapPrm"] == found["CapEff"] == "0" * 16
        assert found["CapBnd"] == "00000000a80425fb"
        os.chmod(box.root / "bin/busybox", 0o4755)
        assert box.says("id -u", identity=Identity(1000, 1000)) == "1000\n"  # busybox drops it itself
        os.symlink("busybox", box.root / "bin/passwd")
        assert "uid=0" in box.says("su root -c id", identity=Identity(0, 0))

    inside(user, body)


def test_host_is_out_of_reach(user, place):
    def body(ids):
        box = Box(place)
        for script in (
            "mount -t tmpfs none /tmp",
            "umount /proc/sys",
            "echo x > /proc/sys/kernel/hostname",
            "echo 1 > /proc/sys/vm/drop_caches",
            "touch /sys/x",
            "echo x > /etc/hosts",
            "mknod /tmp/disk b 254 0",
            "cat /proc/1/environ",
            "readlink /proc/1/fd/0",
            "readlink /proc/1/cwd",
            "cat /proc/1/fd/3",
        ):
            assert box.run(script)[0] != 0, script
        assert box.says("cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c").strip() == "0"

    inside(user, body)


def test_devices(user, place):
    """R08"""

    def body(ids):
        box = Box(place)
        names = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
        assert box.says("ls /dev").split() == names.split()
        box.says("echo x > /dev/null; head -c 3 /dev/urandom; echo y > /dev/stderr; echo z > /dev/shm/z")
        assert box.says("df -m /dev/shm | grep shm").split()[1] == "64"
        assert box.says("df -m /dev/shm | grep shm", shm_size=8 << 20).split()[1] == "8"
        assert not (box.root / "dev").exists()

    inside(user, body)


def test_leftovers_are_killed_and_do_not_delay(user, place):
    def body(ids):
        box = Box(place)
        begin = time.monotonic()
        script = "(while true; do sleep 1; echo x > /late; done &) ; sleep 1000 & echo now; exit 7"
        assert box.run(script) == (7, "now\n")
        assert time.monotonic() - begin < 1
        time.sleep(1.3)
        assert not (box.root / "late").exists()
        assert box.says("(sleep 0.1 &); sleep 0.3; ps -o stat | grep -c Z || true").strip() == "0"

    inside(user, body)


def test_network_none_has_only_loopback(user, place):
    def body(ids):
        box = Box(place)
        assert box.says("ls /sys/class/net; ip addr show lo | grep -c 'inet 127.0.0.1'", network="none") == "lo\n1\n"
        host = sorted(os.listdir("/sys/class/net"))
        assert sorted(box.says("ls /sys/class/net").split()) == host
        assert box.run("echo x > /sys/class/net/lo/ifalias", network="none")[0] != 0

    inside(user, body)


def test_hosts_and_resolver(user, place):
    def body(ids):
        box = Box(place)
        text = box.says("cat /etc/hosts /etc/resolv.conf", hosts=(("db", "10.0.0.7"),), hostname="me")
        assert "10.0.0.7\tdb\n" in text
        assert "127.0.0.1\tlocalhost me\n" in text
        assert "nameserver" in text

    inside(user, body)


def test_stubs_leave_no_trace(user, place):
    def body(ids):
        box = Box(place)
        (place / "source").mkdir()
        (place / "source/f").write_text("f\n")
        (place / "target").mkdir()
        os.symlink("/nowhere/yet", box.root / "dangling")
        before = tree(box.root)
        out = box.says(
            "cat /opt/fixture/mounted /run/secrets/key; ls /dangling; stat -c %a:%u:%g /run/secrets/key; echo hi > /new/tmp/x",
            Mount("bind", "/opt/fixture/mounted", source=str(place / "source/f"), read_only=True),
            Mount("bind", "/dangling", source=str(place / "source"), read_only=True),
            Mount("tmpfs", "/new/tmp"),
            Mount("file", "/run/secrets/key", data=b"sesame\n", mode=0o440, uid=7, gid=8),
        )
        assert out == "f\nsesame\nf\n440:7:8\n"
        assert tree(box.root) == before
        # What the command made beside a stub stays, and its time with it.
        box.says("echo x > /new/kept", Mount("tmpfs", "/new/tmp"))
        assert sorted(os.listdir(box.root / "new")) == ["kept"]
        assert tree(box.root)["new"][-1] >= tree(box.root)["new/kept"][-1]

    inside(user, body)


def test_binds(user, place):
    def body(ids):
        box = Box(place)
        source = place / "a:b,c"
        (source / "sub").mkdir(parents=True)
        (source / "f").write_text("one\n")
        os.chmod(source, 0o750)
        read_only = Mount("bind", "/m", source=str(source), read_only=True)
        assert box.run("echo x > /m/f", read_only)[0] != 0
        discard = Mount("bind", "/m", source=str(source), discard=True)
        out = box.says("stat -c %a /m; echo two > /m/f; rm -r /m/sub; cat /m/f; ls /m", discard)
        assert out == "750\ntwo\nf\n"
        assert sorted(os.listdir(source)) == ["f", "sub"]
        assert (source / "f").read_text() == "one\n"
        assert os.listdir(place / "scratch") == []
        of_file = Mount("bind", "/etc/one", source=str(source / "f"), discard=True)
        assert box.says("echo three >> /etc/one; cat /etc/one", of_file) == "one\nthree\n"
        assert (source / "f").read_text() == "one\n"
        shared = Mount("bind", "/m", source=str(source))
        box.says("echo four > /m/g", shared)
        assert (source / "g").read_text() == "four\n"
        # one in the other, given in the wrong order
        inner = Mount("bind", "/m/sub/x", source=str(source / "f"), read_only=True)
        assert box.says("cat /m/sub/x", inner, discard) == "one\n"
        with pytest.raises(SandboxError, match="cannot mount bind at /m"):
            box.run("true", Mount("bind", "/m", source=str(place / "missing")))

    inside(user, body)


def test_sockets_can_be_bound(user, place):
    def body(ids):
        box = Box(place)
        path = str(place / "agent")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            out = box.says(
                "ls -l /run/buildkit/ssh_agent.0", Mount("bind", "/run/buildkit/ssh_agent.0", source=path)
            )
        assert out.startswith("s")

    inside(user, body)


def test_tmpfs(user, place):
    def body(ids):
        box = Box(place)
        out = box.says("stat -c %a /t /tmp; df -k /t | grep /t", Mount("tmpfs", "/t", size=1 << 20), Mount("tmpfs", "/tmp"))
        assert out.split()[:2] == ["1777", "1777"]
        assert "1024" in out
        assert box.run("head -c 2000000 /dev/zero > /t/x", Mount("tmpfs", "/t", size=1 << 20))[0] != 0

    inside(user, body)


def test_hostile_links_do_not_lead_out(user, place):
    def body(ids):
        box = Box(place)
        outside = place / "outside"
        outside.mkdir()
        for name, link in (("up", "../../../.." + str(outside)), ("abs", str(outside)), ("loop", "loop")):
            os.symlink(link, box.root / name)
        for target in ("/up/x", "/abs/y", "/up", "/../../z"):
            box.says("true", Mount("tmpfs", target))
        assert os.listdir(outside) == []
        assert not (box.root / "work").exists()
        with pytest.raises(SandboxError, match="too many levels of symbolic links"):
            box.run("true", Mount("tmpfs", "/loop/x"))
        for name in ("proc", "sys", "dev"):
            (outside / name).mkdir()
            os.symlink(outside / name, box.root / name)
        box.says("ls -d /proc/self /sys/class /dev/null")
        assert [files for _, directories, files in os.walk(outside) if files] == []

    inside(user, body)


def test_programs_that_cannot_start(user, place):
    def body(ids):
        box = Box(place)
        (box.root / "bin/data").write_text("no program\n")
        (box.root / "bin/script").write_text("#!/no/interpreter -x\n")
        (box.root / "bin/plain").write_text("x")
        os.chmod(box.root / "bin/script", 0o755)
        os.chmod(box.root / "bin/data", 0o755)
        cases = {
            "nope": (127, 'exec: "nope": executable file not found in $PATH\n'),
            "/no/such/program": (127, 'exec: "/no/such/program": stat /no/such/program: no such file or directory\n'),
            "/bin": (126, 'exec: "/bin": is a directory\n'),
            "plain": (126, 'exec: "plain": permission denied\n'),
            "script": (127, 'exec: "script": its interpreter /no/interpreter is not in the image\n'),
            "data": (126, 'exec: "data": exec format error: it is no program, or a script without a #! line\n'),
        }
        for name, expected in cases.items():
            assert box.run([name]) == expected
        assert box.run(["/bin/true"], cwd="/etc/passwd")[0] == 127

    inside(user, body)


def test_exit_codes(user, place):
    def body(ids):
        box = Box(place)
        assert box.run("exit 3")[0] == 3
        assert box.run("kill -9 $$")[0] == 137
        assert box.run("kill -TERM $$")[0] == 143
        if ids.uids[-1][2] < 1 << 31:
            with pytest.raises(SandboxError, match="cannot become user 2000000:0"):
                box.run("true", identity=Identity(2000000, 0))

    inside(user, body)


def test_output_comes_in_order_and_whole(user, place):
    def body(ids):
        box = Box(place)
        assert box.says("echo a; echo b >&2; echo c") == "a\nb\nc\n"
        out = box.says("seq 1 100000")
        assert out == "".join(f"{number}\n" for number in range(1, 100001))

    inside(user, body)


def test_cancel_leaves_nothing(user, place):
    def body(ids):
        box = Box(place)
        with Cancel() as cancel:
            threading.Timer(0.4, cancel.set).start()
            begin = time.monotonic()
            with pytest.raises(InterruptedBuildError):
                box.run("trap '' TERM INT; sleep 4242 & sleep 4242", Mount("tmpfs", "/stub"), cancel=cancel)
            assert time.monotonic() - begin < 3
            assert not _running("4242")
            assert not (box.root / "stub").exists()
            with pytest.raises(InterruptedBuildError):
                box.run("true", cancel=cancel)

    inside(user, body)


def test_a_log_that_raises_ends_the_run(user, place):
    def body(ids):
        box = Box(place)

        def log(_: bytes) -> None:
            raise ValueError

        with Cancel() as cancel, pytest.raises(ValueError):
            box.sandbox.run(Process(("/bin/sh", "-c", "echo; sleep 4343"), ()), str(box.root), (), log, cancel)
        assert not _running("4343")

    inside(user, body)


def test_killed_builder_takes_its_children_along(user, place):
    def body(ids):
        box = Box(place)
        pid = os.fork()
        if pid == 0:
            box.run("sleep 4444 & sleep 4444")
            os._exit(0)
        deadline = time.monotonic() + 5
        while not _running("4444") and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        deadline = time.monotonic() + 3
        while _running("4444") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _running("4444")

    inside(user, body)


def test_two_at_once_in_threads(user, place):
    def body(ids):
        results = []

        def one(number):
            (place / str(number)).mkdir()
            box = Box(place / str(number))
            results.append(box.says(f"sleep 0.2; echo {number}; ls /proc | grep -c '^[0-9]'", Mount("tmpfs", f"/t{number}")))

        threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(int(text.split()[0]) for text in results) == [0, 1, 2, 3]
        assert all(int(text.split()[1]) <= 5 for text in results)

    inside(user, body)


def test_without_a_pid_namespace(user, place):
    """A container whose /proc is masked: no fresh one may be mounted there."""

    def body(ids):
        box = Box(place, private_pids=False)
        assert box.run("(sleep 4545 &); sleep 4545 & echo ok; exit 5") == (5, "ok\n")
        assert not _running("4545")
        with Cancel() as cancel:
            threading.Timer(0.3, cancel.set).start()
            with pytest.raises(InterruptedBuildError):
                box.run("(sleep 4646 &); sleep 4646", cancel=cancel)
        assert not _running("4646")

    inside(user, body)


def test_secrets_are_not_in_argv_or_environment(user, place):
    def body(ids):
        box = Box(place)
        out = box.says(
            "cat /proc/*/cmdline /proc/*/environ 2>/dev/null | grep -c sesame || true",
            Mount("file", "/run/secrets/s", data=b"sesame"),
        )
        assert out.strip() in {"0", "1"}  # the command's own line has the word
        assert box.says("echo $TOKEN", env=("PATH=/bin", "TOKEN=t")) == "t\n"

    inside(user, body)


def test_start_up_is_fast(user, place):
    def body(ids):
        box = Box(place)
        box.says("true")
        times = []
        for _ in range(7):
            begin = time.monotonic()
            box.says("true")
            times.append(time.monotonic() - begin)
        assert sorted(times)[3] < 0.25, times  # 30 ms on a quiet machine

    inside(user, body)


def _running(word: str) -> bool:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if file.read() == b"sleep\0" + word.encode() + b"\0":
                        return True
            except OSError:
                continue
    return False


def _as(number: int, script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], user=number, group=number, extra_groups=[], capture_output=True, text=True,
        env={"PYTHONPATH": str(Path(__file__).resolve().parent.parent), "PATH": "/usr/bin:/bin"}, check=True,
    )  # fmt: skip
    return done.stdout


ENTER = """
import os
from kpy.errors import SandboxError
from kpy.sandbox.enter import enter
try:
    print(enter().full, open("/proc/self/uid_map").read().split(), os.getuid(), os.getgid())
except SandboxError as error:
    print(error.message, "|", error.hint, "|", os.geteuid())
"""


def test_a_user_without_ids_has_his_own(user, place):
    number = 65533 if user == "root" else 65532
    assert _as(number, ENTER) == f"False ['0', '{number}', '1'] 0 0\n"


def test_without_power_newuidmap_gives_no_ids(user, place):
    if user == "root":
        return  # needs no newuidmap
    number = pwd.getpwnam("dev").pw_uid
    out = _as(number, "import ctypes; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)" + ENTER)
    assert out == f"False ['0', '{number}', '1'] 0 0\n"


def test_a_refused_process_is_as_it_was(user, place):
    number = pwd.getpwnam("dev").pw_uid
    out = _as(number, "import threading, time; threading.Thread(target=time.sleep, args=(1,)).start()" + ENTER)
    assert "before any thread" in out
    assert out.strip().endswith(f"| {number}")


def test_a_root_that_its_user_cannot_enter(place):
    """Mode 000, as a layer of a strange image can give it."""
    box = Box(place)
    box.root.chmod(0)
    status, output = box.run("true", identity=Identity(1, 1))
    assert (status, output) == (126, 'exec: "/bin/sh": permission denied\n')
    assert box.says("echo on") == "on\n"
