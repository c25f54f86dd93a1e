"""A full disk at every place of a build: one error with the path, no image, and a store that works afterwards (issue 2, 7)."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import RegistryServer, serve, tar_of
from people import Kpy, User


class Disk:
    """A small file system that the user owns."""

    def __init__(self, path: Path, user: User) -> None:
        self.path = path
        path.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size=12m,mode=755,uid={user.uid},gid={user.gid}", "tmpfs")

    def _mount(self, *argv: str) -> None:
        subprocess.run(["mount", *argv, str(self.path)], check=True)

    def grow(self) -> None:
        self._mount("-o", "remount,size=400m")

    def used(self) -> int:
        found = os.statvfs(self.path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize


@pytest.fixture
def disk(area: Path, dev: User, workdir: Path) -> Iterator[Disk]:
    path = workdir / "disk"
    made = Disk(path, dev)
    try:
        yield made
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def small(kpy: Kpy, disk: Disk) -> Kpy:
    """kpy with its store on the small disk."""
    return kpy.with_env(KPY_HOME=str(disk.path / "store"))


def context(workdir: Path, dockerfile: str, big: int = 0) -> Path:
    path = workdir / "context"
    path.mkdir(exist_ok=True)
    (path / "Dockerfile").write_text(dockerfile)
    if big:
        (path / "big").write_bytes(os.urandom(big))
    return path


def refused(kpy: Kpy, disk: Disk, path: Path, *argv: str, code: int = 9) -> str:
    """The build fails for want of space, names a path, changes no image, and what it took it gives back."""
    before, used = kpy("images").stdout, disk.used()
    done = kpy("build", "-t", "never", *argv, path, check=False, timeout=120)
    print(done.stderr)
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert done.stdout == ""
    if code == 9:
        assert errors[0].endswith(": no space left on device")
        assert f" {disk.path}/" in errors[0]
        assert "hint: free some space there" in done.stderr
    assert kpy("images").stdout == before
    assert disk.used() - used < 1 << 20
    return done.stderr


def test_pull(small: Kpy, disk: Disk, workdir: Path) -> None:
    with RegistryServer() as server:
        base = serve(server, layer=tar_of({"noise": os.urandom(20 << 20)}))
        path = context(workdir, f"FROM {base.name}\nCOPY Dockerfile /\n")
        assert "   2 | >>> COPY Dockerfile /" in refused(small, disk, path)
        disk.grow()
        small("build", path)


def test_unpack(small: Kpy, disk: Disk, workdir: Path) -> None:
    with RegistryServer() as server:
        base = serve(server, layer=tar_of({"zeros": b"\0" * (40 << 20)}))
        path = context(workdir, f'FROM {base.name}\nRUN ["/nosuch"]\n')
        assert "error: cannot extract 'zeros' to " in refused(small, disk, path)
        disk.grow()
        assert small("build", path, check=False).returncode == 4  # it ran, and there is no such program


def test_the_command_itself(small: Kpy, disk: Disk, workdir: Path, busybox_base: str) -> None:
    path = context(workdir, f"FROM {busybox_base}\nRUN dd if=/dev/zero of=/big bs=1M count=30\n")
    small("build", "-t", "known", context(workdir, f"FROM {busybox_base}\nRUN echo hi\n"))
    path = context(workdir, f"FROM {busybox_base}\nRUN dd if=/dev/zero of=/big bs=1M count=30\n")
    shown = refused(small, disk, path, code=4)
    assert "No space left on device" in shown
    assert "hint: a disk is full" in shown
    disk.grow()
    small("build", path)


def test_the_layer_of_a_run(small: Kpy, disk: Disk, workdir: Path, busybox_base: str) -> None:
    small("build", context(workdir, f"FROM {busybox_base}\nRUN echo hi\n"))
    path = context(workdir, f"FROM {busybox_base}\nRUN dd if=/dev/urandom of=/big bs=1M count=5\n")
    refused(small, disk, path)
    disk.grow()
    small("build", path)


def test_the_layer_of_a_copy(small: Kpy, disk: Disk, workdir: Path, busybox_base: str) -> None:
    small("build", "-t", "known", context(workdir, f"FROM {busybox_base}\n"))
    path = context(workdir, f"FROM {busybox_base}\nCOPY big /\n", big=20 << 20)
    assert "   2 | >>> COPY big /" in refused(small, disk, path)
    disk.grow()
    small("build", path)


@pytest.mark.parametrize("output", ["type=oci", "type=docker", "type=oci,tar=false"])
def test_export(kpy: Kpy, disk: Disk, workdir: Path, output: str) -> None:
    path = context(workdir, "FROM scratch\nCOPY big /\n", big=20 << 20)
    dest = disk.path / "image"
    done = kpy("build", "-o", f"{output},dest={dest}", path, check=False)
    assert done.returncode == 9
    assert done.stderr.count("\nerror: ") == 1
    assert f" {dest}" in done.stderr.rpartition("error: ")[2]
    assert os.listdir(disk.path) == []
    disk.grow()
    kpy("build", "-o", f"{output},dest={dest}", path)
    assert os.listdir(disk.path) == ["image"]


def test_standard_output(kpy: Kpy, workdir: Path) -> None:
    path = context(workdir, "FROM scratch\nCOPY Dockerfile /\n")
    for argv, code in ((("-o", "type=oci,dest=-"), 9), ((), 1)):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [kpy.program, "build", *argv, path], stdout=full, stderr=subprocess.PIPE, text=True, check=False, **kpy.spawn()
            )
        assert done.returncode == code
        assert done.stderr.count("\nerror: ") == 1
        assert ": no space left on device" in done.stderr


def test_results_that_cannot_be_written_are_refused_before_the_build(kpy: Kpy, workdir: Path) -> None:
    path = context(workdir, "FROM scratch\nCOPY nosuch /\n")
    for argv in (("--iidfile", "/nosuch/x"), ("--metadata-file", "/nosuch/x"), ("-o", "type=oci,dest=/nosuch/x")):
        done = kpy("build", *argv, path, check=False)
        assert done.returncode == 2
        assert done.stderr == "error: cannot write /nosuch/x: /nosuch is not a directory\n"
