"""type=local and type=tar: the files of an image (FEATURES 3.1). Compared with BuildKit's by integration/differential."""

import errno
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kpy.errors import ContentError, InterruptedBuildError, StoreError, UsageError
from kpy.events import Warned
from kpy.exporter.base import Artifact, Exporter
from kpy.exporter.files import Form, LocalExporter, TarExporter, check_deletion
from kpy.layer.index import scan_layer
from kpy.layer.tree import Tree
from kpy.layer.treesource import TreeSource
from kpy.oci.image import Image
from kpy.oci.manifest import build_index
from kpy.util import fs
from kpy.util.cancel import Cancel
from tests.exporter.exporting import make_image
from tests.fakes import MemoryRepository, RecordingReporter
from tests.privileges import needs_root

_: list[type[Exporter]] = [TarExporter, LocalExporter]

Member = tuple[str, str, dict[str, object]]
BELOW: list[Member] = [
    ("etc", "d", {"mtime": 5}), ("etc/passwd", "f", {"data": b"root", "mtime": 7}), ("etc/gone", "f", {"data": b"x"}),
    ("bin", "d", {"mode": 0o755}), ("bin/su", "f", {"data": b"#!", "mode": 0o4755, "uid": 5, "gid": 6, "mtime": 9}),
]
ABOVE: list[Member] = [
    ("bin/su2", "h", {"link": "bin/su3"}), ("etc/.wh.gone", "f", {}), ("link", "l", {"link": "etc/passwd"}), ("fifo", "p", {"mode": 0o600}),
    ("etc/empty", "f", {"mtime": 3}),
]  # fmt: skip


def layer(*members: Member) -> bytes:
    kinds = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "p": tarfile.FIFOTYPE, "c": tarfile.CHRTYPE}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, more in members:
            info = tarfile.TarInfo(name)
            info.type = kinds[kind]
            data = bytes(more.get("data", b""))  # type: ignore[call-overload]
            info.size, info.mode, info.linkname = len(data), int(more.get("mode", 0o755 if kind == "d" else 0o644)), str(more.get("link", ""))
            info.uid, info.gid, info.mtime = int(more.get("uid", 0)), int(more.get("gid", 0)), int(more.get("mtime", 1))
            info.devmajor, info.devminor = 1, 3
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def linked() -> bytes:
    """Two names of one file."""
    return layer(("bin/su3", "f", {"data": b"3"}), *ABOVE)


class Made:
    """Images of these tars, and their files."""

    def __init__(self, tmp_path: Path, *images: tuple[str, list[bytes]]) -> None:
        self._tars: dict[str, bytes] = {}
        self._spool = str(tmp_path)
        content = MemoryRepository()
        made = []
        for architecture, tars in images:
            self._tars |= {hashlib.sha256(tar).hexdigest(): tar for tar in tars}
            made.append(make_image(content, *tars, architecture=architecture))
        index = build_index([image.manifest.descriptor for image in made]) if len(made) > 1 else None
        self.artifact = Artifact(tuple(made), index)

    def files(self, image: Image) -> TreeSource:
        tree = Tree.empty()
        for found in image.chain:
            tree = tree.apply(scan_layer(io.BytesIO(self._tars[found.diff_id.hex])), found.diff_id)
        return TreeSource(tree, lambda diff_id: io.BytesIO(self._tars[diff_id.hex]), view_root=None, spool=self._spool)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    (tmp_path / "spool").mkdir()
    return lambda *images: Made(tmp_path / "spool", *(images or (("amd64", [layer(*BELOW), linked()]),)))


def tar(made: Made, **how: object) -> list[tarfile.TarInfo]:
    out = io.BytesIO()
    TarExporter(out, Form(made.files, **how)).export(made.artifact)  # type: ignore[arg-type]
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        return archive.getmembers()


def test_the_tar_has_the_files_as_all_layers_together_give_them(make: Callable[..., Made]) -> None:
    found = {info.name: info for info in tar(make())}
    assert sorted(found) == ["bin", "bin/su", "bin/su2", "bin/su3", "etc", "etc/empty", "etc/passwd", "fifo", "link"]
    su = found["bin/su"]
    assert (su.mode, su.uid, su.gid, su.mtime, su.size) == (0o4755, 5, 6, 9, 2)
    assert found["bin/su3"].islnk()
    assert found["bin/su3"].linkname == "bin/su2"
    assert (found["link"].linkname, found["fifo"].isfifo(), found["etc/passwd"].mtime) == ("etc/passwd", True, 7)


def test_the_same_files_are_the_same_bytes(make: Callable[..., Made], tmp_path: Path) -> None:
    made = make()
    for name in ("a", "b"):
        TarExporter(tmp_path / name, Form(made.files)).export(made.artifact)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_epoch_is_every_time(make: Callable[..., Made]) -> None:
    assert {info.mtime for info in tar(make(), epoch=77)} == {77}


def test_platforms_have_directories_of_their_own(make: Callable[..., Made]) -> None:
    both = make(("amd64", [layer(("f", "f", {"data": b"1"}))]), ("arm64", [layer(("f", "f", {"data": b"2"}))]))
    assert [info.name for info in tar(both)] == ["linux_amd64", "linux_amd64/f", "linux_arm64", "linux_arm64/f"]
    assert [info.name for info in tar(make(), split=True)][:2] == ["linux_amd64", "linux_amd64/bin"]
    with pytest.raises(ContentError, match="cannot write f of linux/arm64: that of linux/amd64 has its place"):
        tar(both, split=False)


def test_a_directory_of_one_platform_is_in_the_way_of_another_s_file(make: Callable[..., Made]) -> None:
    for one, other in (("d", "f"), ("f", "d")):
        both = make(("amd64", [layer(("x", one, {}))]), ("arm64", [layer(("x", other, {}))]))
        with pytest.raises(ContentError, match="cannot write x of linux/arm64"):
            tar(both, split=False)


def test_it_can_be_interrupted(make: Callable[..., Made], tmp_path: Path) -> None:
    with Cancel() as cancel:
        cancel.set()
        with pytest.raises(InterruptedBuildError):
            local(make(), tmp_path / "out", cancel=cancel)
    assert not (tmp_path / "out").exists()


def test_platforms_share_a_place_where_they_do_not_meet(make: Callable[..., Made]) -> None:
    both = make(("amd64", [layer(("d", "d", {}), ("d/x", "f", {}))]), ("arm64", [layer(("d", "d", {}), ("d/y", "f", {}))]))
    assert {info.name for info in tar(both, split=False)} == {"d", "d/x", "d/y"}


def test_a_failure_leaves_the_old_tar(make: Callable[..., Made], tmp_path: Path) -> None:
    (tmp_path / "out.tar").write_bytes(b"old")
    both = make(("amd64", [layer(("f", "f", {}))]), ("arm64", [layer(("f", "f", {}))]))
    with pytest.raises(ContentError):
        TarExporter(tmp_path / "out.tar", Form(both.files, split=False)).export(both.artifact)
    assert (tmp_path / "out.tar").read_bytes() == b"old"


def local(made: Made, dest: Path, *, delete: bool = False, **how: object) -> RecordingReporter:
    report = RecordingReporter()
    LocalExporter(dest, Form(made.files, **how), delete, report).export(made.artifact)  # type: ignore[arg-type]
    return report


def test_local_files_are_ours_with_their_modes_and_times(make: Callable[..., Made], tmp_path: Path) -> None:
    dest = tmp_path / "deep" / "out"
    local(make(), dest)
    assert sorted(str(path.relative_to(dest)) for path in dest.rglob("*")) == [
        "bin", "bin/su", "bin/su2", "bin/su3", "etc", "etc/empty", "etc/passwd", "fifo", "link",
    ]  # fmt: skip
    su = (dest / "bin" / "su").stat()
    assert (stat.S_IMODE(su.st_mode), su.st_uid, su.st_mtime) == (0o755, os.geteuid(), 9)
    assert (dest / "bin" / "su3").samefile(dest / "bin" / "su2")
    assert os.readlink(dest / "link") == "etc/passwd"
    assert stat.S_ISFIFO((dest / "fifo").stat().st_mode)
    assert (dest / "etc" / "passwd").read_bytes() == b"root"
    assert (dest / "etc").stat().st_mtime == 5


def test_local_files_give_nobody_the_rights_of_who_builds(make: Callable[..., Made], tmp_path: Path) -> None:
    """A program of the image's root, or of its user 5, would be one of ours."""
    made = make(("amd64", [layer(
        ("su", "f", {"mode": 0o4755, "uid": 5}), ("write", "f", {"mode": 0o2711}), ("name", "h", {"link": "su"}),
        ("plain", "f", {"mode": 0o755}), ("tmp", "d", {"mode": 0o1777}), ("mail", "d", {"mode": 0o2775}),
    )]))  # fmt: skip
    report = local(made, tmp_path / "out")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {"su": 0o755, "write": 0o711, "name": 0o755, "plain": 0o755, "tmp": 0o1777, "mail": 0o2775}
    assert [warned.message for warned in report.of(Warned)] == [
        f"2 files are set-uid or set-gid, have capabilities, or are devices: in {tmp_path}/out they give no rights"
    ]
    assert {info.name: info.mode for info in tar(made)}["su"] == 0o4755


@needs_root
def test_local_devices_are_for_their_owner(make: Callable[..., Made], tmp_path: Path) -> None:
    report = local(make(("amd64", [layer(("mem", "c", {"mode": 0o666}))])), tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out" / "mem").stat().st_mode) == 0o600
    assert len(report.of(Warned)) == 1


def test_local_goes_over_what_is_there(make: Callable[..., Made], tmp_path: Path) -> None:
    (tmp_path / "out" / "etc").mkdir(parents=True)
    (tmp_path / "out" / "etc" / "passwd").write_text("mine")
    (tmp_path / "out" / "kept").write_text("mine")
    (tmp_path / "out" / "bin").write_text("in the way")
    local(make(), tmp_path / "out")
    assert (tmp_path / "out" / "etc" / "passwd").read_text() == "root"
    assert (tmp_path / "out" / "kept").read_text() == "mine"
    assert (tmp_path / "out" / "bin" / "su").exists()


def test_local_can_delete_what_is_not_in_the_image(make: Callable[..., Made], tmp_path: Path) -> None:
    (tmp_path / "out" / "etc").mkdir(parents=True)
    (tmp_path / "out" / "etc" / "old").touch()
    (tmp_path / "out" / "old").symlink_to(tmp_path)
    local(make(), tmp_path / "out", delete=True)
    assert sorted(os.listdir(tmp_path / "out")) == ["bin", "etc", "fifo", "link"]
    assert sorted(os.listdir(tmp_path / "out" / "etc")) == ["empty", "passwd"]
    assert tmp_path.exists()


def test_nothing_leaves_the_directory(make: Callable[..., Made], tmp_path: Path) -> None:
    """A link that is in the directory already leads nowhere else."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "etc").symlink_to(tmp_path / "victim")
    (tmp_path / "out" / "link").symlink_to(tmp_path / "victim")
    local(make(), tmp_path / "out")
    assert os.listdir(tmp_path / "victim") == []
    assert os.readlink(tmp_path / "out" / "link") == "etc/passwd"


def test_a_device_that_may_not_be_made_is_an_error_and_the_directory_goes(
    make: Callable[..., Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mknod(path: str, *_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted", path)

    monkeypatch.setattr(os, "mknod", mknod)
    with pytest.raises(StoreError, match="dev/null"):
        local(make(("amd64", [layer(("dev/null", "c", {}))])), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_takes_the_new_directory_along(tmp_path: Path, make: Callable[..., Made]) -> None:
    made = make()

    def broken(image: Image) -> TreeSource:
        raise ContentError("no files")

    with pytest.raises(ContentError):
        LocalExporter(tmp_path / "out", Form(broken)).export(made.artifact)
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_directory(tmp_path: Path, make: Callable[..., Made]) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StoreError, match="cannot write"):
        local(make(), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_very_deep_trees(make: Callable[..., Made], tmp_path: Path) -> None:
    path = "/".join(["d"] * 1500)
    made = make(("amd64", [layer((path, "f", {"data": b"x"}))]))
    assert len(tar(made)) == 1500
    local(made, tmp_path / "out")
    assert (tmp_path / "out" / "/".join(["d"] * 1000)).is_dir()
    fs.remove_tree(tmp_path / "out")  # what pytest has cannot


@pytest.mark.parametrize(("dest", "refused"), [("/", True), ("a", True), ("a/b", True), ("a/b/c", False), ("a/bc", False), ("link", True)])
def test_what_is_needed_is_not_deleted(tmp_path: Path, dest: str, refused: bool) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    path = dest if dest == "/" else str(tmp_path / dest)
    if refused:
        with pytest.raises(UsageError, match="mode=delete would delete"):
            check_deletion(path, [str(tmp_path / "a" / "b")])
    else:
        check_deletion(path, [str(tmp_path / "a" / "b")])


