"""Extraction onto a real directory: equal to the tree, and nothing leaves the root (C14-C17, L01)."""

import errno
import io
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layerkit import (
    T,
    in_tree,
    item,
    link_groups_in_tree,
    link_groups_on_disk,
    member,
    on_disk,
    raw_tar,
    small_layer,
    tar_of,
)

from kpy.errors import ContentError, StoreError
from kpy.layer.device import DEVICE_XATTR, decode_device, encode_device
from kpy.layer.entry import Kind
from kpy.layer.extract import ExtractOptions, extract
from kpy.layer.index import scan_layer
from kpy.layer.tree import Tree
from kpy.oci.digest import Digest


def unpack(data, root, **more):
    return extract(io.BytesIO(data), str(root), options=ExtractOptions(owners=False, **more))


def apply(tree, data):
    return tree.apply(scan_layer(io.BytesIO(data)), Digest.of(data))


def test_everything_arrives(tmp_path):
    data = tar_of(
        item("", Kind.DIR, mode=0o750),
        item("d", Kind.DIR, mode=0o500, mtime=T + 1),
        item("d/f", content=b"x" * 3_000_000, mode=0o4711, mtime=T + 123_456_789, xattrs={"user.note": b"\0kept"}),
        item("d/l", Kind.SYMLINK, link="../nowhere", mode=0o777),
        item("d/h", Kind.HARDLINK, link="d/f"),
        item("d/p", Kind.FIFO, mode=0o620),
        item("implied/deep/f"),
    )
    done = unpack(data, tmp_path)
    assert in_tree(apply(Tree.empty(), data)) == on_disk(tmp_path)
    assert done.tree == scan_layer(io.BytesIO(data))
    assert done.lost == ()
    assert os.getxattr(tmp_path / "d/f", "user.note") == b"\0kept"
    assert os.stat(tmp_path / "d/h").st_ino == os.stat(tmp_path / "d/f").st_ino
    assert stat.S_IMODE(os.stat(tmp_path).st_mode) == 0o750


EVIL = raw_tar(
    member("../../../escaped-dotdot", content=b"1"),
    member("evil", tarfile.SYMTYPE, link="../../.."),
    member("evil/escaped-symlink", content=b"2"),
    member("absevil", tarfile.SYMTYPE, link="/"),
    member("absevil/escaped-abs", content=b"3"),
    member("up", tarfile.SYMTYPE, link=".."),
    member("deep/up", tarfile.SYMTYPE, link="../../../../etc"),
    member("deep/up/passwd", content=b"4"),
    member("hard", tarfile.LNKTYPE, link="../../escaped-dotdot"),
    member("evil/.wh.nothing"),
    member("evil/../.wh.nothing"),
)


def test_nothing_leaves_the_root(tmp_path):  # base/evil:1
    root = tmp_path / "a" / "b" / "root"
    root.mkdir(parents=True)
    unpack(EVIL, root)
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["b"]
    assert os.listdir(tmp_path / "a" / "b") == ["root"]
    names = {"escaped-dotdot", "evil", "escaped-symlink", "absevil", "escaped-abs", "up", "deep", "etc", "hard"}
    assert set(os.listdir(root)) == names
    assert (root / "etc/passwd").read_bytes() == b"4"
    assert in_tree(apply(Tree.empty(), EVIL)) == on_disk(root)


def test_symlinks_of_lower_layers_are_followed_inside_and_replaced(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(outside)
    (root / "file").symlink_to(outside / "victim")
    unpack(raw_tar(member("out/f", content=b"1"), member("file", content=b"2")), root)
    assert os.listdir(outside) == []
    assert (root / str(outside)[1:] / "f").read_bytes() == b"1"
    assert (root / "file").read_bytes() == b"2" and not (root / "file").is_symlink()


def test_whiteouts_do_not_follow_symlinks_out(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "f").write_bytes(b"")
    root = tmp_path / "root"
    root.mkdir()
    (root / "l").symlink_to("../victim")
    unpack(tar_of(item("l/f", Kind.WHITEOUT), item("l", Kind.OPAQUE), item("l", Kind.WHITEOUT)), root)
    assert os.listdir(tmp_path / "victim") == ["f"] and os.listdir(root) == []


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ([member("h", tarfile.LNKTYPE, link="../../etc/passwd")], "hard link to 'etc/passwd', which is not there"),
        ([member("h", tarfile.LNKTYPE, link="h")], "which is not there"),
        ([member("d", tarfile.DIRTYPE), member("h", tarfile.LNKTYPE, link="d")], "hard link to the directory"),
        ([member("a", tarfile.SYMTYPE, link="a"), member("a/f")], "too many symlinks"),
        ([member("n" * 300)], "cannot extract"),
    ],
)
def test_refused(tmp_path, members, error):
    with pytest.raises(ContentError, match=error):
        unpack(raw_tar(*members), tmp_path)
    if error != "cannot extract":  # the tree does not know what names a file system takes
        with pytest.raises(ContentError, match=error):
            apply(Tree.empty(), raw_tar(*members))


def test_hard_link_to_itself_keeps_the_file(tmp_path):
    data = raw_tar(member("d/f", content=b"x"), member("d/f", tarfile.LNKTYPE, link="d/f"))
    tmp_path.chmod(0o755)
    unpack(data, tmp_path)
    assert (tmp_path / "d/f").read_bytes() == b"x"
    assert in_tree(apply(Tree.empty(), data)) == on_disk(tmp_path)


def test_hard_link_to_what_its_name_replaces(tmp_path):
    tmp_path.chmod(0o755)
    for data in (tar_of(item("b/c", content=b"x")), tar_of(item("b", Kind.HARDLINK, link="b/c"))):
        unpack(data, tmp_path)
    assert os.listdir(tmp_path) == ["b"] and (tmp_path / "b").read_bytes() == b"x"


def test_whiteouts_below_a_loop_of_symlinks_remove_nothing(tmp_path):
    unpack(tar_of(item("a", Kind.SYMLINK, link="a", mode=0o777)), tmp_path)
    unpack(tar_of(item("a/x", Kind.WHITEOUT)), tmp_path)
    assert os.listdir(tmp_path) == ["a"]


def test_deep_tree_is_made_and_removed_without_many_descriptors(tmp_path):
    path = "/".join(["d"] * 700)
    unpack(tar_of(item(path + "/f"), *[item("l", Kind.SYMLINK, link=path), item("l/" + path + "/g")]), tmp_path)
    unpack(tar_of(item("d", Kind.WHITEOUT)), tmp_path)
    assert os.listdir(tmp_path) == ["l"]


def test_whiteouts_spare_what_the_layer_brings(tmp_path):  # L01: wherever they stand
    unpack(
        tar_of(item("a", Kind.DIR), item("a/old"), item("a/sub", Kind.DIR), item("a/sub/old"), item("b/old"), item("c")),
        tmp_path,
    )
    unpack(
        tar_of(
            item("a/new"),
            item("a/sub/new"),
            item("a", Kind.OPAQUE, mode=0),
            item("b/new"),
            item("b", Kind.WHITEOUT, mode=0),
            item("c"),
            item("c", Kind.WHITEOUT, mode=0),
        ),
        tmp_path,
    )
    found = {path for path, what in on_disk(tmp_path).items() if what[0] == "f"}
    assert found == {"a/new", "a/sub/new", "b/new", "c"}


@settings(max_examples=100, deadline=None)
@given(layers=st.lists(small_layer(), min_size=1, max_size=4))
def test_disk_equals_tree(layers):
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        tree = Tree.empty()
        for whiteouts, items in layers:
            data = tar_of(*whiteouts, *items)
            try:
                after = apply(tree, data)
            except ContentError:
                with pytest.raises(ContentError):
                    unpack(data, root)
                return
            before = in_tree(tree)
            unpack(data, root)
            assert in_tree(after) == on_disk(root)
            assert link_groups_in_tree(after) == link_groups_on_disk(root)
            assert in_tree(tree) == before
            tree = after


@settings(max_examples=200, deadline=None)
@given(layers=st.lists(st.tuples(small_layer(), st.randoms(use_true_random=False)), min_size=2, max_size=3))
def test_disk_equals_tree_wherever_whiteouts_stand(layers):
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        tree = Tree.empty()
        for (whiteouts, items), random in layers:
            mixed = list(items)
            for whiteout in whiteouts:
                mixed.insert(random.randint(0, len(mixed)), whiteout)
            data = tar_of(*mixed)
            try:
                tree = apply(tree, data)
            except ContentError:
                with pytest.raises(ContentError):
                    unpack(data, root)
                return
            unpack(data, root)
            assert in_tree(tree) == on_disk(root)
            assert link_groups_in_tree(tree) == link_groups_on_disk(root)


@pytest.mark.parametrize(
    ("upper", "left"),
    [
        # a link that the layer itself brings is followed, and what it leads to is from below
        ([item("l", Kind.SYMLINK, link="d"), item("l/x", Kind.WHITEOUT)], {"d/y", "l"}),
        ([item("l/x", Kind.WHITEOUT), item("l", Kind.SYMLINK, link="d")], {"d/x", "d/y", "l"}),
        # a hard link keeps a file whose name goes afterwards
        ([item("h", Kind.HARDLINK, link="d/x"), item("d", Kind.WHITEOUT)], {"h", "l/x"}),
        # a name that is linked to itself is the layer's
        ([item("d/x", Kind.HARDLINK, link="d/x"), item("d", Kind.OPAQUE)], {"d/x", "l/x"}),
        ([item("d/z"), item("d", Kind.WHITEOUT), item("d/x", Kind.WHITEOUT)], {"d/z", "l/x"}),
    ],
)
def test_whiteouts_between_other_entries(tmp_path, upper, left):
    tree = Tree.empty()
    for items in ([item("d/x"), item("d/y"), item("l/x")], upper):
        data = tar_of(*items)
        unpack(data, tmp_path)
        tree = apply(tree, data)
    assert in_tree(tree) == {**on_disk(tmp_path), "": in_tree(tree)[""]}
    assert {path for path, what in on_disk(tmp_path).items() if what[0] != "d"} == left


def test_protected_paths_stay(tmp_path):
    for name in ("kpy/lib", "proc", "var/run/x", "etc"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "kpy/lib/own").write_bytes(b"own")
    (tmp_path / "var/log").write_bytes(b"")
    protected = {"kpy", "proc", "var/run/x"}
    before = os.stat(tmp_path / "kpy").st_mtime_ns, os.stat(tmp_path / "var/run/x").st_mtime_ns
    data = tar_of(
        item("", Kind.OPAQUE),
        item("kpy", Kind.WHITEOUT),
        item("kpy", Kind.DIR, mode=0),
        item("kpy/lib/own", content=b"bad"),
        item("kpy/lib/own2"),
        item("proc", Kind.SYMLINK, link="kpy"),
        item("link", Kind.SYMLINK, link="kpy/lib"),
        item("link/own", content=b"bad"),
        item("link/own", Kind.WHITEOUT),
        item("var/run", content=b"a file where something protected is below"),
        item("var", Kind.SYMLINK, link="etc"),
        item("after", content=b"1"),
    )
    done = unpack(data, tmp_path, skip=lambda path: path in protected)
    assert (tmp_path / "kpy/lib/own").read_bytes() == b"own"
    assert os.listdir(tmp_path / "kpy/lib") == ["own"]
    assert (tmp_path / "var/run/x").is_dir() and (tmp_path / "proc").is_dir()
    assert not (tmp_path / "var/log").exists() and not (tmp_path / "etc").exists()
    assert (tmp_path / "after").exists()
    assert before == (os.stat(tmp_path / "kpy").st_mtime_ns, os.stat(tmp_path / "var/run/x").st_mtime_ns)
    assert done.tree == scan_layer(io.BytesIO(data))  # the index has everything all the same


def test_times_of_directories_that_the_layer_does_not_have_stay(tmp_path):
    unpack(tar_of(item("d", Kind.DIR, mtime=T), item("d/f", mtime=T)), tmp_path)
    unpack(tar_of(item("d/g")), tmp_path)
    unpack(tar_of(item("d/f", Kind.WHITEOUT)), tmp_path)
    assert os.stat(tmp_path / "d").st_mtime_ns == T


def test_devices_or_placeholders(tmp_path):  # C16
    unpack(tar_of(item("null", Kind.CHAR, device=(1, 3), mode=0o666), item("zero", Kind.CHAR, device=(0, 0))), tmp_path)
    info = os.lstat(tmp_path / "null")
    if stat.S_ISCHR(info.st_mode):
        assert info.st_rdev == os.makedev(1, 3)
    else:
        assert decode_device(os.getxattr(tmp_path / "null", DEVICE_XATTR)) == (Kind.CHAR, (1, 3))
    assert stat.S_IMODE(info.st_mode) == 0o666
    assert decode_device(os.getxattr(tmp_path / "zero", DEVICE_XATTR)) == (Kind.CHAR, (0, 0))


def test_device_values():
    assert encode_device(Kind.CHAR, (1, 3)) == b"c:1:3"
    assert decode_device(b"b:8:1") == (Kind.BLOCK, (8, 1))
    for value in (b"", b"c:1", b"x:1:3", b"c:-1:3", b"c:1:3:4", b"c:a:3", b"c:" + b"1" * 99 + b":3"):
        assert decode_device(value) is None


def test_xattrs_that_are_not_taken_are_told(tmp_path):  # C15
    done = unpack(raw_tar(member("f", pax={"SCHILY.xattr.nonsense.name": "1"})), tmp_path)
    assert [(lost.path, lost.name) for lost in done.lost] == [("f", "nonsense.name")]
    assert done.lost[0].errno in (errno.ENOTSUP, errno.EPERM)


def test_limits(tmp_path):
    data = tar_of(item("a", content=b"xx"), item("b", content=b"yy"))
    with pytest.raises(ContentError, match="more than the 3 bytes"):
        unpack(data, tmp_path, max_bytes=3)
    with pytest.raises(ContentError, match="more than the 1 entries") as caught:
        unpack(data, tmp_path, max_entries=1)
    assert "several layers" in caught.value.hint


class Endless(io.RawIOBase):
    """A layer without end: one directory, ever more files in it."""

    def __init__(self):
        self.number = 0

    def read(self, size=-1):
        names = [b"d/%09d" % (self.number + more) for more in range(max(size, 512) // 512)]
        self.number += len(names)
        return b"".join(tarfile.TarInfo(name.decode()).tobuf(tarfile.USTAR_FORMAT) for name in names)


def test_a_directory_without_end_is_cut_off(tmp_path):
    """By the number, before memory or disk end: what is remembered of a file is little."""
    stream = Endless()
    tracemalloc.start()
    try:
        with pytest.raises(ContentError, match="more than the 20000 entries"):
            extract(stream, str(tmp_path), options=ExtractOptions(owners=False, max_entries=20_000), seen=lambda _: None)
        each = tracemalloc.get_traced_memory()[1] / 20_000
    finally:
        tracemalloc.stop()
    assert stream.number < 20_000 + 4096, "it is not read on"
    assert ExtractOptions().max_entries * each < 1 << 30


def test_ids_that_cannot_be_given_are_named(tmp_path):
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from kpy.layer.extract import extract\n"
        "from kpy.errors import StoreError\n"
        "try: extract(sys.stdin.buffer, sys.argv[1])\n"
        "except StoreError as error: print(error)"
    )
    command = ["unshare", "-r", sys.executable, "-c", script, tmp_path, os.getcwd(), *sys.path]
    data = tar_of(item("a/b", content=b"x", uid=12345, gid=77))
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert b"cannot give 'a/b' to 12345:77: the user namespace has no such id" in done.stdout, done.stderr


def test_missing_root_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="nowhere"):
        unpack(tar_of(), tmp_path / "nowhere")


def test_directory_to_tar_to_directory(tmp_path):
    """What GNU tar packs and we unpack is what was there."""
    source = tmp_path / "source"
    (source / "x/y").mkdir(parents=True)
    (source / "x/y/f").write_bytes(b"1" * 100_000)
    os.link(source / "x/y/f", source / "second")
    (source / "x/l").symlink_to("y")
    os.mkfifo(source / "x/p")
    os.chmod(source / "x", 0o2711)
    packed = subprocess.run(["tar", "--format=pax", "-C", source, "-cf", "-", "."], capture_output=True, check=True).stdout
    root = tmp_path / "root"
    root.mkdir()
    unpack(packed, root)
    assert on_disk(root) == on_disk(source)
    assert link_groups_on_disk(root) == link_groups_on_disk(source)
