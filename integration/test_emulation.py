"""The emulated root (E2, E5): as an unprivileged user of this machine, and in a container that has nothing left: any
uid, no capabilities, no_new_privs, docker's default seccomp profile. What real root does in an ordinary container is
the measure.
"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bases
import pytest
import servers
from people import User

import kpy

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "emulation_program.py"
DRIVE = HERE / "emulation_drive.py"
IMAGE = "kpy-emulation:test"
COUNT = 100
RESTRICTED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")

Drive = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def image(docker: servers.Docker, cache: Path) -> Iterator[str]:
    """Debian with Python."""
    docker("import", str(bases.rootfs("base/python:3", cache)), IMAGE)
    yield IMAGE
    docker("rmi", "--force", IMAGE)


@pytest.fixture(scope="module")
def on_host(dev: User, area: Path) -> Drive:
    """As the unprivileged user, without a container."""
    directory = area / "emulation"
    directory.mkdir()
    temporary = directory / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    for path in (PROGRAMS, DRIVE):
        (directory / path.name).write_bytes(path.read_bytes())

    def drive(told: dict[str, Any]) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, directory / DRIVE.name], input=json.dumps(told).encode(), capture_output=True, timeout=600,
            check=False, user=dev.uid, group=dev.gid, extra_groups=[], cwd="/", env={"PATH": os.environ["PATH"], "TMPDIR": str(temporary)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    return drive


def in_container(docker: servers.Docker, image: str, user: str) -> Drive:
    """As a user without a name, without any right."""
    source = Path(kpy.__file__).parent

    def drive(told: dict[str, Any]) -> dict[str, Any]:
        done = subprocess.run(
            [servers.tool("docker"), "run", "--rm", "--interactive", "--network", "none", "--user", user, *RESTRICTED,
             "--volume", f"{source}:/source/kpy:ro", "--volume", f"{HERE}:/programs:ro", "--env", "PYTHONPATH=/source",
             "--env", "PYTHONDONTWRITEBYTECODE=1", image, "python3", f"/programs/{DRIVE.name}"],
            input=json.dumps(told).encode(), capture_output=True, timeout=600, check=False,
            env={**os.environ, "DOCKER_HOST": docker.socket},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    return drive


@pytest.fixture(scope="module", params=["host", "1000:1000", "123456:0"])
def drive(request: pytest.FixtureRequest) -> Drive:
    """In each place that there is."""
    if request.param == "host":
        return request.getfixturevalue("on_host")
    return in_container(request.getfixturevalue("docker"), request.getfixturevalue("image"), request.param)


def script(text: str, **more: Any) -> dict[str, Any]:
    """A shell's, in a new directory."""
    return {"argv": ["/bin/sh", "-ec", f"cd $(mktemp -d)\n{textwrap.dedent(text)}"], **more}


def python(text: str, **more: Any) -> dict[str, Any]:
    return {"argv": ["/usr/bin/python3", "-u", "-c", textwrap.dedent(text)], **more}


def output(drive: Drive, *runs: dict[str, Any]) -> str:
    """Of the last; all must succeed, and nothing go wrong inside."""
    answer = drive({"runs": list(runs)})
    for result in answer["results"]:
        assert result["status"] == 0, result["output"]
    assert answer["problems"] == []
    assert answer["warnings"] == []
    return answer["results"][-1]["output"]


def test_attributes_go_with_copies(drive: Drive) -> None:
    """In the RUN that sets them, where the filter does not watch all who ask for them, and in the next."""
    make = """
        cp /bin/true a; chmod 755 a; cp /bin/true plain
        setcap() { python3 -c 'import os, sys; os.setxattr(sys.argv[1], "security.capability", b"\\1\\0\\0\\2" + b"\\0\\x20" + bytes(14))' "$1"; }
        names() { python3 -c 'import os, sys; print([(name, os.getxattr(sys.argv[1], name)[:2]) for name in os.listxattr(sys.argv[1])])' "$1"; }
        setcap a
        cp -a a b; cp -a plain c; mkdir d; cp -a a plain d
        for one in a b c d/a d/plain; do names $one; done
        : >> b; cp -a b e; names e
    """
    again = """
        names() { python3 -c 'import os, sys; print(os.listxattr(sys.argv[1]))' "$1"; }
        cd "$(cat /tmp/where-%s)"; cp -a a f; cp -a e g; names f; names g; rm -rf "$PWD" /tmp/where-%s
    """
    capability, nothing = "[('security.capability', b'\\x01\\x00')]\n", "[]\n"
    key = os.urandom(4).hex()
    first = script(f"echo $PWD > /tmp/where-{key}\n{textwrap.dedent(make)}")
    answer = drive({"runs": [first, script(again % (key, key))]})
    assert answer["problems"] == []
    outputs = [result["output"] for result in answer["results"]]
    assert outputs[0] == capability * 2 + nothing + capability + nothing * 2
    assert outputs[1] == "['security.capability']\n[]\n"


def _programs(path: str, count: int = COUNT) -> str:
    return f"cd $(mktemp -d) && chmod 755 . && exec /usr/bin/python3 -I {path} $PWD 0 {count}"


@pytest.fixture(scope="module")
def expected(docker: servers.Docker, image: str) -> list[dict[str, Any]]:
    """What the programs give for real root, in an ordinary container."""
    command = ["run", "--rm", "--network", "none", "--volume", f"{HERE}:/programs:ro", image, "sh", "-c"]
    return [json.loads(line) for line in docker(*command, _programs(f"/programs/{PROGRAMS.name}")).splitlines()]


def test_random_programs_do_what_they_do_for_real_root(
    request: pytest.FixtureRequest, drive: Drive, expected: list[dict[str, Any]], area: Path
) -> None:
    """Issue 4, done when 7: results, tree, owners, modes."""
    host = "host" in request.node.name
    path = f"{area}/emulation/{PROGRAMS.name}" if host else f"/programs/{PROGRAMS.name}"
    text = output(drive, {"argv": ["/bin/sh", "-c", _programs(path)]})
    got = [json.loads(line) for line in text.splitlines()]
    assert len(expected) == len(got) == COUNT
    assert sum(len(program["calls"]) for program in expected) > 40 * COUNT
    for theirs, ours in zip(expected, got, strict=True):
        assert ours["calls"] == theirs["calls"], theirs["seed"]
        assert ours["tree"] == theirs["tree"], theirs["seed"]


def test_the_ledger_goes_from_run_to_run(drive: Drive) -> None:
    make = "d=${TMPDIR:-/tmp}/kept; mkdir $d; cd $d; touch a; chown 33:44 a; chmod 4711 a; mknod n c 1 3; mkdir -m 0 z; ls"
    text = output(
        drive,
        {"argv": ["/bin/sh", "-c", make]},
        {"argv": ["/bin/sh", "-c", "cd ${TMPDIR:-/tmp}/kept && stat -c '%n %a %u:%g %F %t:%T' *"]},
    )
    assert text.splitlines() == [
        "a 4711 33:44 regular empty file 0:0",
        "n 644 0:0 character special file 1:3",
        "z 0 0:0 directory 0:0",
    ]


def test_the_user_of_the_dockerfile(drive: Drive) -> None:
    text = output(
        drive,
        script(
            """
            id -u; id -g; id -G; touch f; mkdir d; stat -c '%u:%g' f d
            chown 0 f 2>/dev/null || echo refused
            cat /etc/shadow 2>/dev/null || echo refused
            """,
            uid=1234, gid=5678, groups=[99],
        ),
    )  # fmt: skip
    assert text.split() == ["1234", "5678", "5678", "99", "1234:5678", "1234:5678", "refused", "refused"]


def test_credentials_over_threads_vfork_and_exec(drive: Drive) -> None:
    text = output(
        drive,
        python(
            """
            import os, subprocess, threading
            seen, step = [], threading.Barrier(9)
            def thread():
                step.wait(); step.wait(); seen.append(os.getresuid())
            threads = [threading.Thread(target=thread) for _ in range(8)]
            [t.start() for t in threads]
            step.wait(); os.setresuid(5, 6, 0); step.wait()
            [t.join() for t in threads]
            print(set(seen))
            print(subprocess.run(["id", "-u"], capture_output=True, text=True, close_fds=False).stdout.strip())  # vfork
            if os.fork() == 0:
                os.execv("/usr/bin/python3", ["python3", "-c", "import os; print(os.getresuid())"])
            os.wait()
            """
        ),
    )
    assert text.splitlines() == ["{(5, 6, 0)}", "6", "(5, 6, 6)"]


def test_set_id_programs(drive: Drive) -> None:
    text = output(
        drive,
        script(
            """
            chmod 755 .; cp /usr/bin/id u; cp /usr/bin/id g; chown 7:8 u g; chmod 4755 u; chmod 2755 g
            printf '#!/bin/sh\\nid -u\\n' > s; chmod 4755 s
            setpriv --reuid 9 --regid 9 --clear-groups sh -c './u -u; ./u -ru; ./g -g; ./s'
            setpriv --reuid 9 --regid 9 --clear-groups sh -c 'cp u mine 2>/dev/null || echo refused'
            """
        ),
    )
    assert text.split() == ["7", "9", "8", "9", "refused"]


def test_a_failed_exec_changes_nobody(drive: Drive) -> None:
    text = output(
        drive,
        python(
            r"""
            import os, tempfile
            os.chdir(tempfile.mkdtemp()); os.chmod(".", 0o755)
            with open("bad", "wb") as file:
                file.write(b"\x7fELF nonsense")
            os.chmod("bad", 0o4755); os.setgroups([]); os.setresgid(9, 9, 9); os.setresuid(9, 9, 9)
            for name in ("bad", "missing"):
                try:
                    os.execv(name, [name])
                except OSError as error:
                    print(type(error).__name__, os.getresuid())
            """
        ),
    )
    assert text.splitlines() == ["OSError (9, 9, 9)", "FileNotFoundError (9, 9, 9)"]


def test_who_is_at_the_other_end(drive: Drive) -> None:
    """SO_PEERCRED: PostgreSQL's peer authentication, D-Bus."""
    text = output(
        drive,
        python(
            """
            import os, socket, struct, tempfile
            os.chdir(tempfile.mkdtemp()); os.chmod(".", 0o777)
            server = socket.socket(socket.AF_UNIX)
            if os.fork() == 0:
                os.setresgid(44, 44, 44); os.setresuid(33, 33, 33)
                server.bind("s"); os.chmod("s", 0o777); server.listen()
                print("socket", os.stat("s").st_uid, os.stat("s").st_gid, flush=True)
                peer, _ = server.accept()
                said = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                print("server sees", said[1:], said[0] == os.getppid(), flush=True)
                peer.send(b"x"); peer.recv(1); os._exit(0)
            server.close()
            os.setresgid(66, 66, 66); os.setresuid(55, 55, 55)
            client = socket.socket(socket.AF_UNIX)
            while client.connect_ex("s"):
                pass
            client.recv(1)
            print("client sees", struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1:])
            client.send(b"x"); os.wait()
            one, other = socket.socketpair()
            print("pair", struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1:])
            """
        ),
    )
    assert text.splitlines() == ["socket 33 44", "server sees (55, 66) True", "client sees (33, 44)", "pair (55, 66)"]


def test_what_is_made_in_a_setgid_directory(drive: Drive) -> None:
    text = output(
        drive,
        script(
            """
            mkdir d; chown 7:44 d; chmod 2777 d; touch d/f; mkdir d/d; ln -s x d/l; mkfifo d/p
            stat -c '%a %u:%g' d/f d/d d/l d/p
            """
        ),
    )
    assert text.splitlines() == ["644 0:44", "2755 0:44", "777 0:44", "644 0:44"]


HOSTILE = r"""
import ctypes, os, random, signal, subprocess, sys, tempfile, threading, time
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(tempfile.mkdtemp())
random.seed(1)
# 1. pointers to nowhere, to everything that is watched; no number does more than fail
numbers = [int(word) for word in sys.argv[1].split()]
wild = (0, 1, 8, 4095, 1 << 32, (1 << 47) - 1, 1 << 62, (1 << 64) - 1)
if os.fork() == 0:
    for _ in range(3000):
        arguments = [ctypes.c_ulong(random.choice(wild)) for _ in range(6)]
        libc.syscall(random.choice(numbers), *arguments)
        os.getuid()
    os._exit(0)
os.wait()
# 2. paths at and over the limit, below a working directory that is long itself
for _ in range(18):
    os.mkdir("x" * 250); os.chdir("x" * 250)
for length in (200, 4000, 4094, 4095, 4096, 5000):
    path = ("./" * 4096)[:length - 1] + "."
    try:
        print(length, oct(os.stat(path).st_mode & 0o7777), os.stat(path).st_uid)
    except OSError as error:
        print(length, error.strerror)
open("deep", "w").close(); os.chown("deep", 7, 8); print(os.stat("./" * 2000 + "deep").st_uid)
# 3. many threads; processes killed in the middle of it
def look():
    for _ in range(20):
        os.stat(".")
for _ in range(10):
    threads = [threading.Thread(target=look) for _ in range(100)]
    [t.start() for t in threads]; [t.join() for t in threads]
for _ in range(30):
    pid = os.fork()
    if pid == 0:
        while True:
            os.stat("."); os.getuid(); os.chown("deep", 3, 4)
    time.sleep(random.random() / 100)
    os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
# 4. more identities than there is room for
for number in range(70000):
    if libc.setfsuid(number) < 0:
        break
libc.setfsuid(0)
print("still", os.getuid(), os.stat("deep").st_gid)
"""


def test_hostile_programs(drive: Drive) -> None:
    from kpy.linux.syscalls import native

    arch = native()
    assert arch is not None
    numbers = [str(number) for name, number in arch.numbers.items() if not name.startswith(("exec", "landlock", "seccomp", "clone"))]
    run = {"argv": ["/usr/bin/python3", "-c", HOSTILE, " ".join(numbers)]}
    lines = output(drive, run).splitlines()
    assert lines[:5] == ["200 0o755 0", "4000 0o755 0", "4094 0o755 0", "4095 0o755 0", "4096 File name too long"]
    assert lines[6:] == ["7", "still 0 4"]


def _landlock() -> int:
    """The version of Landlock that this kernel has."""
    from kpy.linux import libc
    from kpy.linux.syscalls import native

    arch = native()
    assert arch is not None
    try:
        return libc.syscall(arch.numbers["landlock_create_ruleset"], "landlock_create_ruleset", 0, 0, 1)
    except OSError:
        return 0


def test_the_builder_is_out_of_reach(drive: Drive) -> None:
    """No RUN reads the memory or the environment of kpy or of the supervisor, or stops them; of kpy since Linux 5.19, and
    stops since 6.12."""
    version = _landlock()
    text = output(
        drive,
        python(
            f"""
            import os, signal
            supervisor = os.getppid()
            with open(f"/proc/{{supervisor}}/stat") as file:
                builder = int(file.read().rpartition(")")[2].split()[1])
            for pid in (supervisor, builder) if {version} >= 2 else (supervisor,):
                for name in ("environ", "mem", "maps"):
                    try:
                        open(f"/proc/{{pid}}/{{name}}", "rb").read(1)
                        print(name, "was read")
                    except PermissionError:
                        print("refused")
                try:
                    if {version} >= 6:
                        os.kill(pid, signal.SIGSTOP)
                        print("was stopped")
                except PermissionError:
                    print("refused")
            os.kill(-1, 0)
            """
        ),
    )
    assert text.split() == ["refused"] * (8 if version >= 6 else 6 if version >= 2 else 3)


def test_leftovers_are_killed(drive: Drive) -> None:
    answer = drive({"runs": [script("setsid sleep 1000 & setsid sh -c 'while :; do stat . >/dev/null; done' & sleep 0.2")]})
    (result,) = answer["results"]
    assert result["status"] == 0
    assert result["seconds"] < 30


def test_exit_codes(drive: Drive) -> None:
    runs = [{"argv": ["/bin/sh", "-c", line]} for line in ("exit 7", "kill -9 $$")] + [{"argv": ["/nowhere"]}]
    assert [result["status"] for result in drive({"runs": runs})["results"]] == [7, 137, 127]


def test_where_another_listens_already(drive: Drive) -> None:
    """What can be had without one, and a warning that says what cannot."""
    answer = drive({"runs": [script("id -u; touch f; chown 33:44 f; stat -c %u f; setpriv --reuid 33 true")], "occupied": True})
    (result,) = answer["results"]
    assert result["status"] == 0, result["output"]
    assert result["output"].split()[0] == "0"
    (warning,) = answer["warnings"]
    assert "another program watches" in warning
    assert "owners" in warning


SIGNALS = r"""
import ctypes, errno, os, signal, sys, tempfile
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(tempfile.mkdtemp()); os.chmod(".", 0o777)
count, calls, faults = 0, 0, []
def note(*_):
    global count
    count += 1
signal.signal(signal.SIGALRM, note)
signal.siginterrupt(signal.SIGALRM, False)
os.setresgid(9, 9, 9); os.setresuid(9, 9, 9)
def call(name, *args):
    global calls
    calls += 1
    result = getattr(libc, name)(*args)
    if result < 0:
        faults.append(f"{name} {errno.errorcode[ctypes.get_errno()]}")
    return result
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
while count < 300:
    call("mkdir", b"d", 0o755); call("rmdir", b"d")
    call("mkfifo", b"p", 0o644); call("rename", b"p", b"q"); call("unlink", b"q")
    call("symlink", b"a", b"s"); call("unlink", b"s")
    made = call("open", b"f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644); call("unlink", b"f")
    if made >= 0:
        os.close(made)
signal.setitimer(signal.ITIMER_REAL, 0)
print(calls, len(faults), set(faults), len(os.listdir(".")), len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.parametrize("old", [False, True])
def test_calls_that_signals_interrupt_are_made_once(on_host: Drive, old: bool) -> None:
    """Before 5.19 the caller does not wait for its answer when there is a signal, and makes the call anew. There is a
    moment when it takes no answer, and we are told that it did: what comes of that stays."""
    answer = on_host({"old": old, "runs": [{"argv": ["/usr/bin/python3", "-c", SIGNALS]}]})
    (result,) = answer["results"]
    calls, faults, *more = result["output"].split()
    assert int(faults) <= (int(calls) // 200 if old else 0), result["output"]
    assert more[-2:] == ["0", "4"]
    assert answer["problems"] == []


def test_random_programs_on_an_older_kernel(on_host: Drive, expected: list[dict[str, Any]], area: Path) -> None:
    """One that has neither WAIT_KILLABLE_RECV nor SYNC_WAKE_UP."""
    path = f"{area}/emulation/{PROGRAMS.name}"
    answer = on_host({"old": True, "runs": [{"argv": ["/bin/sh", "-c", _programs(path, 10)]}]})
    assert answer["warnings"] == answer["problems"] == []
    got = [json.loads(line) for line in answer["results"][0]["output"].splitlines()]
    assert [(one["calls"], one["tree"]) for one in got] == [(one["calls"], one["tree"]) for one in expected[:10]]


def test_a_builder_in_a_run(on_host: Drive) -> None:
    """It would answer for files of another root directory, if it could make one: it is told that it cannot, by doctor and
    before a build."""
    doctor = {"argv": [sys.executable, "-m", "kpy", "doctor", "--format", "json"]}
    answer = on_host({"runs": [doctor, script("! unshare --user true && unshare --help > /dev/null && (true & wait)")]})
    first, second = answer["results"]
    assert first["status"] == 8, first["output"]
    found = json.loads(first["output"])
    assert (found["run"]["isolation"], found["facts"]["uid"]) == ("none", 0)
    assert "another builder emulates" in found["run"]["hint"]
    assert second["status"] == 0, second["output"]
    assert answer["problems"] == []


def test_without_a_network(drive: Drive) -> None:
    text = output(
        drive,
        python(
            """
            import os, socket
            try:
                socket.socket(socket.AF_INET).connect(("127.0.0.1", 1))
            except OSError as error:
                print(error.strerror)
            os.chown("/proc/self/cwd", -1, -1); print(os.getuid())
            """,
            network="none",
        ),
    )
    assert text.splitlines()[-1] == "0"
    assert text.splitlines()[0] in ("Address family not supported by protocol", "Network is unreachable", "Connection refused")


def test_within_itself(on_host: Drive, area: Path) -> None:
    """A kpy in the RUN of a kpy: the outer one emulates for both."""
    inner = json.dumps({"runs": [script("touch f; chown 33:44 f; stat -c %u:%g f; setpriv --reuid 33 --regid 44 --clear-groups id -u")]})
    command = f"printf %s '{inner}' | {sys.executable} {area}/emulation/{DRIVE.name}"
    answer = json.loads(output(on_host, {"argv": ["/bin/sh", "-c", command]}))
    assert answer["warnings"] == []
    assert answer["results"][0]["output"].split() == ["33:44", "33"]
