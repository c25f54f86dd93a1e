"""A tar as a build context (1.10): any compression, hostile content."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from kpy.buildcontext import archive
from kpy.buildcontext.archive import ArchiveContext, archive_context, looks_like_archive
from kpy.errors import ContentError, InterruptedBuildError
from kpy.layer.entry import Kind
from kpy.util.cancel import Cancel

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}  # fmt: skip


def tar(*items: tuple[str, bytes | str], form: int = tarfile.PAX_FORMAT) -> bytes:
    """(name, content), (name, "-> target"), (name, "= target"), (name/, "")."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for name, content in items:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mtime, info.uid, info.mode = 5, 1000, 0o4711
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str) and content:
                info.type = tarfile.SYMTYPE if content.startswith("-> ") else tarfile.LNKTYPE
                info.linkname = content.partition(" ")[2]
            data = content if isinstance(content, bytes) else b""
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def cancel() -> Iterator[Cancel]:
    with Cancel() as found:
        yield found


@pytest.fixture
def context(tmp_path: Path, cancel: Cancel) -> Iterator[Callable[[bytes], ArchiveContext]]:
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda data: stack.enter_context(archive_context(io.BytesIO(data), str(tmp_path), cancel, what="it"))


def read(source: ArchiveContext, path: str) -> bytes:
    entry = source.lookup(path)
    assert entry is not None
    with source.reading([entry]) as opener, opener(entry) as stream:
        return stream.read()


@pytest.mark.parametrize("kind", COMPRESS)
def test_any_compression(context, kind) -> None:
    data = COMPRESS[kind](tar(("Dockerfile", b"FROM scratch"), ("d/", ""), ("d/big", os.urandom(70000) + bytes(1 << 20))))
    assert looks_like_archive(data[: archive.HEAD])
    found = context(data)
    assert found.children("") == ["Dockerfile", "d"]
    assert read(found, "Dockerfile") == b"FROM scratch"
    assert len(read(found, "d/big")) == 70000 + (1 << 20)
    assert found.lookup("Dockerfile").mode == 0o4711


@pytest.mark.parametrize(
    "head", [b"", b"FROM scratch\n", b"#!x\n" * 300, bytes(1024), b"\x42", b"PK\x03\x04"], ids=range(6)
)
def test_a_dockerfile_is_no_archive(head) -> None:
    assert not looks_like_archive(head)


def test_an_old_tar_without_magic_is_one() -> None:
    data = bytearray(tar(("a", b"x"), form=tarfile.USTAR_FORMAT))
    data[257:265] = bytes(8)
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:512])
    assert looks_like_archive(bytes(data[:1024]))


def test_nothing_reaches_outside(context, tmp_path) -> None:
    before = sorted(os.listdir(tmp_path))
    found = context(
        tar(
            ("../../up", b"1"), ("/abs", b"2"), ("link", "-> /etc"), ("link/passwd", b"3"), ("out", "-> ../../../etc/shadow"),
            ("a/../b", b"4"),
        )  # fmt: skip
    )
    assert read(found, "up") == b"1"
    assert read(found, "abs") == b"2"
    assert read(found, "etc/passwd") == b"3"
    assert read(found, "b") == b"4"
    assert found.lookup("out").kind is Kind.SYMLINK
    assert sorted(os.listdir(tmp_path)) == before


def test_later_entries_links_and_markers(context) -> None:
    found = context(
        tar(("a", b"old"), ("a", b"new"), ("b", "= a"), ("x/.wh.y", b"w"), ("x/.wh..wh..opq", b""), ("p/q/r", b""))
    )
    assert read(found, "b") == b"new"
    assert found.link_id(found.lookup("a")) == found.link_id(found.lookup("b")) is not None
    assert found.children("x") == [".wh..wh..opq", ".wh.y"]
    assert found.lookup("p/q").mode == 0o755
    assert found.lookup("a/b") is None


@pytest.mark.parametrize(
    "data",
    [
        tar(("a", b"x" * 600))[:700], tar(("a", "= none")), gzip.compress(tar(("a", b"x")), mtime=0)[:-20], b"\x1f\x8b junk",
        gzip.compress(b"no tar at all" * 100, mtime=0), tar(("a", b"x" * 600))[:512],
    ],
    ids=range(6),
)  # fmt: skip
def test_broken_archives(context, data) -> None:
    with pytest.raises(ContentError, match="cannot read it: "):
        context(data)


def test_limits(context, monkeypatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 2)
    with pytest.raises(ContentError, match="more than the 2 entries"):
        context(tar(("a", b""), ("b", b""), ("c", b"")))
    monkeypatch.setattr(archive, "MAX_CONTENT", 10)
    with pytest.raises(ContentError, match="more than 0 GiB of files"):
        context(tar(("a", b"x" * 11)))


def test_threads_read_at_once(context) -> None:
    contents = [bytes([number]) * 50_000 for number in range(8)]
    found = context(tar(*((str(number), data) for number, data in enumerate(contents))))
    results: dict[int, bytes] = {}
    threads = [threading.Thread(target=lambda n=n: results.update({n: read(found, str(n))})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[number] for number in range(8)] == contents


def test_a_cancelled_build_reads_no_further(context, cancel) -> None:
    cancel.set()
    with pytest.raises(InterruptedBuildError):
        context(tar(("a", b"")))
