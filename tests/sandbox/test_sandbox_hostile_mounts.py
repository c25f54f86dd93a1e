"""emulate.py, slotmounts.py, own.py: a RUN that renames, removes and links around its mounts while they are in place.

Beside the root is what is the builder's: a store, a login. Whatever the RUN leaves behind, the builder neither reads nor
changes it, with Landlock and without.
"""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kpy.errors import SandboxError
from kpy.linux.ledger import Ledger, Record
from kpy.sandbox import live
from kpy.sandbox.base import Identity, Mount, Process
from kpy.sandbox.emulate import Shelf, mounted
from kpy.sandbox.own import extra_hosts
from kpy.sandbox.rootpath import RootPaths
from kpy.sandbox.spawn import Reach

SECRET = "s3cr3t-of-the-builder"
US = {"uid": os.getuid(), "gid": os.getgid()}


class Place:
    """A root; beside it the directory of a cache, a bound directory, an agent's socket, and what is the builder's alone."""

    def __init__(self, path: Path, *, landlock: bool) -> None:
        self.path, self.root, self.ours = path, path / "root", path / "builder"
        self.cache = path / "cache.d" / "data"
        self.bound = path / "bound"
        for directory in (self.root / "opt" / "y", self.cache, self.bound, self.ours / "state" / "cache"):
            directory.mkdir(parents=True)
        (self.ours / "login").write_text(SECRET)
        (self.ours / "state" / "cache" / "key").write_text(SECRET)
        (self.bound / "file").write_text("bound")
        (self.cache / "kept").write_text("kept")
        (path / "agent").mkdir()
        reach = Reach((str(self.root),), ()) if landlock else None
        self.shelf = Shelf(str(self.root), str(path / "aside"), reach=reach)

    def mounts(self, target: str) -> dict[str, Mount]:
        """One of each kind."""
        return {
            "bind": Mount("bind", target, str(self.bound), discard=True),
            "bind,ro": Mount("bind", target, str(self.bound), read_only=True),
            "cache": Mount("bind", target, str(self.cache)),
            "cache,ro": Mount("bind", target, str(self.cache), read_only=True),
            "tmpfs": Mount("tmpfs", target),
            "secret": Mount("file", target, data=b"value", **US),
            "ssh": Mount("bind", target, str(self.path / "agent" / "s")),
        }

    def check(self, before: object) -> None:
        """All of the builder's is as it was, and nothing of it is where a RUN or a layer finds it."""
        assert tree(self.ours) == before
        for top in (self.root, self.path / "cache.d", self.bound):
            for directory, _, files in os.walk(top):
                for file in files:
                    found = Path(directory, file)
                    assert found.is_symlink() or found.is_socket() or SECRET not in found.read_text(), found


def tree(top: Path) -> list[tuple[str, int, int, str]]:
    """Names, modes, times and contents."""
    found = []
    for path in sorted([top, *top.rglob("*")]):
        status = path.lstat()
        found.append((str(path), status.st_mode, status.st_mtime_ns, path.read_text() if path.is_file() else ""))
    return found


@pytest.fixture(params=[True, False], ids=["landlock", "descriptors"])
def place(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = Place(tmp_path, landlock=request.param)
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path / "agent")
        server.bind("s")
        yield made


def _target(place: Place) -> None:
    """The target becomes a link to the builder's."""
    target = place.root / "opt" / "y" / "cache"
    target.rename(place.root / "moved")
    target.symlink_to(place.ours / "state")


def _parent(place: Place) -> None:
    """Its directory becomes one: what is at the target's path then is the builder's."""
    (place.root / "opt" / "y").rename(place.root / "opt" / "old")
    (place.root / "opt" / "y").symlink_to(place.ours / "state")


def _both(place: Place) -> None:
    _target(place)
    _parent(place)


def _gone(place: Place) -> None:
    """It is not there any more, and a link to the builder's is where it was."""
    shutil.rmtree(place.root / "opt")
    (place.root / "opt").symlink_to(place.ours)


def _file(place: Place) -> None:
    """A link to a file of the builder's."""
    target = place.root / "opt" / "y" / "cache"
    target.rename(place.root / "moved")
    target.symlink_to(place.ours / "login")


KINDS = ("bind", "bind,ro", "cache", "cache,ro", "tmpfs", "secret", "ssh")
ATTACKS: dict[str, Callable[[Place], None]] = {
    "target": _target, "target-to-file": _file, "parent": _parent, "target-and-parent": _both, "parent-removed": _gone,
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_run_put_in_the_place_of_a_mount_is_not_followed(place: Place, kind: str, attack: str) -> None:
    mount = place.mounts("/opt/y/cache")[kind]
    (place.root / "opt" / "y" / "cache").mkdir()
    (place.root / "opt" / "y" / "cache" / "planted").write_text("evil")
    before = tree(place.ours)

    with mounted([mount], place.shelf, lambda _: None):
        ATTACKS[attack](place)

    place.check(before)
    assert place.cache.is_dir() and not place.cache.is_symlink()
    assert (place.bound / "file").read_text() == "bound"
    with mounted([Mount("bind", "/again", str(place.cache), read_only=True)], place.shelf, lambda _: None):
        assert set(os.listdir(place.root / "again")) <= {"kept"}


@pytest.mark.parametrize("link", ["/kpy/state", "../../kpy/state", "/proc/self/root/kpy/state", "via"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_link_on_the_way_does_not_lead_to_what_is_closed(place: Place, kind: str, link: str) -> None:
    """An earlier RUN made it, or the base, or ONBUILD: it is there before the mount is."""
    (place.root / "kpy" / "state" / "cache").mkdir(parents=True)
    (place.root / "opt" / "via").symlink_to("/kpy/state")
    (place.root / "opt" / "link").symlink_to(link)
    before = tree(place.root / "kpy")

    def closed(path: str, /, *, passing: bool) -> str:
        del passing
        return "it is the builder's" if path.split("/")[1] in {"kpy", "proc"} else ""

    shelf = Shelf(str(place.root), place.shelf.directory, closed=closed, reach=place.shelf.reach)
    with pytest.raises(SandboxError, match="cannot put a mount at /opt/link/cache, which leads to /(kpy|proc)(/self)?: it is the builder's"), mounted(
        [place.mounts("/opt/link/cache")[kind]], shelf, lambda _: None
    ):
        pytest.fail("it is in place")

    assert tree(place.root / "kpy") == before


def test_a_source_that_is_a_link_is_refused(place: Place) -> None:
    place.cache.rename(place.path / "elsewhere")
    place.cache.symlink_to(place.ours)

    for kind in ("cache", "cache,ro"):
        with pytest.raises(SandboxError, match="cannot put a mount at /c"), mounted(
            [place.mounts("/c")[kind]], place.shelf, lambda _: None
        ):
            pytest.fail("it is in place")

    assert not (place.root / "c").exists()


def test_what_a_run_makes_beside_its_parent_is_its_own(place: Place) -> None:
    """A directory that was made for the mount, and that the RUN exchanged for one with something in it, stays."""
    with mounted([Mount("tmpfs", "/made/for/it")], place.shelf, lambda _: None):
        (place.root / "made").rename(place.root / "taken")
        (place.root / "made" / "for").mkdir(parents=True)
        (place.root / "made" / "for" / "file").write_text("its own")

    assert (place.root / "made" / "for" / "file").read_text() == "its own"


def test_mounts_at_a_slot(place: Place) -> None:
    """A directory of `/` that stays: what a RUN left in it is moved, and links are moved as links."""
    ledger = Ledger()
    found = (place.root / "opt").stat()
    ledger.slots[found.st_dev, found.st_ino] = b""
    ledger.records[found.st_dev, found.st_ino] = Record(0o40755)
    shelf = Shelf(str(place.root), place.shelf.directory, ledger, reach=place.shelf.reach)
    before = tree(place.ours)

    with mounted([Mount("bind", "/opt", str(place.cache))], shelf, lambda _: None):
        (place.root / "opt" / "kept").unlink()
        (place.root / "opt" / "kept").symlink_to(place.ours / "login")
        (place.root / "opt" / "dir").symlink_to(place.ours / "state")

    place.check(before)
    assert sorted(os.listdir(place.cache)) == ["dir", "kept"]
    assert os.readlink(place.cache / "kept") == str(place.ours / "login")
    assert os.listdir(place.root / "opt") == ["y"]


@pytest.mark.parametrize("link", ["{ours}/passwd", "../../builder/passwd", "/kpy/secret"])
def test_home_is_not_read_from_what_is_the_builders(place: Place, link: str) -> None:
    for path in (place.ours / "passwd", place.root / "kpy" / "secret"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"x:x:7:7:x:/{SECRET}:/bin/sh\n")
    (place.root / "etc").mkdir()
    (place.root / "etc" / "passwd").symlink_to(link.format(ours=place.ours))

    def closed(path: str, /, *, passing: bool) -> str:
        del passing
        return "closed" if path.startswith("/kpy/") else ""

    assert live.environment(Process(("true",), (), identity=Identity(7, 7)), str(place.root), closed) == ("HOME=/",)


def test_extra_hosts_are_written_to_a_file_and_never_to_what_a_link_means(place: Place) -> None:
    before = tree(place.ours)
    (place.root / "etc").mkdir()
    (place.root / "etc" / "hosts").symlink_to(place.ours / "login")

    with pytest.raises(SandboxError, match="cannot add hosts"), extra_hosts([("a", "1.2.3.4")], str(place.root)):
        pytest.fail("there are")

    (place.root / "etc" / "hosts").unlink()
    (place.root / "etc" / "hosts").write_text("127.0.0.1 localhost")
    with extra_hosts([("a", "1.2.3.4")], str(place.root)):
        assert (place.root / "etc" / "hosts").read_text() == "127.0.0.1 localhost\n1.2.3.4\ta\n"
        (place.root / "etc").rename(place.root / "etc2")
        (place.root / "etc").symlink_to(place.ours)
    assert (place.root / "etc2" / "hosts").read_text() == "127.0.0.1 localhost"
    assert tree(place.ours) == before


_NAMES = ("opt", "opt/y", "opt/y/cache", "opt/y/cache/sub", "opt/z", "made", "made/tmp", "made/tmp/x", "swap", "swap/b")
_STEPS = st.one_of(
    st.tuples(st.just("rename"), st.sampled_from(_NAMES), st.sampled_from(_NAMES)),
    st.tuples(st.just("link"), st.sampled_from(_NAMES), st.sampled_from(["{ours}", "{ours}/state", "{ours}/login", "..", "/", "/opt", "y"])),
    st.tuples(st.just("remove"), st.sampled_from(_NAMES), st.just("")),
    st.tuples(st.just("mkdir"), st.sampled_from(_NAMES), st.just("")),
    st.tuples(st.just("write"), st.sampled_from(_NAMES), st.just("")),
    st.tuples(st.just("chmod"), st.sampled_from(_NAMES), st.just("")),
)


def _is_inside(root: Path, path: Path) -> bool:
    parent = os.path.realpath(path.parent)
    return parent == str(root) or parent.startswith(f"{root}/")


def _step(root: Path, ours: Path, step: tuple[str, str, str]) -> None:
    """What a RUN can do: it is confined to its root. So nothing is done by a link that leads out of it, neither to what is
    the builder's nor to what is this machine's."""
    what, name, other = step
    path = root / name
    if not _is_inside(root, path):
        return
    try:
        match what:
            case "rename" if _is_inside(root, root / other):
                path.rename(root / other)
            case "link":
                path.symlink_to(other.format(ours=ours))
            case "remove" if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            case "remove":
                path.unlink()
            case "mkdir":
                path.mkdir()
            case "write" if not path.is_symlink():
                path.write_text("evil")
            case "chmod" if not path.is_symlink():
                path.chmod(0o700)
    except OSError:
        pass


@pytest.mark.parametrize("landlock", [True, False], ids=["landlock", "descriptors"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_STEPS, max_size=12), kind=st.sampled_from(["cache", "cache,ro", "bind", "tmpfs", "secret"]))
def test_programs_that_rename_and_link_around_mounts(
    tmp_path_factory: pytest.TempPathFactory, landlock: bool, steps: list[tuple[str, str, str]], kind: str
) -> None:
    top = tmp_path_factory.mktemp("hostile")
    place = Place(top, landlock=landlock)
    before = tree(place.ours)
    mounts = [place.mounts("/opt/y/cache")[kind], Mount("tmpfs", "/made/tmp")]
    try:
        with mounted(mounts, place.shelf, lambda _: None):
            for step in steps:
                _step(place.root, place.ours, step)
    except SandboxError:
        pass  # a clear error is as good

    place.check(before)
    assert not place.cache.is_symlink()
    shutil.rmtree(top)


def test_a_place_stays_the_same_when_its_parents_are_renamed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with RootPaths(str(tmp_path)) as paths:
        spot = paths.find("/a/./b/../b/new/file")
        assert (spot.path, spot.missing, spot.name) == ("/a/b/new/file", ("new",), "file")
        (tmp_path / "a").rename(tmp_path / "c")
        (tmp_path / "a").symlink_to("/")
        assert os.path.samestat(os.fstat(spot.parent), (tmp_path / "c" / "b").stat())
