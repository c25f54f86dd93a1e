"""type=oci and type=docker: the same bytes each time, nothing at dest on failure (3.1, N34, L13)."""

import contextlib
import hashlib
import io
import json
import os
import pty
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import pytest

from kpy.errors import ContentError, DigestMismatchError, InterruptedBuildError, StoreError, UsageError
from kpy.exporter.base import Artifact, Exporter
from kpy.exporter.docker import DockerArchiveExporter
from kpy.exporter.files import Form, TarExporter
from kpy.exporter.oci import OciArchiveExporter, OciLayoutExporter
from kpy.layer.index import scan_layer
from kpy.layer.tree import Tree
from kpy.layer.treesource import TreeSource
from kpy.oci import manifest, mediatype
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Image
from kpy.oci.reference import Reference
from kpy.store.layout import LayoutRepository
from kpy.util.cancel import Cancel
from tests.exporter.exporting import make_image, one, several, tar_of
from tests.fakes import MemoryRepository, RecordingReporter

_: list[type[Exporter]] = [OciArchiveExporter, OciLayoutExporter, DockerArchiveExporter]
NAMES = (Reference.parse("app:v1"), Reference.parse("registry.example.com/team/app:latest"))


def unpack(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive if info.isfile()}


def archive(artifact: Artifact, names: tuple[Reference, ...] = NAMES) -> dict[str, bytes]:
    out = io.BytesIO()
    OciArchiveExporter(out, names).export(artifact)
    return unpack(out.getvalue())


def check_blobs(files: dict[str, bytes]) -> None:
    for name, data in files.items():
        if name.startswith("blobs/"):
            assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2]


@pytest.mark.parametrize("make", [one, several])
def test_the_archive_is_a_complete_layout(make, tmp_path: Path) -> None:
    artifact = make()
    result = OciArchiveExporter(tmp_path / "a.tar", NAMES).export(artifact)
    assert result.descriptor == artifact.descriptor
    assert (result.names, result.paths) == (tuple(map(str, NAMES)), (tmp_path / "a.tar",))
    for name, data in unpack((tmp_path / "a.tar").read_bytes()).items():
        path = tmp_path / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    layout = LayoutRepository(tmp_path / "layout")
    assert layout.tags() == ["docker.io/library/app:v1", "registry.example.com/team/app:latest"]
    for name in ("v1", "latest", *map(str, NAMES)):
        assert layout.resolve(name).digest == artifact.descriptor.digest
    waiting = [artifact.descriptor]
    while waiting:
        found = manifest.parse(layout.open(waiting.pop()).read())
        if isinstance(found, manifest.Index):
            waiting.extend(found.manifests)
        else:
            for blob in (found.config, *found.layers):
                layout.open(blob).read()
    check_blobs(unpack((tmp_path / "a.tar").read_bytes()))


def test_what_refers_to_the_index_is_listed(tmp_path: Path) -> None:
    artifact = several()
    OciLayoutExporter(tmp_path / "l", NAMES).export(artifact)
    [found] = LayoutRepository(tmp_path / "l").referrers(artifact.descriptor.digest)
    assert found.artifact_type == "application/vnd.x"
    entries = json.loads(archive(artifact)["index.json"])["manifests"]
    assert [entry.get("annotations", {}).get("org.opencontainers.image.ref.name") for entry in entries] == ["v1", "latest", None]


def test_same_artifact_same_bytes_and_nothing_of_this_machine() -> None:
    outs = [io.BytesIO() for _ in range(2)]
    for out in outs:
        OciArchiveExporter(out, NAMES).export(several())
    assert outs[0].getvalue() == outs[1].getvalue()
    with tarfile.open(fileobj=io.BytesIO(outs[0].getvalue())) as opened:
        members = opened.getmembers()
    assert [info.name for info in members] == sorted(info.name for info in members)
    assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in members} == {(0, 0, 0, "", "")}


def test_unnamed_and_untagged() -> None:
    [entry] = json.loads(archive(one(), ())["index.json"])["manifests"]
    assert "annotations" not in entry
    pinned = Reference.parse("example.com/app@" + str(one().descriptor.digest))
    [entry] = json.loads(archive(one(), (pinned,))["index.json"])["manifests"]
    assert list(entry["annotations"]) == ["io.containerd.image.name"]


def foreign(content: MemoryRepository) -> Artifact:
    image = make_image(content, tar_of({"a": b"a"}))
    layer = Descriptor(mediatype.DOCKER_FOREIGN_GZIP, Digest.of(b"far away"), 8, urls=("https://example.com/x",))
    built = manifest.build_manifest(image.manifest.config, [layer, *image.manifest.layers])
    return Artifact((Image(built, image.config, image.chain, content),))


def test_foreign_layers_are_left_out() -> None:
    assert f"blobs/sha256/{Digest.of(b'far away').hex}" not in archive(foreign(MemoryRepository()))
    with pytest.raises(ContentError, match="not distributable"):
        DockerArchiveExporter(io.BytesIO(), NAMES).export(foreign(MemoryRepository()))


@pytest.mark.parametrize("exporter", [OciArchiveExporter, DockerArchiveExporter])
@pytest.mark.parametrize("fault", ["missing", "changed", "short"])
def test_on_failure_dest_is_as_it_was(exporter, fault: str, tmp_path: Path) -> None:
    content = MemoryRepository()
    artifact = one(content)
    layer = artifact.images[0].chain[1].descriptor.digest
    if fault == "missing":
        del content.blobs[layer]
    else:
        data = content.blobs[layer]
        content.blobs[layer] = data[:-1] + b"?" if fault == "changed" else data[:-1]
    with pytest.raises(Exception, match="blob|layer") as caught:
        exporter(tmp_path / "a.tar", NAMES).export(artifact)
    assert fault == "missing" or caught.type is DigestMismatchError
    assert os.listdir(tmp_path) == []
    (tmp_path / "a.tar").write_text("old")
    with pytest.raises(Exception, match="blob|layer"):
        exporter(tmp_path / "a.tar", NAMES).export(artifact)
    assert (tmp_path / "a.tar").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.tar"]


def test_sources_may_give_a_few_bytes_at_a_time(tmp_path: Path) -> None:
    class Trickle(io.RawIOBase):
        def __init__(self, stream) -> None:
            self._stream = stream

        def read(self, size: int = -1) -> bytes:
            return self._stream.read(min(size, 7))

    class Slow(MemoryRepository):
        def open(self, descriptor, /):
            return Trickle(super().open(descriptor))

    assert archive(one(Slow())) == archive(one())


def test_dest_that_cannot_be_written(tmp_path: Path) -> None:
    for dest in (tmp_path, tmp_path / "none" / "a.tar"):
        with pytest.raises(StoreError, match="cannot write") as caught:
            OciArchiveExporter(dest).export(one())
        assert str(dest) in caught.value.message


def test_full_disk() -> None:
    with pytest.raises(StoreError, match="no space left on device"):
        OciArchiveExporter(Path("/dev/full")).export(one())
    assert Path("/dev/full").is_char_device()


def test_a_broken_pipe_is_a_store_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb", buffering=0) as stream, pytest.raises(StoreError, match="broken pipe"):
        OciArchiveExporter(stream).export(one())


def files_of(_: Image) -> TreeSource:
    """One empty file, whose content is not asked for."""
    tree = Tree.empty().apply(scan_layer(io.BytesIO(tar_of({"hello": b""}))), Digest.of(b""))
    return TreeSource(tree, lambda _: io.BytesIO(), view_root=None, spool=tempfile.gettempdir())


def many_files(_: Image) -> TreeSource:
    """Empty files, whose headers are more than a pipe or a socket takes."""
    tree = Tree.empty().apply(scan_layer(io.BytesIO(tar_of({f"f{number}": b"" for number in range(1500)}))), Digest.of(b""))
    return TreeSource(tree, lambda _: io.BytesIO(), view_root=None, spool=tempfile.gettempdir())


ARCHIVES = {
    "oci": lambda dest: OciArchiveExporter(dest).export(one()),
    "docker": lambda dest: DockerArchiveExporter(dest, NAMES).export(one()),
    "tar": lambda dest: TarExporter(dest, Form(files_of)).export(one()),
}
archives = pytest.mark.parametrize("export", ARCHIVES.values(), ids=ARCHIVES)


@archives
@pytest.mark.parametrize("target", ["victim", "none", "loop", "fifo", "/dev/full"])
def test_a_link_at_dest_is_replaced_and_what_it_leads_to_stays(export, target: str, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.tar").symlink_to(tmp_path / target)
    export(out / "a.tar")
    assert (out / "a.tar").is_file()
    assert not (out / "a.tar").is_symlink()
    assert tarfile.is_tarfile(out / "a.tar")
    assert (tmp_path / "victim").read_text() == "precious"
    assert os.listdir(out) == ["a.tar"]
    assert sorted(os.listdir(tmp_path)) == ["fifo", "loop", "out", "victim"]


@archives
def test_a_fifo_is_written_to(export, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with subprocess.Popen(["timeout", "20", "cat", tmp_path / "fifo"], stdout=subprocess.PIPE) as reader:
        export(tmp_path / "fifo")
        assert reader.stdout is not None
        assert tarfile.is_tarfile(io.BytesIO(reader.stdout.read()))
    assert (tmp_path / "fifo").is_fifo()


def _waiting(export, dest: object, begins: float = 0.3) -> None:
    """Export, and be interrupted while somebody is waited for."""
    with Cancel() as cancel:
        threading.Timer(begins, cancel.set).start()
        begun = time.monotonic()
        with pytest.raises(InterruptedBuildError):
            export(dest, cancel)
        assert begins - 0.1 < time.monotonic() - begun < begins + 1.5


CANCELLED = {
    "oci": lambda dest, cancel: OciArchiveExporter(dest, cancel=cancel).export(large()),
    "docker": lambda dest, cancel: DockerArchiveExporter(dest, NAMES, cancel=cancel).export(large()),
    "tar": lambda dest, cancel: TarExporter(dest, Form(many_files, cancel=cancel)).export(one()),
}


def large() -> Artifact:
    """More than a pipe or a socket takes."""
    return Artifact((make_image(MemoryRepository(), tar_of({"big": os.urandom(1 << 21)})),))


@pytest.mark.parametrize("export", CANCELLED.values(), ids=CANCELLED)
@pytest.mark.parametrize("reader", ["none", "opens", "reads no more"])
def test_who_is_waited_for_does_not_hold_up_the_end(export, reader: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    opened = -1 if reader == "none" else os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if reader == "reads no more":
            fill = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            with contextlib.suppress(BlockingIOError):
                while os.write(fill, bytes(4096)):
                    pass
            os.close(fill)
        _waiting(export, fifo)
    finally:
        if opened >= 0:
            os.close(opened)


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
@pytest.mark.parametrize("export", CANCELLED.values(), ids=CANCELLED)
def test_a_stream_that_nobody_reads_does_not_hold_up_the_end(export, kind: str) -> None:
    if kind == "socket":
        ours, theirs = (side.detach() for side in socket.socketpair())
    else:
        ours, theirs = os.pipe() if kind == "pipe" else pty.openpty()
    try:
        with open(theirs, "wb") as stream:
            _waiting(export, stream)
            assert os.get_blocking(theirs)
    finally:
        os.close(ours)


def test_a_reader_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    command = f"sleep 0.5; exec timeout 20 cat {tmp_path}/fifo"
    with Cancel() as cancel, subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE) as reader:
        gathered: list[bytes] = []
        thread = threading.Thread(target=lambda: gathered.append(reader.stdout.read()))  # type: ignore[union-attr]
        thread.start()
        OciArchiveExporter(tmp_path / "fifo", cancel=cancel).export(large())
        thread.join()
    check_blobs(unpack(gathered[0]))


@pytest.mark.parametrize("dest", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("piped", [True, False])
def test_a_link_to_an_open_file_is_the_systems(dest: str, piped: bool, tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from kpy.exporter.oci import OciArchiveExporter; from tests.exporter.exporting import one;"
        " OciArchiveExporter(pathlib.Path(sys.argv[1])).export(one())"
    )
    command = [sys.executable, "-c", code, dest]
    root = Path(__file__).parents[2]
    if piped:
        written = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True).stdout
    else:
        with open(tmp_path / "redirected", "wb") as stream:
            subprocess.run(command, cwd=root, stdout=stream, check=True)
        written = (tmp_path / "redirected").read_bytes()
    assert unpack(written)["oci-layout"]
    assert os.path.islink(dest)


def test_a_link_to_a_directory_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "a.tar").symlink_to("d")
    with pytest.raises(StoreError, match="it is a directory"):
        OciArchiveExporter(tmp_path / "a.tar").export(one())
    assert (tmp_path / "a.tar").is_symlink()


def test_a_relative_dest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tar").symlink_to("none")
    OciArchiveExporter(Path("a.tar")).export(one())
    assert unpack((tmp_path / "a.tar").read_bytes())["oci-layout"]
    assert os.listdir(tmp_path) == ["a.tar"]


def test_events() -> None:
    report = RecordingReporter()
    OciArchiveExporter(io.BytesIO(), NAMES, report).export(one())
    assert [type(event).__name__ for event in report.events] == ["StepStarted", "StepFinished"]


def test_a_directory_is_added_to(tmp_path: Path) -> None:
    first, second = one(), several()
    OciLayoutExporter(tmp_path / "l", NAMES[:1]).export(first)
    OciLayoutExporter(tmp_path / "l", NAMES[1:]).export(second)
    OciLayoutExporter(tmp_path / "l", NAMES[1:]).export(second)
    layout = LayoutRepository(tmp_path / "l")
    assert layout.resolve("v1").digest == first.descriptor.digest
    assert layout.resolve("latest").digest == second.descriptor.digest
    OciLayoutExporter(tmp_path / "m").export(first)
    assert [name for name, _ in LayoutRepository(tmp_path / "m").named()] == [""]


def test_docker_archive() -> None:
    artifact = one()
    out = io.BytesIO()
    result = DockerArchiveExporter(out, NAMES).export(artifact)
    files = unpack(out.getvalue())
    check_blobs(files)
    [entry] = json.loads(files["manifest.json"])
    assert entry["RepoTags"] == ["app:v1", "registry.example.com/team/app:latest"]
    config = json.loads(files[entry["Config"]])
    assert len(config["rootfs"]["diff_ids"]) == len(entry["Layers"]) == 2
    assert all(layer in files for layer in entry["Layers"])
    assert result.names == tuple(map(str, NAMES))


def test_docker_archive_holds_one_platform_without_zstd() -> None:
    with pytest.raises(UsageError, match="one platform, not 2"):
        DockerArchiveExporter(io.BytesIO(), NAMES).export(several())
    image = make_image(MemoryRepository(), tar_of({"a": b"a"}), layer_type=mediatype.OCI_LAYER_ZSTD)
    with pytest.raises(ContentError, match="zstd"):
        DockerArchiveExporter(io.BytesIO(), NAMES).export(Artifact((image,)))


def test_incomplete_artifacts_are_refused() -> None:
    artifact = several()
    with pytest.raises(ContentError, match="need an index"):
        Artifact(artifact.images)
    with pytest.raises(ContentError, match="not part of"):
        Artifact(artifact.images[:1], artifact.index, artifact.attachments)


def test_killed_while_writing_leaves_no_file_at_dest(tmp_path: Path) -> None:
    code = """
import os, pathlib, signal, sys
from kpy.exporter.oci import OciArchiveExporter
from kpy.util.cancel import Cancel
from tests.exporter.exporting import one
from tests.fakes import MemoryRepository
class Killer(MemoryRepository):
    def open(self, descriptor):
        os.kill(os.getpid(), signal.SIGKILL)
OciArchiveExporter(pathlib.Path(sys.argv[1])).export(one(Killer()))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.tar")], cwd=root, check=False)
    assert done.returncode == -9
    assert not (tmp_path / "a.tar").exists()
    OciArchiveExporter(tmp_path / "a.tar").export(one())  # cleans up
    assert os.listdir(tmp_path) == ["a.tar"]
