"""The chroot strategy as root of an ordinary container: mounts not allowed, chroot is (E1)."""

from pathlib import Path

import bases
import builder as builders
import pytest
import servers
from builder import Drive, shell


@pytest.fixture(scope="module")
def image(docker: servers.Docker) -> str:
    return builders.make(docker)


@pytest.fixture(scope="module")
def busybox(cache: Path) -> str:
    return str(bases.rootfs("base/busybox:1", cache))


@pytest.fixture(scope="module")
def debian(cache: Path) -> str:
    return str(bases.rootfs("base/debian:12", cache))


@pytest.fixture
def drive(docker: servers.Docker, image: str, workdir: Path) -> Drive:
    return Drive(docker, image, workdir, "chroot")


def test_two_stages_with_different_bases(drive: Drive, busybox: str, debian: str) -> None:
    first = [
        shell("echo one > /one; ls -d /kpy 2>&1; echo x > /dev/null; test -c /dev/urandom; touch /dev/left"),
        shell("cat /one; ls /dev"),
    ]
    second = [
        shell(
            "test ! -e /one && . /etc/os-release && echo $ID; ls /proc | wc -l; mkdir /app; cp /etc/hosts /app/hosts"
        )
    ]

    answer = drive([{"layers": [busybox], "runs": first}, {"layers": [debian], "runs": second}])

    (one, again), (deb,) = answer["stages"]
    assert (one["status"], one["changes"]) == (0, ["f one 644 0:0"])
    assert "/kpy: No such file" in one["output"]
    assert again["output"].split() == ["one", *sorted(
        ["fd", "full", "null", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"]
    )]  # fmt: skip
    assert (deb["output"], deb["changes"]) == ("debian\n0\n", ["d app 755 0:0", "f app/hosts 644 0:0"])
    assert answer["opened"] == [busybox, debian]


def test_network_files_are_there_and_in_no_layer(drive: Drive, busybox: str) -> None:
    script = (
        "cat /etc/resolv.conf > /dev/null && grep -q extra.test /etc/hosts && grep -q localhost /etc/hosts"
    )

    (runs,) = drive(
        [{"layers": [busybox], "runs": [shell(script, hosts=[["extra.test", "10.1.2.3"]]), shell("ls /etc")]}]
    )["stages"]

    assert (runs[0]["status"], runs[0]["changes"]) == (0, []), runs


def test_user_mounts_and_leftovers(drive: Drive, busybox: str) -> None:
    secret = {"kind": "file", "target": "/run/secrets/key", "data": "s3cret", "uid": 1000}
    cache = {"kind": "bind", "target": "/cache", "source": "/kpy/state/cache"}
    runs = [
        shell(
            "(sleep 300 &); id -u; cat /run/secrets/key; echo $HOME",
            mounts=[secret],
            identity=[1000, 1000, []],
        ),
        shell("mkdir /cache/d; echo kept > /cache/d/f", mounts=[cache]),
        shell("cat /cache/d/f", mounts=[cache]),
        shell("ls /cache /run"),
    ]

    ((user, first, second, after),) = drive([{"layers": [busybox], "runs": runs}])["stages"]

    assert (user["output"], user["changes"]) == ("1000\ns3cret/\n", [])
    assert first["changes"] == []
    assert (second["output"], second["changes"]) == ("kept\n", [])
    assert after["status"] != 0


def test_links_do_not_lead_out(drive: Drive, busybox: str) -> None:
    """R07: a mount target through a symlink that an image brings."""
    secret = {"kind": "file", "target": "/out/kpy/state/planted", "data": "x"}
    runs = [
        shell("ln -s ../../../../.. /out"),
        shell("ls /kpy/state/planted", mounts=[secret]),
        shell("ls /kpy"),
    ]

    ((_, mounted, after),) = drive([{"layers": [busybox], "runs": runs}])["stages"]

    assert (mounted["status"], mounted["changes"]) == (0, [])
    assert after["status"] != 0
