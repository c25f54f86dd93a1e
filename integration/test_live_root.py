"""The live root in an ordinary container: default capabilities, default seccomp profile (E1, R01-R09, R14-R18, R23)."""

import json
import subprocess
from pathlib import Path

import bases
import builder as builders
import pytest
import servers
from builder import Drive
from builder import shell as _sh


@pytest.fixture(scope="module")
def builder(docker: servers.Docker) -> str:
    return builders.make(docker)


@pytest.fixture(scope="module")
def busybox(cache: Path) -> str:
    return str(bases.rootfs("base/busybox:1", cache))


@pytest.fixture(scope="module")
def debian(cache: Path) -> str:
    return str(bases.rootfs("base/debian:12", cache))


@pytest.fixture
def drive(docker: servers.Docker, builder: str, workdir: Path) -> Drive:
    return Drive(docker, builder, workdir)


def test_the_interpreter_has_all_it_needs(docker: servers.Docker, builder: str) -> None:
    code = (
        "import ssl, requests, cryptography.x509, zstandard, isal.isal_zlib, rich.progress, ctypes, lzma, bz2, hashlib;"
        "from cryptography.hazmat.primitives.asymmetric import ec; import kpy.app, kpy.cli.main;"
        "print(len(ssl.create_default_context().get_ca_certs()) > 50)"
    )
    assert (
        docker("run", "--rm", "--entrypoint", "/kpy/bin/python3", builder, "-ISXutf8", "-c", code) == "True"
    )
    assert docker("run", "--rm", builder, "--version").startswith("kpy ")


def test_the_interpreter_survives_without_anything_else(
    docker: servers.Docker, builder: str, debian: str
) -> None:
    """Also when what replaces the root would make its processes load the image's code."""
    code = (
        "import os, sys, tarfile, subprocess; from kpy.util.erase import empty; from kpy.util.mountinfo import mount_points;"
        "assert empty('/', {b'kpy', *mount_points('/')}) == [];"
        "os.makedirs('/etc', exist_ok=True);"
        "open('/etc/ld.so.preload', 'w').write('/nonesuch.so'); open('/etc/nsswitch.conf', 'w').write('hosts: evil');"
        "import requests, ssl, cryptography.x509, zstandard, isal.isal_zlib, socket;"
        "socket.getaddrinfo('localhost', 80);"
        "subprocess.run([sys.executable, '-IS', '-c', 'import ctypes, json'], check=True);"
        "print(sorted(os.listdir('/')))"
    )
    done = subprocess.run(
        ["docker", "run", "--rm", "--entrypoint", "/kpy/bin/python3", builder, "-ISXutf8", "-c", code],
        capture_output=True, text=True, env={"DOCKER_HOST": docker.socket, "PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['dev', 'etc', 'kpy', 'proc', 'sys']"
    assert "nonesuch" not in done.stderr


def test_two_stages_with_different_bases(drive: Drive, busybox: str, debian: str) -> None:
    first = [
        _sh("echo one > /one; rm /etc/group; ln -s one /two; chmod 700 /home; chown 5:6 /root"),
        _sh("cat /one; ls -d /kpy/bin; test ! -e /etc/group"),
    ]
    second = [
        _sh("test ! -e /one && test ! -e /bin/busybox.x && . /etc/os-release && echo $ID && touch /deb")
    ]

    answer = drive([{"layers": [busybox], "runs": first}, {"layers": [debian], "runs": second}])

    (one, again), (deb,) = answer["stages"]
    assert one["changes"] == [
        "d etc 755 0:0", "w etc/group", "d home 700 0:0", "f one 644 0:0", "d root 755 5:6", "l two 777 0:0 -> one"
    ]  # fmt: skip
    assert (again["status"], again["output"], again["changes"]) == (0, "one\n/kpy/bin\n", [])
    assert (deb["status"], deb["output"], deb["changes"]) == (0, "debian\n", ["f deb 644 0:0"])
    assert answer["opened"] == [busybox, debian]


def test_a_stage_on_another_and_a_failed_run(drive: Drive, busybox: str, debian: str) -> None:
    answer = drive(
        [
            {"layers": [busybox], "runs": [_sh("echo one > /one")]},
            {"layers": [debian], "runs": [_sh("touch /failed; rm -r /usr/share; exit 3")]},
            {
                "layers": [busybox, "run:0:0"],
                "runs": [_sh("cat /one; ls /failed /usr/share; echo two >> /one")],
            },
        ]
    )

    (_, (failed,), (last,)) = answer["stages"]
    assert failed["status"] == 3
    assert last["output"].startswith("one\n")
    assert "/failed: No such file" in last["output"]
    assert last["changes"] == ["f one 644 0:0"]


def test_leftovers_of_an_earlier_build_in_the_container(drive: Drive, busybox: str) -> None:
    stages = [{"layers": [busybox], "runs": [_sh("ls /left 2>&1; touch /left")]}]
    name = drive.docker("create", *drive.arguments(stages))
    try:
        for _ in range(2):
            ((run,),) = json.loads(drive.docker("start", "--attach", name))["stages"]
            assert "No such file" in run["output"]
            assert run["changes"] == ["f left 644 0:0"]
    finally:
        drive.docker("rm", "--force", name)


def test_environment_of_the_process(drive: Drive, busybox: str) -> None:
    script = "id -u; id -g; id -G; umask; pwd; echo $HOME; touch /tmp/mine; env | sort; read x; echo read $?"

    ((run,),) = drive(
        [{"layers": [busybox], "runs": [_sh(script, identity=[1000, 1001, [7, 8]], cwd="/home")]}],
        "--env", "REGISTRY_PASSWORD=secret",
    )["stages"]  # fmt: skip

    assert run["output"].splitlines()[:6] == ["1000", "1001", "1001 7 8", "0022", "/home", "/"]
    assert "secret" not in run["output"]
    assert run["output"].endswith("read 1\n")
    assert run["changes"] == ["d tmp 1777 0:0", "f tmp/mine 644 1000:1001"]


def test_the_builder_s_environment_cannot_be_read(drive: Drive, busybox: str) -> None:
    script = "cat /proc/1/environ 2>&1; echo; cat /proc/$PPID/environ | tr '\\0' '\\n'"

    ((run,),) = drive(
        [{"layers": [busybox], "runs": [_sh(script)]}], "--env", "REGISTRY_PASSWORD=secret"
    )["stages"]  # fmt: skip

    assert "secret" not in run["output"]
    assert "Permission denied" in run["output"]


def test_proc_dev_network_files_and_nothing_of_them_in_layers(drive: Drive, busybox: str) -> None:
    script = (
        "test -d /proc/self/fd && echo x > /dev/null && test -c /dev/urandom && touch /dev/shm/x &&"
        "grep -q localhost /etc/hosts && grep -q extra.test /etc/hosts && cat /etc/resolv.conf > /dev/null && touch /etc/made"
    )

    (runs,) = drive(
        [
            {
                "layers": [busybox],
                "runs": [_sh(script, hosts=[["extra.test", "10.1.2.3"]]), _sh("! grep extra /etc/hosts")],
            }
        ]
    )["stages"]

    assert [run["status"] for run in runs] == [0, 0], runs
    assert runs[0]["changes"] == ["d etc 755 0:0", "f etc/made 644 0:0"]


def test_what_the_container_lends_is_as_it_was_for_the_next_run(drive: Drive, busybox: str) -> None:  # R06, R08
    change = "echo 10.9.9.9 mine >> /etc/hosts; echo x > /etc/hostname; : > /etc/resolv.conf; mkdir /dev/shm/d; echo x > /dev/shm/d/f"
    look = "! grep mine /etc/hosts && grep -q localhost /etc/hosts && test -s /etc/hostname && test -z \"$(ls /dev/shm)\""

    (runs,) = drive([{"layers": [busybox], "runs": [_sh(change), _sh(look)]}])["stages"]

    assert [run["status"] for run in runs] == [0, 0], runs
    assert [run["changes"] for run in runs] == [[], []]


def test_a_hostname_or_a_shm_of_one_s_own_is_refused(drive: Drive, busybox: str) -> None:
    for wanted, said in (({"hostname": "mine"}, "BUILDKIT_SANDBOX_HOSTNAME"), ({"shm_size": 1 << 40}, "--shm-size")):
        ((run,),) = drive([{"layers": [busybox], "runs": [_sh("true", **wanted)]}])["stages"]
        assert run["error"].startswith(f"SandboxError: {said}")


def test_nothing_outlives_a_run(drive: Drive, busybox: str) -> None:
    start = "setsid sh -c 'trap \"\" TERM; while true; do sleep 1; done' & (sleep 300 &) ; echo started"

    (runs,) = drive([{"layers": [busybox], "runs": [_sh(start), _sh("ps | grep -c '[s]leep'; true")]}])[
        "stages"
    ]

    assert [run["output"] for run in runs] == ["started\n", "0\n"]


def test_mounts(drive: Drive, busybox: str, workdir: Path) -> None:
    (workdir / "src").mkdir()
    (workdir / "src" / "file").write_text("context")
    (workdir / "volume-cache").mkdir()
    secret = {"kind": "file", "target": "/run/secrets/key", "data": "s3cret", "mode": 0o400, "uid": 1000}
    source = {"kind": "bind", "target": "/src", "source": "/work/src", "read_only": True}
    cache = {"kind": "bind", "target": "/root/.cache/x", "source": "/kpy/state/cache"}
    volume = {"kind": "bind", "target": "/var/cache/y", "source": "/work/volume-cache"}
    tmpfs = {"kind": "tmpfs", "target": "/etc"}
    runs = [
        _sh("mkdir -p /var/cache/y && echo own > /var/cache/y/own"),
        _sh("cat /run/secrets/key; stat -c '%a %u' /run/secrets/key; cat /src/file; echo w > /src/w; cp /src/file /copy",
            mounts=[secret, source]),
        _sh("ls /kpy/state/cache 2>/dev/null; echo 1 > /root/.cache/x/kept; echo 1 > /var/cache/y/kept; ls /var/cache/y",
            mounts=[cache, volume]),
        _sh("cat /root/.cache/x/kept; ls /var/cache/y", mounts=[cache, volume]),
        _sh("ls /etc; touch /etc/x", mounts=[tmpfs]),
        _sh("cat /var/cache/y/own; ls /src /run /root/.cache/x 2>&1 | grep -c 'No such'; head -1 /etc/passwd"),
    ]  # fmt: skip

    ((made, used, first, second, etc, after),) = drive([{"layers": [busybox], "runs": runs}])["stages"]

    assert made["changes"] == [
        "d var 755 0:0",
        "d var/cache 755 0:0",
        "d var/cache/y 755 0:0",
        "f var/cache/y/own 644 0:0",
    ]
    assert used["output"].startswith("s3cret400 1000\ncontextkpy: warning: /src/w was written, in the read-only mount /src.")
    assert used["changes"] == ["f copy 644 0:0"]
    assert (first["output"], first["changes"]) == ("kept\n", [])
    assert (second["output"], second["changes"]) == ("1\nkept\n", [])
    assert "error" in etc, "what the container mounts below /etc cannot be moved aside"
    assert after["output"] == "own\n3\nroot:x:0:0:root:/root:/bin/sh\n"
    assert (workdir / "volume-cache" / "kept").read_text() == "1\n"
    assert sorted(path.name for path in (workdir / "src").iterdir()) == ["file"]


def test_mounts_below_var_run_and_in_the_middle_of_the_image(
    drive: Drive, debian: str, workdir: Path
) -> None:
    """As Kubernetes mounts its token, and as a CI mounts a volume."""
    (workdir / "token").mkdir()
    (workdir / "token" / "t").write_text("t")

    ((run,),) = drive(
        [{"layers": [debian], "runs": [_sh("ls -ld /var/run; ls /var/lib/dpkg | wc -l; rm -rf /var/lib/dpkg/info; touch /usr/share/vol/x")]}],
        "--volume", f"{workdir}/token:/var/run/secrets/kubernetes.io/serviceaccount:ro",
        "--volume", f"{workdir}/token:/usr/share/vol",
    )["stages"]  # fmt: skip

    assert "/var/run -> " in run["output"]
    assert run["changes"] == [
        "d var 755 0:0", "d var/lib 755 0:0", "d var/lib/dpkg 755 0:0", "w var/lib/dpkg/info"
    ]  # fmt: skip


def test_devices_capabilities_and_links(drive: Drive, busybox: str) -> None:
    script = "mkdir /d && mknod /d/null c 1 3 && mkfifo /d/pipe && echo x > /d/a && ln /d/a /d/b && chmod 4755 /d/a && chown 7 /d/b"

    ((run, after),) = drive([{"layers": [busybox], "runs": [_sh(script), _sh("ls -l /d; rm /d/a")]}])[
        "stages"
    ]

    assert run["changes"] == [
        "d d 755 0:0", "f d/a 755 7:0", "h d/b 755 7:0 -> d/a", "c d/null 644 0:0", "p d/pipe 644 0:0"
    ]  # fmt: skip
    assert after["changes"][:2] == ["d d 755 0:0", "w d/a"]


def test_debian_installs_a_package(drive: Drive, debian: str, workdir: Path) -> None:
    """dpkg, its maintainer scripts and ldconfig, without any network."""
    script = (
        "set -e; mkdir -p /tmp/p/DEBIAN /tmp/p/usr/share/p; echo x > /tmp/p/usr/share/p/file;"
        "printf 'Package: p\\nVersion: 1\\nArchitecture: all\\nMaintainer: m <m@example.com>\\nDescription: d\\n' > /tmp/p/DEBIAN/control;"
        "printf '#!/bin/sh\\nuseradd -r pp\\nchown pp /usr/share/p/file\\n' > /tmp/p/DEBIAN/postinst; chmod 755 /tmp/p/DEBIAN/postinst;"
        "dpkg-deb -b /tmp/p /tmp/p.deb > /dev/null; dpkg -i /tmp/p.deb; rm -r /tmp/p /tmp/p.deb; stat -c %U /usr/share/p/file"
    )

    ((run,),) = drive([{"layers": [debian], "runs": [_sh(script)]}])["stages"]

    assert run["status"] == 0, run
    assert run["output"].endswith("pp\n")
    paths = [line.split()[1] for line in run["changes"]]
    assert "usr/share/p/file" in paths
    assert "etc/passwd" in paths
    assert not any(path.startswith(("tmp", "kpy", "proc", "dev")) for path in paths), paths
