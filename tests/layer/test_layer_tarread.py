"""The tar reader against other writers, and against hostile ones (C22)."""

import io
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layerkit import item, member, raw_tar, tar_of

from kpy.errors import ContentError
from kpy.layer.decompress import sniff_archive
from kpy.layer.entry import Kind
from kpy.layer.tarread import TarLimits, read_tar


def read(data, *, layer=True, **more):
    return [(entry, b"".join(content.chunks())) for entry, content in read_tar(io.BytesIO(data), layer=layer, **more)]


def paths(data, **more):
    return [entry.path for entry, _ in read(data, **more)]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("./a//b", "a/b"),
        ("/abs/file", "abs/file"),
        ("../../x", "x"),
        ("/../../x", "x"),
        ("a/../../b", "b"),
        ("a/./b/", "a/b"),
        ("//two", "two"),
    ],
)
def test_names_are_cleaned(name, path):
    assert paths(raw_tar(member(name, content=b"1"))) == [path]


def test_root_entry():
    ((entry, _),) = read(raw_tar(member("./", tarfile.DIRTYPE)))
    assert (entry.path, entry.kind) == ("", Kind.DIR)


def test_hardlink_target_is_cleaned_and_symlink_target_is_not():
    data = raw_tar(member("h", tarfile.LNKTYPE, link="./../x"), member("s", tarfile.SYMTYPE, link="../../x"))
    assert [entry.link for entry, _ in read(data)] == ["x", "../../x"]


@pytest.mark.parametrize(
    ("name", "kind", "path"),
    [
        ("a/.wh.b", Kind.WHITEOUT, "a/b"),
        (".wh.b", Kind.WHITEOUT, "b"),
        ("a/.wh..wh..opq", Kind.OPAQUE, "a"),
        (".wh..wh..opq", Kind.OPAQUE, ""),
    ],
)
def test_markers_in_layers_and_archives(name, kind, path):  # L01, C22
    data = raw_tar(member(name))
    ((entry, _),) = read(data)
    assert (entry.kind, entry.path) == (kind, path)
    ((entry, _),) = read(data, layer=False)
    assert (entry.kind, entry.path) == (Kind.FILE, name)


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh...", ".wh.a/b"])
def test_invalid_whiteouts_are_refused(name):
    with pytest.raises(ContentError, match="whiteout"):
        read(raw_tar(member(name)))


def test_aufs_leftovers_are_skipped():
    data = raw_tar(member(".wh..wh.plnk", tarfile.DIRTYPE), member(".wh..wh.plnk/1.2"), member(".wh..wh.aufs"), member("a"))
    assert paths(data) == ["a"]


@pytest.mark.parametrize("format_", ["gnu", "pax", "ustar", "v7", "oldgnu"])
def test_gnu_tar_formats(tmp_path, format_):
    long = "d" * 60 + "/" + "f" * (30 if format_ == "v7" else 90)
    (tmp_path / "in" / long).parent.mkdir(parents=True)
    (tmp_path / "in" / long).write_bytes(b"content" * 1000)
    (tmp_path / "in" / "link").symlink_to("t" * 90)
    subprocess.run(["tar", f"--format={format_}", "-C", tmp_path / "in", "-cf", tmp_path / "t", "."], check=True)
    found = {entry.path: (entry, content) for entry, content in read((tmp_path / "t").read_bytes())}
    assert found[long][1] == b"content" * 1000
    assert found["link"][0].link == "t" * 90
    assert found[""][0].kind is Kind.DIR


@pytest.mark.parametrize("flags", [["--format=gnu"], ["--format=pax", "--sparse-version=1.0"], ["--format=pax", "--sparse-version=0.1"]])
def test_sparse_files_are_filled(tmp_path, flags):  # C17
    with open(tmp_path / "sparse", "wb") as file:
        for position in range(0, 40 << 16, 2 << 16):
            file.seek(position)
            file.write(b"data%d" % position)
        file.truncate(41 << 16)
    subprocess.run(["tar", "-S", *flags, "-C", tmp_path, "-cf", tmp_path / "t", "sparse", "sparse"], check=True)
    assert (tmp_path / "t").stat().st_size < 1 << 20
    wanted = (tmp_path / "sparse").read_bytes()
    (entry, content), (second, _) = read((tmp_path / "t").read_bytes())
    assert (entry.path, entry.size, content == wanted) == ("sparse", 41 << 16, True)
    assert second.kind is Kind.HARDLINK or second.size == 41 << 16


def test_sparse_version_0_0_is_refused(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 20)
    command = ["tar", "-S", "--format=pax", "--sparse-version=0.0", "-C", tmp_path, "-cf", tmp_path / "t", "sparse"]
    subprocess.run(command, check=True)
    with pytest.raises(ContentError, match="sparse"):
        read((tmp_path / "t").read_bytes())


def patched(data, offset, value):
    block = bytearray(data)
    block[offset : offset + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


def test_base_256_numbers():
    data = patched(raw_tar(member("f", content=b"x")), 108, b"\x80\0\0\0\x01\0\0\0")
    assert read(data)[0][0].uid == 1 << 24
    data = patched(raw_tar(member("f", content=b"x")), 136, b"\xff" * 12)
    assert read(data)[0][0].mtime == -(10**9)


@pytest.mark.parametrize(
    ("offset", "value", "error"),
    [
        (124, b"\xff" * 12, "size is negative"),
        (124, b"\x80" + b"\xff" * 11, "size is too large"),
        (136, b"\xcf" * 12, "mtime is too large"),  # found by fuzzing: no time_t, and os.utime raised OverflowError
        (124, b"-0000000001\0", "size is b'-"),
        (124, b"00000000_1 \0", "size is"),
        (156, b"Z", "unknown type"),
        (0, b"\0" * 100, "root as file"),
        (157, b"", ""),
    ],
)
def test_broken_fields(offset, value, error):
    data = patched(raw_tar(member("f")), offset, value)
    if not error:
        assert read(data)
        return
    with pytest.raises(ContentError, match=error):
        read(data)


def test_wrong_checksum():
    data = bytearray(raw_tar(member("f")))
    data[0] ^= 1
    with pytest.raises(ContentError, match="wrong checksum"):
        read(bytes(data))


@pytest.mark.parametrize("cut", [100, 512, 700, 512 + 1024])
def test_truncated(cut):
    data = raw_tar(member("f", content=b"x" * 2000))
    with pytest.raises(ContentError, match="truncated"):
        read(data[:cut])


def test_end_without_zero_blocks_and_garbage_after_them():
    data = tar_of(item("f", content=b"x"))
    assert paths(data[:1024]) == ["f"]
    assert paths(data + b"garbage") == ["f"]
    assert paths(b"") == []


def test_lone_zero_block():
    with pytest.raises(ContentError, match="lone zero block"):
        read(bytes(512) + tar_of(item("f")))


def pax_block(body, kind=b"x"):
    info = tarfile.TarInfo("pax")
    info.type = kind
    info.size = len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


@pytest.mark.parametrize(
    "body",
    [b"garbage", b"5 a=b\n", b"99 a=b\n", b"6 a=bX", b"5 =b\n", b"-6 a=b\n", b"0 \n", b"99999999999999999999999 a=b\n", b"3 \n"],
)
def test_malformed_pax(body):
    with pytest.raises(ContentError, match="PAX record"):
        read(pax_block(body) + tar_of(item("f")))


def test_huge_extended_headers_are_refused():
    for kind in (b"x", b"g", b"L", b"K"):
        info = tarfile.TarInfo("pax")
        info.type = kind
        info.size = 1 << 40
        with pytest.raises(ContentError, match="extended header"):
            read(info.tobuf(tarfile.GNU_FORMAT))


def test_very_long_and_deep_paths_are_refused():
    path = "a/" * 100_000 + "f"
    with pytest.raises(ContentError, match="more than anybody nests directories"):
        read(raw_tar(member(path)))


def test_zero_byte_in_a_path():
    with pytest.raises(ContentError, match="zero byte"):
        read(pax_block(b"12 path=a\0b\n") + tar_of(item("f")))


def test_global_headers_are_ignored():
    data = pax_block(b"12 path=evil\n"[:0] + b"13 path=evil\n", b"g") + tar_of(item("f"))
    assert paths(data) == ["f"]


def test_entry_limit():
    with pytest.raises(ContentError, match="more than the 2 entries"):
        read(tar_of(*[item(f"f{n}") for n in range(3)]), limits=TarLimits(entries=2))


def test_private_xattrs_are_dropped():
    pax = {"SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.user.kpy.device": "c:1:3", "SCHILY.xattr.user.a": "1"}
    assert read(raw_tar(member("f", pax=pax)))[0][0].xattrs == {"user.a": b"1"}


def test_empty_link_targets_are_refused():
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        with pytest.raises(ContentError, match="without a target"):
            read(raw_tar(member("l", kind)))


@pytest.mark.parametrize("device", [(1 << 12, 0), (0, 1 << 20), (1 << 31, 3)])
def test_devices_that_cannot_be_are_refused(device):  # found by fuzzing: mknod's arguments overflowed
    info = tarfile.TarInfo("d")
    info.type, (info.devmajor, info.devminor) = tarfile.CHRTYPE, device
    with pytest.raises(ContentError, match=f"the device {device[0]}:{device[1]}"):
        read(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def test_sparse_bomb_is_refused():
    body = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
    size = b"GNU.sparse.realsize=%d\n" % (1 << 50)
    body += b"%d %s" % (len(size) + 3, size)
    data = pax_block(body) + tar_of(item("f", content=b"0\n".ljust(512, b"\0")))
    with pytest.raises(ContentError, match="sparse file of"):
        read(data)


@given(data=st.binary(max_size=3000), flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6))
def test_fuzz_raises_nothing_else(data, flips):
    good = bytearray(tar_of(item("a", Kind.DIR), item("ü" * 60, content=b"x" * 600), item("l", Kind.SYMLINK, link="x")))
    for offset, value in flips:
        good[offset % len(good)] = value
    for hostile in (data, bytes(good)):
        try:
            read(hostile)
        except ContentError:
            pass


@pytest.mark.parametrize(
    ("command", "kind"),
    [(["cat"], "none"), (["gzip"], "gzip"), (["bzip2"], "bzip2"), (["xz"], "xz"), (["zstd", "-q"], "zstd")],
)
def test_archives_are_known_by_content(command, kind):  # C22
    def packed(data):
        return subprocess.run([*command, "-c"] if command != ["cat"] else command, input=data, capture_output=True, check=True).stdout

    assert sniff_archive(packed(tar_of(item("f", content=b"x")))) == kind
    assert sniff_archive(io.BytesIO(packed(tar_of(item("ü" * 90))))) == kind
    assert sniff_archive(packed(b"just text\n" * 100)) is None
    assert sniff_archive(packed(b"")) is None
    assert sniff_archive(packed(bytes(10240))) is None
