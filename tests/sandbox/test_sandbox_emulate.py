"""emulate.py: mounts without mounting, in a root that is a plain directory (R07, R14-R18)."""

import errno
import os
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from kpy.errors import SandboxError
from kpy.linux import libc
from kpy.linux.birth import identify
from kpy.linux.ledger import Ledger, Record
from kpy.sandbox.base import Mount
from kpy.sandbox.emulate import Shelf, mounted
from kpy.sandbox.rootpath import RootPaths
from kpy.sandbox.spawn import Reach
from kpy.snapshot.diff import differences
from kpy.snapshot.scan import MODE, UID, scan, settle


class Place:
    """A root, a host directory beside it, and what a layer would see."""

    def __init__(self, path: Path) -> None:
        self.root, self.host = path / "root", path / "host"
        self.root.mkdir()
        self.host.mkdir()
        self.shelf = Shelf(str(self.root), str(path / "aside"), reach=Reach((str(self.root),), ()))
        self.warned: list[bytes] = []

    def changes(self, *mounts: Mount, during: object = None) -> list[str]:
        before = scan(str(self.root))
        settle(before)
        with mounted(mounts, self.shelf, self.warned.append):
            if callable(during):
                during()
        after = scan(str(self.root))
        assert {
            path: record[3] for path, record in before.items() if path in after and record[4] & stat.S_IFDIR
        } == {
            path: after[path][3]
            for path, record in before.items()
            if path in after and record[4] & stat.S_IFDIR
        } or during is not None, "mtimes of directories are as they were"
        return [f"{i.entry.kind.value} {i.entry.path}" for i in differences(str(self.root), before, after)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_secret_is_there_only_meanwhile(place: Place) -> None:
    seen = []

    def look() -> None:
        path = place.root / "run" / "secrets" / "key"
        seen.append((path.read_bytes(), stat.S_IMODE(path.stat().st_mode)))

    ours = {"uid": os.getuid(), "gid": os.getgid()}
    changes = place.changes(Mount("file", "/run/secrets/key", data=b"s3", mode=0o400, **ours), during=look)

    assert seen == [(b"s3", 0o400)]
    assert changes == []
    assert not (place.root / "run").exists()


def test_times_of_parents_are_put_back(place: Place) -> None:
    (place.root / "etc").mkdir()
    os.utime(place.root / "etc", ns=(5, 7))

    assert (
        place.changes(Mount("tmpfs", "/etc/a/b/c"), Mount("file", "/etc/x", uid=os.getuid(), gid=os.getgid()))
        == []
    )
    assert (place.root / "etc").stat().st_mtime_ns == 7


def test_what_a_run_does_beside_a_mount_stays(place: Place) -> None:
    def work() -> None:
        (place.root / "opt" / "cache" / "x").touch()
        (place.root / "opt" / "made").touch()

    assert place.changes(Mount("tmpfs", "/opt/cache"), during=work) == ["d opt", "f opt/made"]


def test_what_was_at_the_target_comes_back(place: Place) -> None:
    (place.root / "data").mkdir(mode=0o750)
    (place.root / "data" / "old").write_text("old")
    seen = []

    def work() -> None:
        seen.append((os.listdir(place.root / "data"), stat.S_IMODE((place.root / "data").stat().st_mode)))
        (place.root / "data" / "new").touch()

    assert place.changes(Mount("tmpfs", "/data"), during=work) == []
    assert seen == [([], 0o750)]
    assert (place.root / "data" / "old").read_text() == "old"


def test_a_bind_is_a_copy_and_writes_are_dropped(place: Place) -> None:
    (place.host / "dir").mkdir()
    (place.host / "dir" / "file").write_text("from host")
    (place.host / "dir" / "link").symlink_to("file")
    os.link(place.host / "dir" / "file", place.host / "dir" / "name")
    (place.host / "dir" / "file").chmod(0o640)
    seen = []

    def work() -> None:
        target = place.root / "src"
        seen.append(sorted(os.listdir(target / "dir")))
        assert (target / "dir" / "file").samefile(target / "dir" / "name")
        assert stat.S_IMODE((target / "dir" / "file").stat().st_mode) == 0o640
        (target / "dir" / "file").write_text("changed")
        (target / "new").touch()

    assert place.changes(Mount("bind", "/src", source=str(place.host), discard=True), during=work) == []
    assert seen == [["file", "link", "name"]]
    assert (place.host / "dir" / "file").read_text() == "from host"
    assert os.listdir(place.host) == ["dir"]


def test_a_bind_of_a_file(place: Place) -> None:
    (place.host / "file").write_text("x")
    (place.root / "etc").mkdir()
    (place.root / "etc" / "file").write_text("image's")
    seen = []

    place.changes(
        Mount("bind", "/etc/file", source=str(place.host / "file"), read_only=True),
        during=lambda: seen.append((place.root / "etc" / "file").read_text()),
    )

    assert seen == ["x"]
    assert (place.root / "etc" / "file").read_text() == "image's"


def test_a_cache_keeps_what_is_written(place: Place) -> None:
    (place.host / "old").touch()

    def work() -> None:
        (place.root / "cache" / "old").unlink()
        (place.root / "cache" / "new").write_text("kept")

    assert place.changes(Mount("bind", "/cache", source=str(place.host)), during=work) == []
    assert os.listdir(place.host) == ["new"]


def test_a_cache_that_the_run_removed_is_empty(place: Place) -> None:
    (place.host / "old").touch()

    def work() -> None:
        (place.root / "cache" / "old").unlink()
        (place.root / "cache").rmdir()

    assert place.changes(Mount("bind", "/cache", source=str(place.host)), during=work) == []
    assert os.listdir(place.host) == []


def _apart(monkeypatch: pytest.MonkeyPatch, top: Path) -> None:
    """As if `top` were a file system of its own."""
    rename = os.rename

    def only_within(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if os.path.samestat(os.stat(top), os.fstat(src_dir_fd)) != os.path.samestat(os.stat(top), os.fstat(dst_dir_fd)):
            raise OSError(errno.EXDEV, "another file system", old)
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", only_within)


def test_a_cache_on_another_file_system_is_copied_and_brought_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = place.host / "cache"
    cache.mkdir(mode=0o750)
    (cache / "old").touch()
    _apart(monkeypatch, place.host)

    def work() -> None:
        (place.root / "c" / "old").unlink()
        (place.root / "c" / "sub").mkdir()
        (place.root / "c" / "sub" / "new").write_text("kept")

    assert place.changes(Mount("bind", "/c", source=str(cache)), during=work) == []
    assert os.listdir(place.host) == ["cache"]
    assert os.listdir(cache) == ["sub"]
    assert (cache / "sub" / "new").read_text() == "kept"
    assert stat.S_IMODE(cache.stat().st_mode) == 0o750


def test_mounts_within_mounts(place: Place) -> None:
    (place.host / "a").touch()
    seen = []

    place.changes(
        Mount("bind", "/src", source=str(place.host), read_only=True),
        Mount("tmpfs", "/src/deep/tmp"),
        during=lambda: seen.append(
            sorted(str(path.relative_to(place.root)) for path in place.root.rglob("*"))
        ),
    )

    assert seen == [["src", "src/a", "src/deep", "src/deep/tmp"]]
    assert os.listdir(place.root) == []


def test_a_socket_can_be_connected_to(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.host)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("agent")
        server.listen()
        monkeypatch.chdir(place.root)

        place.changes(
            Mount("bind", "/run/agent.0", source=str(place.host / "agent")),
            during=lambda: client.connect("run/agent.0"),
        )

        assert os.path.exists(place.host / "agent")


@pytest.mark.parametrize(
    ("link", "target", "expected"),
    [
        ("/etc", "/link/x", "etc/x"),
        ("../../../../etc", "/link/x", "etc/x"),
        ("/../../..", "/link/x", "x"),
        ("link", "/other/../x", "x"),
    ],
)
def test_no_symlink_leaves_the_root(tmp_path: Path, link: str, target: str, expected: str) -> None:
    (tmp_path / "link").symlink_to(link)

    with RootPaths(str(tmp_path)) as paths:
        assert paths.find(target).path == f"/{expected}"


def test_a_loop_of_symlinks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")

    with RootPaths(str(tmp_path)) as paths, pytest.raises(SandboxError, match="too many symlinks"):
        paths.find("/link/x")


def test_nothing_is_mounted_at_the_root(place: Place) -> None:
    (place.root / "link").symlink_to("/")

    with pytest.raises(SandboxError, match="nothing can be mounted at /"):
        place.changes(Mount("tmpfs", "/link"))


def test_a_missing_source_leaves_nothing_behind(place: Place) -> None:
    (place.root / "data").mkdir()
    (place.root / "data" / "old").touch()

    with pytest.raises(SandboxError, match="cannot put a mount at /data"):
        place.changes(Mount("bind", "/data", source="/nonexistent", read_only=True))

    assert os.listdir(place.root / "data") == ["old"]


def test_what_cannot_be_moved_aside_is_left_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is itself a mount of the container: a volume with somebody's data."""
    (place.root / "volume").mkdir()
    (place.root / "volume" / "data").write_text("precious")

    def busy(source: str, target: str, **places: int) -> None:
        raise OSError(errno.EBUSY, "busy", source)

    monkeypatch.setattr(os, "rename", busy)
    for kind in ("tmpfs", "file"):
        with pytest.raises(SandboxError, match="cannot put a mount at /volume"):
            place.changes(Mount(kind, "/volume"))

    assert (place.root / "volume" / "data").read_text() == "precious"


def test_a_secret_that_the_container_mounts_at_the_same_place(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--secret id=key,src=/run/secrets/key`, and the RUN wants it where it is."""
    key = place.root / "run" / "secrets" / "key"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"s3")

    def busy(source: str, target: str, **places: int) -> None:
        raise OSError(errno.EBUSY, "busy", source)

    monkeypatch.setattr(os, "rename", busy)

    assert place.changes(Mount("file", "/run/secrets/key", data=b"s3"), during=lambda: None) == []
    assert key.read_bytes() == b"s3"
    with pytest.raises(SandboxError, match="cannot put a mount"):
        place.changes(Mount("file", "/run/secrets/key", data=b"other"))


def _tree(place: Place) -> Mount:
    (place.host / "a" / "b").mkdir(parents=True)
    (place.host / "a" / "b" / "file").write_text("x")
    (place.host / "a" / "link").symlink_to("nowhere")
    return Mount("bind", "/src", str(place.host), read_only=True)


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ("echo y >> src/a/b/file", b"/src/a/b/file"),
        ("touch src/new", b"/src/new"),
        ("rm src/a/b/file", b"/src/a/b"),
        ("chmod 700 src/a", b"/src/a"),
        ("touch -d 2001-01-01 src/a/b/file", b"/src/a/b/file"),
        ("rm -r src", b"/src"),
    ],
)
def test_a_write_to_a_read_only_mount_is_said(place: Place, script: str, shown: bytes) -> None:
    """R14: it cannot be refused here, but never goes unnoticed."""
    mount = _tree(place)

    def during() -> None:
        time.sleep(0.02)  # as a RUN's program takes to start; times of files are as fine as the kernel's tick
        subprocess.run(["sh", "-c", script], cwd=place.root, check=True)

    assert place.changes(mount, during=during) == []
    assert len(place.warned) == 1
    assert place.warned[0].startswith(b"kpy: warning: %s was written, in the read-only mount /src." % shown)
    assert (place.host / "a" / "b" / "file").read_text() == "x"


def test_reading_is_not_writing(place: Place) -> None:
    """Nor is another mount in the mount."""
    within = Mount("tmpfs", "/src/a/b/out")
    copied = Mount("bind", "/copy", str(place.host), discard=True)

    def during() -> None:
        subprocess.run(["sh", "-c", "cat src/a/b/file; ls -R src; echo x > src/a/b/out/y; echo z > copy/z"],
                       cwd=place.root, check=True, capture_output=True)  # fmt: skip

    assert place.changes(_tree(place), within, copied, during=during) == []
    assert place.warned == []


@pytest.mark.parametrize("more", [{"read_only": True}, {"discard": True}, {}])
def test_what_is_known_of_the_files_of_a_bind_is_known_at_the_target(tmp_path: Path, more: dict[str, bool]) -> None:
    """Owners that this process may not give: of a base image's files, in `--mount=from=` (R13)."""
    root, source, known, ledger = tmp_path / "root", tmp_path / "source", Ledger(), Ledger()
    root.mkdir()
    (source / "d").mkdir(parents=True)
    (source / "d/f").touch()
    for path, mode in ((source, 0o40711), (source / "d", 0o40700), (source / "d/f", 0o104755)):
        key, born = identify(libc.AT_FDCWD, os.fsencode(path))
        known.records[key] = Record(mode, 7, 8, born=born)

    with mounted([Mount("bind", "/m", str(source), ledger=known, **more)], Shelf(str(root), str(tmp_path / "aside"), ledger), print):
        found = {path.decode(): (record[MODE], record[UID]) for path, record in scan(str(root), ledger=ledger).items()}

    assert found == {"": (root.stat().st_mode, 0), "m": (0o40711, 7), "m/d": (0o40700, 7), "m/d/f": (0o104755, 7)}
