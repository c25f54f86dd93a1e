"""L03, L04, L06, L11, C14-C17, C29: what the writer writes, and who can read it."""

import hashlib
import io
import os
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layerkit import T, item, sha, tar_of

from kpy.errors import ContentError, StoreError
from kpy.layer.entry import Entry, Kind, LayerItem
from kpy.layer.tarread import read_tar
from kpy.layer.write import write_tar


def read_back(data, *, layer=True):
    return [(entry, b"".join(content.chunks())) for entry, content in read_tar(io.BytesIO(data), layer=layer)]


def test_empty_layer_has_the_known_digest():  # L06
    assert tar_of() == bytes(1024)
    assert sha(tar_of()) == "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


ITEMS = [
    item("", Kind.DIR, mode=0o755),
    item("dir", Kind.DIR, mode=0o1777),
    item("dir/file", content=b"hello\n", mode=0o4755, uid=33, gid=44),
    item("dir/empty"),
    item("dir/" + "long" * 40, content=b"x" * 513),
    item("/".join(["deep" * 10] * 8), content=b"y"),
    item("ünïcode/☃", content=b"z"),
    item("latin\udce9", content=b"raw"),
    item("big-ids", content=b"1", uid=3_000_000, gid=4_294_967_294),
    item("sub-second", content=b"2", mtime=T + 123_456_789),
    item("before-1970", content=b"3", mtime=-1_500_000_000),
    item("xattrs", content=b"4", xattrs={"user.note": b"kept", "security.capability": bytes(range(20)) + b"\n=\xff"}),
    item("link", Kind.SYMLINK, link="../some/where", mode=0o777),
    item("longlink", Kind.SYMLINK, link="t" * 300, mode=0o777),
    item("hard", Kind.HARDLINK, link="dir/file"),
    item("null", Kind.CHAR, device=(1, 3), mode=0o666),
    item("disk", Kind.BLOCK, device=(8, 1), mode=0o660),
    item("fifo", Kind.FIFO, mode=0o620),
    item("gone", Kind.WHITEOUT, mode=0),
    item("dir", Kind.OPAQUE, mode=0),
]


def test_reads_back_equal():
    out = io.BytesIO()
    written = write_tar(ITEMS, out.write)
    assert [entry for entry, _ in read_back(out.getvalue())] == [
        Entry(**{**{name: getattr(entry, name) for name in Entry.__slots__}, "sha256": ""}) for entry in written
    ]
    assert [entry.sha256 for entry in written if entry.path == "dir/file"] == [sha(b"hello\n")]


def test_python_tarfile_reads_it():
    with tarfile.open(fileobj=io.BytesIO(tar_of(*ITEMS)), errors="surrogateescape", encoding="utf-8") as tar:
        found = {info.name: info for info in tar}
        assert tar.extractfile("dir/file").read() == b"hello\n"
    for name in ("ünïcode/☃", "latin\udce9", "/".join(["deep" * 10] * 8), "dir/" + "long" * 40):
        assert name in found
    assert found["big-ids"].gid == 4_294_967_294
    assert found["xattrs"].pax_headers["SCHILY.xattr.user.note"] == "kept"
    assert (found["null"].devmajor, found["null"].devminor) == (1, 3)
    assert found["hard"].linkname == "dir/file"
    assert found["sub-second"].mtime == pytest.approx((T + 123_456_789) / 1e9)
    assert "dir/.wh..wh..opq" in found and ".wh.gone" in found
    assert all(info.uname == info.gname == "" for info in found.values())


def test_gnu_tar_reads_it(tmp_path):
    (tmp_path / "layer.tar").write_bytes(tar_of(*ITEMS))
    listing = subprocess.run(
        ["tar", "--quoting-style=literal", "-tf", tmp_path / "layer.tar"], capture_output=True, check=True
    )
    assert listing.stderr == b""
    names = listing.stdout.split(b"\n")
    assert b"latin\xe9" in names and "ünïcode/☃".encode() in names
    content = subprocess.run(
        ["tar", "-xOf", tmp_path / "layer.tar", "dir/file"], capture_output=True, check=True
    ).stdout
    assert content == b"hello\n"


def test_plain_entries_need_no_pax_header():  # L04
    data = tar_of(item("a/" + "b" * 100, content=b"x"), item("p" * 150 + "/" + "n" * 90))
    assert data[156:157] == b"0" and b"PaxHeader" not in data


@pytest.mark.parametrize("path", [".wh.x", "a/.wh.b", "a/.wh..wh..opq", ".wh.dir/file"])
def test_refuses_files_that_would_be_whiteouts(path):  # C29
    with pytest.raises(ContentError, match="would be read as a deletion"):
        tar_of(item(path))


@pytest.mark.parametrize(("said", "has"), [(3, b"four"), (5, b"four"), (0, b"x"), (1, b"")])
def test_refuses_files_that_change_their_size(said, has):
    changed = LayerItem(Entry("f", Kind.FILE, size=said), lambda: io.BytesIO(has))
    with pytest.raises(ContentError, match="'f' changed while it was read"):
        write_tar([changed], lambda _: None)


def test_refuses_files_that_change_their_content():
    with pytest.raises(ContentError, match="changed"):
        write_tar([item("f", content=b"new", sha256=sha(b"old"))], lambda _: None)


def test_unreadable_file_is_named():
    def fail():
        raise PermissionError(13, "Permission denied")

    with pytest.raises(StoreError, match="'f': Permission denied"):
        write_tar([LayerItem(Entry("f", Kind.FILE, size=1), fail)], lambda _: None)


def test_hard_links_carry_what_their_file_has():  # C14: containerd applies the metadata of the link
    file = item("f", content=b"x", mode=0o4755, uid=7, gid=8, mtime=T + 1, xattrs={"security.capability": b"c"})
    (_, _), (link, _) = read_back(tar_of(file, item("l", Kind.HARDLINK, link="f", mode=0o600)))
    assert (link.mode, link.uid, link.gid, link.mtime) == (0o4755, 7, 8, T + 1)
    assert link.xattrs == {"security.capability": b"c"}


def test_sizes_above_8_gib_go_into_pax():  # C17
    from kpy.layer.header import encode_header

    header = encode_header(Entry("big", Kind.FILE, size=9 << 30))
    info = tarfile.TarInfo.frombuf(header[-512:], "utf-8", "strict")
    assert info.size == 0 and b"size=9663676416\n" in header
    entry, _ = next(read_tar(io.BytesIO(header + bytes(512)), layer=True))
    assert entry.size == 9 << 30


def test_xattr_with_equals_sign_is_refused():
    with pytest.raises(ContentError, match="no tar can hold"):
        tar_of(item("f", xattrs={"user.a=b": b""}))


_component = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda text: text not in (".", "..") and not text.startswith(".wh.")
)


@given(
    path=st.lists(_component, min_size=1, max_size=5).map("/".join),
    content=st.binary(max_size=2000),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    mtime=st.integers(-(2**40), 2**62),
    xattrs=st.dictionaries(st.text("abc.", min_size=1).map("user.".__add__), st.binary(max_size=80), max_size=3),
)
def test_any_file_reads_back(path, content, mode, uid, mtime, xattrs):
    wanted = item(path, content=content, mode=mode, uid=uid, mtime=mtime, xattrs=xattrs)
    assert read_back(tar_of(wanted)) == [(wanted.entry, content)]


@given(name=st.binary(min_size=1, max_size=250).filter(lambda raw: not set(raw) & {0, 47} and raw.strip(b".")))
def test_any_bytes_are_a_name(name):
    path = "d/" + os.fsdecode(name)
    if not path.startswith("d/.wh."):
        with tarfile.open(fileobj=io.BytesIO(tar_of(item(path))), encoding="utf-8", errors="surrogateescape") as tar:
            assert tar.getnames() == [path]


def test_large_file_is_streamed_in_pieces():
    size = 5 << 20
    pieces = []
    big = LayerItem(Entry("big", Kind.FILE, size=size), lambda: io.BytesIO(bytes(size)))
    (entry,) = write_tar([big], lambda data: pieces.append(len(data)))
    assert max(pieces) <= 2 << 20 and sum(pieces) == 512 + size + 1024
    assert entry.sha256 == hashlib.sha256(bytes(size)).hexdigest()
