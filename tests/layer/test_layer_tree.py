"""Indexes and merged trees, and reading files out of layers (L01, C14)."""

import hashlib
import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layerkit import in_tree, item, sha, small_layer, tar_of

from kpy.errors import ContentError
from kpy.layer.entry import Entry, Kind, sort_key
from kpy.layer.index import LayerTree, scan_layer
from kpy.layer.source import FileSource
from kpy.layer.tree import Tree
from kpy.layer.treesource import TreeSource
from kpy.oci.digest import Digest
from kpy.util import paths


def stack(*layers):
    tree = Tree.empty()
    tars = {}
    for layer in layers:
        data = tar_of(*layer)
        tars[Digest.of(data)] = data
        tree = tree.apply(scan_layer(io.BytesIO(data)), Digest.of(data))
    return tree, tars


def names(tree):
    return [entry.path for entry in tree.walk() if entry.path]


def test_layered_base():  # base/layered:1
    tree, _ = stack(
        [
            item("stack", Kind.DIR), item("stack/kept", Kind.DIR), item("stack/gone", Kind.DIR),
            item("stack/opaque", Kind.DIR), item("stack/to-file", Kind.DIR), item("stack/to-link", Kind.DIR),
            item("stack/kept/one"), item("stack/kept/two"), item("stack/gone/x"), item("stack/opaque/old"),
            item("stack/to-file/inner"), item("stack/to-link/inner"), item("stack/to-dir"),
            item("stack/link-to-dir", Kind.SYMLINK, link="kept"), item("stack/chmod", mode=0o644),
        ],
        [
            item("stack", Kind.DIR), item("stack/kept", Kind.DIR), item("stack/kept/two", Kind.WHITEOUT),
            item("stack/gone", Kind.WHITEOUT), item("stack/opaque", Kind.DIR), item("stack/opaque", Kind.OPAQUE),
            item("stack/opaque/new"), item("stack/to-file"), item("stack/to-link", Kind.SYMLINK, link="kept"),
            item("stack/to-dir", Kind.DIR), item("stack/to-dir/child"), item("stack/link-to-dir", Kind.DIR),
            item("stack/link-to-dir/child"), item("stack/chmod", mode=0o600),
        ],
    )  # fmt: skip
    assert names(tree) == [
        "stack", "stack/chmod", "stack/kept", "stack/kept/one", "stack/link-to-dir", "stack/link-to-dir/child",
        "stack/opaque", "stack/opaque/new", "stack/to-dir", "stack/to-dir/child", "stack/to-file", "stack/to-link",
    ]  # fmt: skip
    assert tree.lookup("stack/chmod").mode == 0o600


def test_parents_are_resolved_and_implied():
    tree, _ = stack(
        [item("bin", Kind.SYMLINK, link="usr/bin"), item("usr/bin", Kind.DIR), item("abs", Kind.SYMLINK, link="/usr")],
        [item("bin/tool"), item("abs/new/deep/f", content=b"1")],
    )
    assert names(tree) == ["abs", "bin", "usr", "usr/bin", "usr/bin/tool", "usr/new", "usr/new/deep", "usr/new/deep/f"]
    assert tree.lookup("usr/new") == Entry("usr/new", Kind.DIR, 0o755)
    assert tree.lookup("bin/tool") is None


def test_whiteouts_act_on_lower_layers_only():
    tree, _ = stack([item("a"), item("d/old")], [item("a"), item("a", Kind.WHITEOUT), item("d/new"), item("d", Kind.OPAQUE)])
    assert names(tree) == ["a", "d", "d/new"]


def test_hard_links_are_one_file_across_layers():  # C14
    tree, _ = stack(
        [item("a", content=b"1", mode=0o600), item("b", Kind.HARDLINK, link="a"), item("single")],
        [item("c", Kind.HARDLINK, link="b"), item("a", content=b"other")],
    )
    entries = {path: tree.lookup(path) for path in "abc"}
    assert tree.link_id(entries["b"]) == tree.link_id(entries["c"]) is not None
    assert tree.link_id(entries["a"]) is None
    assert tree.link_id(tree.lookup("single")) is None
    assert (entries["c"].kind, entries["c"].mode, entries["c"].sha256) == (Kind.FILE, 0o600, sha(b"1"))


@pytest.mark.parametrize("link", ["nowhere", "d"])
def test_impossible_hard_links(link):
    with pytest.raises(ContentError, match="hard link to"):
        stack([item("d", Kind.DIR), item("h", Kind.HARDLINK, link=link)])


LINKS = [
    item("dir/sub/file"),
    item("rel", Kind.SYMLINK, link="dir/sub"),
    item("abs", Kind.SYMLINK, link="/dir/./sub//file"),
    item("up", Kind.SYMLINK, link="../../../dir"),
    item("dangling", Kind.SYMLINK, link="dir/missing/x"),
    item("loop", Kind.SYMLINK, link="loop"),
    item("dir/to-up", Kind.SYMLINK, link="../rel"),
]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", ""), ("/", ""), ("..", ""), ("dir", "dir"), ("rel", "dir/sub"), ("rel/file", "dir/sub/file"), ("abs", "dir/sub/file"),
        ("up/sub", "dir/sub"), ("dangling", None), ("loop", None), ("loop/x", None), ("dir/to-up/../sub", "dir/sub"),
        ("rel/..", "dir"), ("missing", None), ("dir/sub/file/x", None), ("../rel/./file", "dir/sub/file"),
    ],
)  # fmt: skip
def test_resolve(path, found):
    tree, _ = stack(LINKS)
    assert tree.resolve(path) == found


def test_resolve_without_the_last():
    tree, _ = stack(LINKS)
    assert tree.resolve("rel", follow_last=False) == "rel"
    assert tree.resolve("dir/to-up/file", follow_last=False) == "dir/sub/file"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("dir", ("dir", [])), ("new/a", ("", ["new", "a"])), ("rel/new/../b", ("dir/sub", ["b"])),
        ("dangling/y", ("dir", ["missing", "x", "y"])), ("dir/sub/file/x", ("dir/sub", ["file", "x"])),
        ("a/../../b", ("", ["b"])), ("up/new", ("dir", ["new"])),
    ],
)  # fmt: skip
def test_resolve_missing(path, found):
    tree, _ = stack(LINKS)
    assert tree.resolve_missing(path) == found


def test_resolve_missing_loop():
    tree, _ = stack(LINKS)
    with pytest.raises(ContentError, match="too many symlinks"):
        tree.resolve_missing("loop/x")


def test_kept_content():
    tree, _ = stack(
        [item("etc/passwd", content=b"root"), item("etc/group", content=b"g"), item("etc/other", content=b"o")],
        [item("etc/group", Kind.WHITEOUT), item("e", Kind.SYMLINK, link="etc")],
        [item("etc/passwd-", Kind.HARDLINK, link="etc/passwd"), item("p", Kind.SYMLINK, link="/e/passwd")],
    )
    assert tree.content("etc/passwd") == tree.content("p") == tree.content("e/passwd-") == b"root"
    assert tree.content("etc/group") is None and tree.content("etc/other") is None


def test_children_and_walk_are_sorted():
    tree, _ = stack([item("b/x"), item("a"), item("b-c"), item("b/a")])
    assert tree.children("") == ["a", "b", "b-c"] and tree.children("b") == ["a", "x"] and tree.children("a") == []
    walked = list(tree.walk())
    assert walked == sorted(walked, key=sort_key)


def test_trees_are_immutable():
    lower, _ = stack([item("d/a"), item("d/b"), item("h"), item("h2", Kind.HARDLINK, link="d/a")])
    before = in_tree(lower)
    upper = LayerTree([item("d/c").entry, item("d/a", Kind.WHITEOUT).entry, item("x", Kind.HARDLINK, link="d/b").entry])
    after = lower.apply(upper, Digest.of(b""))
    assert in_tree(lower) == before and in_tree(after) != before
    assert lower.link_id(lower.lookup("d/b")) is None
    assert after.link_id(after.lookup("d/b")) is not None


def test_root_metadata():
    tree, _ = stack([item("a"), item("", Kind.DIR, mode=0o700)])
    assert tree.lookup("").mode == 0o700 and names(tree) == ["a"]
    tree, _ = stack([item("a")], [item("b"), item("", Kind.OPAQUE)])
    assert names(tree) == ["b"]


@settings(deadline=None)
@given(layers=st.lists(small_layer(), max_size=2))
def test_index_survives_encoding(layers):
    for whiteouts, items in layers:
        index = scan_layer(io.BytesIO(tar_of(*whiteouts, *items)))
        assert LayerTree.decode(index.encode()) == index


def test_index_encoding_of_odd_values():
    entries = [
        item("latin\udce9", content=b"1", xattrs={"user.a": b"\0\xff"}, sha256=sha(b"1"), mtime=-1).entry,
        item("null", Kind.CHAR, device=(1, 3)).entry,
    ]
    index = LayerTree(entries, {"etc/passwd": b"\xff\0"})
    assert LayerTree.decode(index.encode()) == index


def test_broken_index():
    good = LayerTree([item("a").entry]).encode()
    for bad in (b"", b"x" * 100, good[:-1], good[:20], b"kpytree\x01" + good[8:], good[:-3] + b"abc", good + b"x"):
        with pytest.raises(ContentError, match="layer index"):
            LayerTree.decode(bad)


def test_broken_index_that_says_it_is_huge():
    """Found by fuzzing: the frame of zstd said a size that no memory has, and the error was MemoryError."""
    good = LayerTree([item("a").entry]).encode()
    start = good.index(b"\x28\xb5\x2f\xfd")
    payload = good[40 : start + 4] + b"\xe0" + (1 << 62).to_bytes(8, "little") + good[start + 13 :]
    bad = good[:8] + hashlib.sha256(payload).digest() + payload
    with pytest.raises(ContentError, match="layer index"):
        list(LayerTree.decode(bad).entries)


def test_an_index_of_several_blocks_is_not_kept_in_memory():
    entries = [item(f"f{number:05}", content=b"1", mtime=(number + 2 * 10**9) * 10**9).entry for number in range(2000)]
    removes = [item("gone", Kind.WHITEOUT).entry]
    read = LayerTree.decode(LayerTree([*entries, *removes]).encode())
    assert read == LayerTree([*entries, *removes])
    assert (len(read.entries), read.newest, read.removes) == (2001, 2_000_001_999 * 10**9, True)
    assert entries[3] in read.entries
    assert LayerTree.decode(LayerTree(entries).encode()).removes is False
    assert read != LayerTree(entries)
    first = next(iter(read.entries))
    assert first == entries[0]
    assert first is not entries[0]


def source_of(tree, tars, tmp_path, view=None):
    source: FileSource = TreeSource(tree, lambda digest: io.BytesIO(tars[digest]), view_root=view, spool=str(tmp_path))
    return source


def test_files_come_out_of_the_layers(tmp_path):
    tree, tars = stack(
        [item("bin", Kind.SYMLINK, link="usr/bin"), item("usr/bin", Kind.DIR), item("a", content=b"1"), item("a", content=b"2")],
        [item("h", Kind.HARDLINK, link="a"), item("bin/tool", content=b"tool"), item("x", Kind.WHITEOUT)],
    )
    source = source_of(tree, tars, tmp_path)
    wanted = [source.lookup(path) for path in ("a", "h", "usr/bin/tool")]
    with source.reading(wanted) as opener:
        for entry, content in zip(wanted, (b"2", b"2", b"tool"), strict=True):
            with opener(entry) as file:
                assert file.read() == content
    assert os.listdir(tmp_path) == []


def test_index_that_lies_is_found(tmp_path):
    tree, tars = stack([item("a", content=b"1")])
    lying = {digest: tar_of() for digest in tars}
    with pytest.raises(ContentError, match="shorter than its index"), source_of(tree, lying, tmp_path).reading([tree.lookup("a")]):
        pass


def test_files_come_out_of_a_view(tmp_path):
    tree, tars = stack([item("d/a", content=b"1"), item("d/b", content=b"22"), item("l", content=b"3"), item("p", content=b"")])
    view = tmp_path / "view"
    (view / "d").mkdir(parents=True)
    (view / "d/a").write_bytes(b"1")
    (view / "d/b").write_bytes(b"other size")
    (view / "l").symlink_to("d/a")
    os.mkfifo(view / "p")
    with source_of(tree, tars, tmp_path, str(view)).reading([]) as opener:
        with opener(tree.lookup("d/a")) as file:
            assert file.read() == b"1"
        for path in ("d/b", "l", "p"):
            with pytest.raises(ContentError):
                opener(tree.lookup(path))


def test_view_does_not_follow_symlinked_directories(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").write_bytes(b"secret")
    (tmp_path / "view").mkdir()
    (tmp_path / "view/d").symlink_to(tmp_path / "outside")
    fd = os.open(tmp_path / "view", os.O_RDONLY)
    try:
        for path in ("d/f", "../outside/f", "d/../../outside/f"):
            with pytest.raises(OSError, match=r"Not a directory|cross-device"):
                os.close(paths.open_file(fd, path))
    finally:
        os.close(fd)


def test_many_layers_are_quick():
    entries = [item(f"d{n % 97}/e{n % 11}/f{n}").entry for n in range(20_000)]
    tree = Tree.empty()
    for number in range(5):
        tree = tree.apply(LayerTree(entries), Digest.of(bytes([number])))
    assert len(list(tree.walk())) == 1 + 97 + 97 * 11 + 20_000


def test_a_stored_index_that_says_that_it_is_enormous():  # found by fuzzing
    frame = bytes.fromhex("28b52ffd e5 00 e6ffffffffffff7f")  # a zstd header with a content size of nearly 2**63
    body = bytes(4) + len(frame).to_bytes(4) + frame
    with pytest.raises(ContentError, match="too large|broken"):
        LayerTree.decode(b"kpytree\x02" + hashlib.sha256(body).digest() + body)
