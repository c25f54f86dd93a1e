"""ADD of archives (C22): by content, entries below the destination, hostile ones refused."""

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
from pathlib import Path

import pytest
import zstandard

from kpy.errors import ContentError, ContextError
from kpy.layer.entry import Kind
from kpy.solver.archive import Spool, is_archive
from tests.fakes import T0
from tests.solver.copying import add, apply, layer, paths

DEV = tarfile.CHRTYPE


def tar(*members: "tuple[str, bytes | str | None] | tarfile.TarInfo", mode: int = 0o640, owner: tuple[int, int] = (3, 4)) -> bytes:
    """(name, bytes: a file, str: a symlink, None: a directory), or a TarInfo as it stands."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, what = member
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = mode, T0 // 10**9
            info.uid, info.gid = owner
            if what is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o750
            elif isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what
            else:
                info.size = len(what)
            archive.addfile(info, io.BytesIO(what if isinstance(what, bytes) else b""))
    return out.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mtime = kind, link, T0 // 10**9
    return info


SIMPLE = tar(("d", None), ("d/f", b"content"), ("l", "d/f"))


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, bz2.compress, lzma.compress, lambda data: zstandard.ZstdCompressor().compress(data)], ids=["plain", "gzip", "bzip2", "xz", "zstd"]
)
def test_by_content_and_not_by_name(compress: object, tmp_path: Path) -> None:
    found = layer(add(compress(SIMPLE), "/to", tmp_path))  # type: ignore[operator]
    assert found == {"to": "d 755 now", "to/d": "d 750 3:4", "to/d/f": "f 640 3:4", "to/l": "l d/f 3:4"}


@pytest.mark.parametrize("data", [b"", b"text", gzip.compress(b"no tar", mtime=0), b"\x1f\x8b broken", b"\0" * 100, b"BZh9", lzma.compress(b"")])
def test_what_is_no_archive(data: bytes) -> None:
    assert not is_archive(lambda: io.BytesIO(data))


def test_owner_and_destination(tmp_path: Path) -> None:
    """--chown is for all, --chmod for nothing: BuildKit's unpacking knows no mode."""
    assert layer(add(SIMPLE, "/a/b/", tmp_path, owner=(1, 2), chmod="700")) == {
        "a": "d 755 1:2 now", "a/b": "d 755 1:2 now", "a/b/d": "d 750 1:2", "a/b/d/f": "f 640 1:2", "a/b/l": "l d/f 1:2",
    }  # fmt: skip


def test_into_the_root_and_over_what_is_there(tmp_path: Path) -> None:
    onto: dict[str, bytes | str | None] = {"d": None, "d/f": b"old", "d/keep": b"", "l": b"file"}
    target = add(SIMPLE, "/", tmp_path, onto=onto)
    after = apply(target.tree, target.items())
    assert sorted(entry.path for entry in after.walk() if entry.kind is not Kind.DIR) == ["d/f", "d/keep", "l"]
    assert (after.lookup("l") or 0).kind is Kind.SYMLINK  # type: ignore[union-attr]


def test_a_directory_replaced_by_a_file_and_again_by_a_directory(tmp_path: Path) -> None:
    target = add(tar(("d", b"file"), ("x", b"")), "/", tmp_path, onto={"d": None, "d/gone": b""})
    assert [entry.path for entry in apply(target.tree, target.items()).walk() if entry.path] == ["d", "x"]
    target = add(tar(("d", b"file"), ("d", None), ("d/new", b"")), "/", tmp_path, onto={"d": None, "d/gone": b""})
    assert [entry.path for entry in apply(target.tree, target.items()).walk() if entry.path] == ["d", "d/new"]


@pytest.mark.parametrize(("name", "place"), [("../../x", "x"), ("/etc/x", "etc/x"), ("./a/../x", "x"), ("a/./../../../x", "x")])
def test_names_stay_below_the_destination(name: str, place: str, tmp_path: Path) -> None:
    assert paths(add(tar((name, b"")), "/to", tmp_path)) == [f"to/{place}"]


@pytest.mark.parametrize("link", ["../../../../etc", "/etc", "../etc", "etc", "/etc/../../etc/."])
def test_links_lead_nowhere_but_below_the_destination(link: str, tmp_path: Path) -> None:
    """It is the root of the extraction, for links of the archive and for those that are there."""
    assert paths(add(tar(("l", link), ("l/x", b"")), "/to", tmp_path, onto={"etc": None})) == ["to/etc/x", "to/l"]
    assert paths(add(tar(("l/x", b"")), "/to", tmp_path, onto={"etc": None, "to": None, "to/l": link})) == ["to/etc/x"]
    assert paths(add(tar(("l/x", b"")), "/", tmp_path, onto={"etc": None, "l": link})) == ["etc/x"]


def test_a_link_at_the_destination_itself_is_of_the_image(tmp_path: Path) -> None:
    assert paths(add(tar(("x", b"")), "/to", tmp_path, onto={"etc": None, "to": "/etc"})) == ["etc/x"]


def test_a_directory_replaces_a_link(tmp_path: Path) -> None:
    assert paths(add(tar(("l", None), ("l/x", b"")), "/to", tmp_path, onto={"to": None, "to/l": "/etc", "to/etc": None})) == ["to/l/x"]


def test_hard_links(tmp_path: Path) -> None:
    data = tar(("a", b"12"), special("b", tarfile.LNKTYPE, "a"), special("c", tarfile.LNKTYPE, "./b"))
    assert layer(add(data, "/t", tmp_path)) == {"t": "d 755 now", "t/a": "f 644", "t/b": "= t/a", "t/c": "= t/a"}


def test_the_last_hard_link_says_owner_and_mode_of_the_file(tmp_path: Path) -> None:
    last = special("b", tarfile.LNKTYPE, "a")
    last.mode, last.uid, last.gid = 0o4711, 5, 6
    assert layer(add(tar(("a", b"12"), last), "/t", tmp_path)) == {"t": "d 755 now", "t/a": "f 4711 5:6", "t/b": "= t/a"}
    assert layer(add(tar(("a", b"12"), last), "/t", tmp_path, owner=(1, 2)))["t/a"] == "f 4711 1:2"
    assert layer(add(tar(("a", "there"), last), "/t", tmp_path))["t/a"] == "l there 5:6"


def test_a_hard_link_through_a_symlink(tmp_path: Path) -> None:
    data = tar(("q", None), ("q/f", b"1"), ("s", "/q"), special("h", tarfile.LNKTYPE, "s/f"))
    assert layer(add(data, "/t", tmp_path))["t/q/f"] == "= t/h"


def test_a_hard_link_whose_first_name_is_replaced(tmp_path: Path) -> None:
    data = tar(("a", b"12"), special("b", tarfile.LNKTYPE, "a"), ("a", b"345"))
    target = add(data, "/t", tmp_path)
    sizes = {item.entry.path: item.entry.size for item in target.items()}
    assert (sizes["t/a"], sizes["t/b"]) == (3, 2)


@pytest.mark.parametrize(
    ("members", "error", "words"),
    [
        ([special("b", tarfile.LNKTYPE, "../../etc/passwd")], ContentError, "which the archive does not have"),
        ([("d", None), special("b", tarfile.LNKTYPE, "d")], ContentError, "which is a directory"),
        ([special("d/b", tarfile.LNKTYPE, "d")], ContentError, "which is a directory"),
        ([(".wh.x", b"")], ContextError, r"\.wh\."),
        ([("d/.wh..wh..opq", b"")], ContextError, r"\.wh\."),
        ([("f", b""), ("f/x", b"")], ContextError, "is not a directory"),
        ([("l", "l"), ("l/x", b"")], ContextError, "too many levels"),
    ],
)
def test_hostile_entries(members: list[object], error: type[Exception], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        add(tar(("ok", b""), *members), "/t", tmp_path)  # type: ignore[arg-type]


def test_devices_and_fifos_are_kept(tmp_path: Path) -> None:
    device = special("c", tarfile.CHRTYPE)
    device.devmajor, device.devminor = 1, 3
    target = add(tar(device, special("p", tarfile.FIFOTYPE)), "/", tmp_path)
    assert [(item.entry.kind, item.entry.device) for item in target.items()] == [(Kind.CHAR, (1, 3)), (Kind.FIFO, (0, 0))]


@pytest.mark.parametrize("cut", [600, 1025, 1500])
def test_a_truncated_archive(cut: int, tmp_path: Path) -> None:
    with pytest.raises(ContentError, match=r"cannot unpack x\.tar"):
        add(tar(("a", b"x" * 2000))[:cut], "/", tmp_path)


def test_a_truncated_compressed_archive(tmp_path: Path) -> None:
    import os

    data = gzip.compress(tar(("a", os.urandom(100_000))))
    with pytest.raises(ContentError, match=r"cannot unpack x\.tar"):
        add(data[: len(data) // 2], "/", tmp_path)


def test_something_is_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match=r"cannot unpack x\.tar to /f/d: /f is not a directory"):
        add(SIMPLE, "/f/d", tmp_path, onto={"f": b""})


def test_the_spool_leaves_nothing(tmp_path: Path) -> None:
    with Spool(str(tmp_path)) as spool:
        first, digest = spool.add(lambda: [b"ab", b"c"])
        second, _ = spool.add(lambda: [b"defg"])
        assert digest == hashlib.sha256(b"abc").hexdigest()
        assert list(tmp_path.iterdir()) == []
        with spool.opener(second)() as late, spool.opener(first)() as early:
            assert (late.read(2), early.read(), late.read()) == (b"de", b"abc", b"fg")
