"""COPY by the rows of the list (C01-C16, C20, C21, C29, C30), on trees in memory."""

import pytest

from kpy.errors import ContextError
from kpy.layer.entry import Entry, Kind
from kpy.layer.tree import Tree
from tests.fakes import T0, MemoryFiles, dir_item
from tests.solver.copying import Copying, apply, copy, layer, paths, rules, shown

F: dict[str, bytes | str | None] = {"a": b"A", "b.txt": b"B", "d/x": b"X", "d/sub/y": b"Y"}


@pytest.mark.parametrize("word", ["a", "/a", "./a", "../a", "../../a", "d/../a", "/d/sub/../../a", "././a"])
def test_c01_sources_stay_inside(word: str) -> None:
    assert paths(copy(F, "/to", word)) == ["to"]


@pytest.mark.parametrize(
    ("dest", "words", "expected"),
    [
        ("/to", ["a"], ["to"]),
        ("/to/", ["a"], ["to/a"]),
        ("/", ["a"], ["a"]),
        ("/to/", ["a", "b.txt"], ["to/a", "to/b.txt"]),
        ("/to", ["a", "b.txt"], ["to"]),
        ("/there", ["a"], ["there/a"]),
        ("/there/", ["a"], ["there/a"]),
        ("/new/deep/to", ["a"], ["new/deep/to"]),
    ],
)
def test_c02_c05_where_a_file_goes(dest: str, words: list[str], expected: list[str]) -> None:
    assert paths(copy(F, dest, *words, onto={"there": None})) == expected


@pytest.mark.parametrize("word", ["d", "d/", "/d/."])
@pytest.mark.parametrize("dest", ["/to", "/to/"])
def test_c03_a_directory_gives_its_content(word: str, dest: str) -> None:
    assert paths(copy(F, dest, word)) == ["to/sub/y", "to/x"]


@pytest.mark.parametrize("word", [".", "/", "", "..", "d/.."])
def test_c03_the_whole_context(word: str) -> None:
    assert paths(copy(F, "/", word)) == ["a", "b.txt", "d/sub/y", "d/x"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["a", "b.txt", "sub/y", "x"]),
        ("*.txt", ["b.txt"]),
        ("?", ["a", "sub/y", "x"]),
        ("[ab]*", ["a", "b.txt"]),
        ("[^d]*", ["a", "b.txt"]),
        ("[c-z]", ["sub/y", "x"]),
        ("d/*", ["x", "y"]),
        ("*/x", ["x"]),
        ("d/*/y", ["y"]),
        ("**", ["a", "b.txt", "sub/y", "x"]),
        ("d/**/y", ["y"]),
        ("none*", []),
        ("d/none*", []),
        ("a/*", []),
        ("[[]*", []),
    ],
)
def test_c04_wildcards(pattern: str, expected: list[str]) -> None:
    """As filepath.Match, component by component; that nothing matches is no error."""
    assert paths(copy(F, "/to/", pattern)) == [f"to/{path}" for path in expected]


@pytest.mark.parametrize("pattern", ["no/where/*", "where/*/x", "a/b/*", "dangling/*"])
def test_c04_what_is_before_a_wildcard_has_to_be_there(pattern: str) -> None:
    with pytest.raises(ContextError, match="not found"):
        copy({**F, "dangling": "/gone"}, "/to/", pattern)


def test_c04_names_with_special_characters() -> None:
    files: dict[str, bytes | str | None] = {"arr[0].txt": b"", "a*b": b"", "acb": b"", "sp ace": b"", "\udcff": b""}
    assert paths(copy(files, "/t/", "arr[[]0].txt")) == ["t/arr[0].txt"]
    assert paths(copy(files, "/t/", "a\\*b*")) == ["t/a*b"]
    assert paths(copy(files, "/t/", "sp ace", "\udcff")) == ["t/sp ace", "t/\udcff"]


def test_c04_a_bad_pattern() -> None:
    with pytest.raises(ContextError, match=r"bad pattern 'a\[\]\*'"):
        copy(F, "/t/", "a[]*")


@pytest.mark.parametrize(
    ("onto", "dest", "word", "words"),
    [
        ({"f": b""}, "/f", "d", "cannot copy the directory d to the non-directory /f"),
        ({"f": b""}, "/f/", "a", "cannot copy to /f: /f is not a directory"),
        ({"f": b""}, "/f/x", "a", "/f is not a directory"),
        ({"t/a": None}, "/t/", "a", "cannot replace the directory /t/a with the file a"),
        ({"t/x": None}, "/t", "d", "cannot replace the directory /t/x with the file d/x"),
        ({"t/sub": b""}, "/t", "d", "cannot copy the directory d/sub to the non-directory /t/sub"),
        ({"t/sub": "/else", "else": None}, "/t", "d", "to the non-directory /t/sub"),
        ({"l": "l"}, "/l/x", "a", "too many levels of symbolic links"),
        ({"l": "f/x", "f": b""}, "/l/", "a", "/f is not a directory"),
        ({"l": "f/x/y", "f": b""}, "/l", "d", "/f is not a directory"),
        ({"l": "l/l/l"}, "/l/", "a", "too many levels of symbolic links"),
    ],
)
def test_c05_what_cannot_be(onto: dict[str, bytes | str | None], dest: str, word: str, words: str) -> None:
    with pytest.raises(ContextError, match=words):
        copy(F, dest, word, onto=onto)


def test_c06_a_link_as_source_is_followed_inside_the_root() -> None:
    files: dict[str, bytes | str | None] = {
        "real": b"R", "l": "real", "up": "../../real", "abs": "/real", "chain": "l", "dir": None, "dir/f": b"", "ld": "dir", "dangling": "no",
    }  # fmt: skip
    for word in ("l", "up", "abs", "chain"):
        assert layer(copy(files, "/to", word)) == {"to": "f 644"}
        assert paths(copy(files, "/to/", word)) == [f"to/{word}"]
    assert paths(copy(files, "/to", "ld")) == ["to/f"]
    assert paths(copy(files, "/to/", "ld/f")) == ["to/f"]
    with pytest.raises(ContextError, match='"/dangling": not found'):
        copy(files, "/to", "dangling")


def test_c06_a_link_below_is_copied_as_link() -> None:
    files: dict[str, bytes | str | None] = {"d/l": "../../etc", "d/dangling": "/no", "real": b""}
    assert layer(copy(files, "/to", "d")) == {"to": "d 755", "to/dangling": "l /no", "to/l": "l ../../etc"}


@pytest.mark.parametrize("link", ["/real", "real", "../real", "../../../real", "./real/../real", "one"])
def test_c06_a_link_in_the_destination_is_followed_inside_the_root(link: str) -> None:
    onto: dict[str, bytes | str | None] = {"real": None, "l": link, "one": "/real"}
    assert paths(copy(F, "/l/", "a", onto=onto)) == ["real/a"]
    assert paths(copy(F, "/l/new/f", "a", onto=onto)) == ["real/new/f"]
    assert paths(copy(F, "/l", "d", onto=onto)) == ["real/sub/y", "real/x"]


def test_c06_a_dangling_link_in_the_destination_is_made_inside() -> None:
    onto: dict[str, bytes | str | None] = {"l": "../../out/side"}
    assert paths(copy(F, "/l/", "a", onto=onto)) == ["out/side/a"]


@pytest.mark.parametrize(
    ("link", "place"), [("f", "f"), ("/f", "f"), ("../../f", "f"), ("new", "new"), ("/n/e/w", "n/e/w"), ("two", "f"), ("d/x", "e/x")]
)
def test_c06_a_link_at_the_destination_stays_and_what_it_leads_to_is_replaced(link: str, place: str) -> None:
    onto: dict[str, bytes | str | None] = {"l": link, "f": b"old", "two": "f", "d": "e", "e": None}
    assert paths(copy(F, "/l", "a", onto=onto)) == [place]


def test_c06_a_link_in_the_destination_directory_is_replaced() -> None:
    assert paths(copy(F, "/t/", "a", onto={"t/a": "/f", "f": b""})) == ["t/a"]
    assert paths(copy(F, "/t", "a", onto={"t/a": "/f", "f": b"", "t": None})) == ["t/a"]


def test_c06_a_link_that_leads_below_a_file() -> None:
    with pytest.raises(ContextError, match="/f is not a directory"):
        copy(F, "/l", "a", onto={"l": "f/x", "f": b""})


def test_c06_loops_end() -> None:
    with pytest.raises(ContextError, match="too many levels"):
        copy({"x": "y", "y": "x"}, "/to", "x/z")
    with pytest.raises(ContextError, match='"/x": too many levels of symbolic links'):
        copy({"x": "y", "y": "x"}, "/to/", "x")
    assert layer(copy({"d/x": "y", "d/y": "x"}, "/to", "d"))["to/x"] == "l y"


OWNED = MemoryFiles(
    Entry("f", Kind.FILE, 0o4755, 5, 6, mtime=T0), Entry("d", Kind.DIR, 0o1770, 7, 8, mtime=T0), Entry("d/g", Kind.FILE, 0o600, 5, 6, mtime=T0),
)  # fmt: skip


def test_c07_owners() -> None:
    assert layer(copy(OWNED, "/to/", "f"))["to/f"] == "f 4755"
    assert layer(copy(OWNED, "/to/", "f", keep_owner=True))["to/f"] == "f 4755 5:6"


def test_c08_c11_chown_is_for_all_that_is_made() -> None:
    assert layer(copy(OWNED, "/p/q/", "d", owner=(1, 2), keep_owner=True)) == {
        "p": "d 755 1:2 now", "p/q": "d 755 1:2", "p/q/g": "f 600 1:2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("chmod", "implied", "sub", "file"),
    [("700", "700", "700", "700"), ("7755", "755", "7755", "7755"), ("u=rwX,go=rX", "755", "1755", "755"), ("a-w", "755", "1550", "4555"), ("+t", "755", "1770", "5755")],
)
def test_c09_c11_chmod(chmod: str, implied: str, sub: str, file: str) -> None:
    files = MemoryFiles(
        Entry("s/d", Kind.DIR, 0o1770, mtime=T0), Entry("s/d/f", Kind.FILE, 0o4755, mtime=T0), Entry("s/l", Kind.SYMLINK, 0o777, link="x", mtime=T0)
    )
    found = layer(copy(files, "/p/q", "s", chmod=chmod))
    assert found["p"] == f"d {implied} now"
    assert found["p/q/d/f"].split()[1] == file
    assert found["p/q/d"].split()[1] == sub
    assert found["p/q/l"] == "l x"


def test_c10_what_is_there() -> None:
    """The destination directory keeps mode and owner; directories below take those of the source."""
    found = layer(copy(F, "/t", "d", onto={"t": None, "t/sub": None, "other": None}))
    assert found["t"] == "d 700 9:9"
    assert found["t/sub"] == "d 755"


def test_c11_implicit_parents() -> None:
    assert layer(copy(F, "/p/q/f", "a")) == {"p": "d 755 now", "p/q": "d 755 now", "p/q/f": "f 644"}


def test_c11_below_a_setgid_directory() -> None:
    """mkdir gives its group and the bit to what it makes there; --chown says whose it is all the same."""
    tree = apply(Tree.empty(), [dir_item("g", mode=0o2755, uid=9, gid=50)])
    for owner, expected in ((None, "d 2755 0:50"), ((1, 2), "d 2755 1:2")):
        work = Copying(MemoryFiles.of(F), tree, rules(owner=owner))
        work.copier.copy("d", "/g/new/sub/")
        found = {item.entry.path: shown(item.entry).removesuffix(" now") for item in work.items()}
        assert found["g/new"] == found["g/new/sub"] == expected
        assert found["g/new/sub/sub"] == ("d 755" if owner is None else "d 755 1:2")


def test_l02_parents_that_are_there_come_with_their_metadata() -> None:
    assert layer(copy(F, "/p/q/f", "a", onto={"p": None, "p/q": None})) == {"p": "d 700 9:9", "p/q": "d 700 9:9", "p/q/f": "f 644"}


def test_c12_c13_modes_and_times_are_kept() -> None:
    files = MemoryFiles(Entry("f", Kind.FILE, 0o7777, mtime=123), Entry("s/d", Kind.DIR, 0o2711, mtime=456))
    assert layer(copy(files, "/t/", "f", "s")) == {"t": "d 755 @456", "t/f": "f 7777 @123", "t/d": "d 2711 @456"}


def test_c14_hard_links() -> None:
    files = MemoryFiles.of({"d/a": b"1", "d/b": b"1", "d/c": b"1", "e": b"1"})
    files.links = {"d/a": "i", "d/b": "i", "e": "i"}
    assert layer(copy(files, "/t", "d"))["t/b"] == "= t/a"
    assert layer(copy(files, "/t", "d"))["t/c"] == "f 644"
    assert layer(copy(files, "/t/", "e")) == {"t": "d 755 now", "t/e": "f 644"}


def test_c14_each_source_is_a_copy_of_its_own() -> None:
    """Links are kept within one source, and each match of a wildcard is one."""
    files = MemoryFiles.of({"d/a": b"1", "d/b": b"1", "d/s/c": b"1", "d/s/e": b"1"})
    files.links = dict.fromkeys(("d/a", "d/b", "d/s/c", "d/s/e"), "i")
    apart = {"t/a": "f 644", "t/b": "f 644"}
    assert apart.items() <= layer(copy(files, "/t/", "d/a", "d/b")).items()
    found = layer(copy(files, "/t/", "d/*"))
    assert (apart | {"t/c": "f 644", "t/e": "= t/c"}).items() <= found.items()
    assert layer(copy(files, "/t/", "d", parents=True))["t/d/s/c"] == "= t/d/a"


def test_c14_the_first_name_may_be_overwritten() -> None:
    files = MemoryFiles.of({"d/a": b"1", "d/b": b"1", "a": b"2"})
    files.links = {"d/a": "i", "d/b": "i"}
    assert layer(copy(files, "/t/", "d", "a")) == {"t": "d 755", "t/a": "f 644", "t/b": "f 644"}


def test_c15_only_capabilities() -> None:
    files = MemoryFiles(Entry("f", Kind.FILE, 0o755, xattrs={"security.capability": b"c", "user.x": b"y", "security.selinux": b"z"}))
    (item,) = copy(files, "/f", "f").items()
    assert item.entry.xattrs == {"security.capability": b"c"}


def test_c16_special_files() -> None:
    files = MemoryFiles(
        Entry("d/p", Kind.FIFO, 0o600, mtime=T0), Entry("d/c", Kind.CHAR, 0o666, device=(1, 3), mtime=T0), Entry("d/b", Kind.BLOCK, 0o660, device=(8, 0), mtime=T0)
    )
    work = copy(files, "/t", "d")
    assert layer(work) == {"t": "d 755", "t/b": "b 660", "t/c": "c 666", "t/p": "p 600"}
    assert [item.entry.device for item in work.items()] == [(0, 0), (8, 0), (1, 3), (0, 0)]


def parents(*patterns: str, **how: object) -> list[str]:
    return paths(copy(F, "/t/", *patterns, parents=True, **how))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("d/x", ["t/d/x"]),
        ("d/./x", ["t/x"]),
        ("./d/./sub/y", ["t/sub/y"]),
        ("d", ["t/d/sub/y", "t/d/x"]),
        ("d/.", ["t/d/sub/y", "t/d/x"]),
        ("d/./.", ["t/sub/y", "t/x"]),
        ("*", ["t/a", "t/b.txt", "t/d/sub/y", "t/d/x"]),
        ("**/y", ["t/d/sub/y"]),
        ("d/**", ["t/d/sub/y", "t/d/x"]),
        ("d/./**/y", ["t/sub/y"]),
        ("*/./x", ["t/x"]),
        ("**", ["t/a", "t/b.txt", "t/d/sub/y", "t/d/x"]),
        ("none*", []),
        ("../d/x", ["t/d/x"]),
        ("/d/x", ["t/d/x"]),
    ],
)
def test_c20_parents(pattern: str, expected: list[str]) -> None:
    assert parents(pattern) == expected


@pytest.mark.parametrize("pattern", ["no", "d/no", "d/./no", "no/./x"])
def test_c20_a_literal_path_must_be_there(pattern: str) -> None:
    with pytest.raises(ContextError, match="not found"):
        parents(pattern)


def test_c20_directories_on_the_way_have_their_metadata() -> None:
    files = MemoryFiles(Entry("d", Kind.DIR, 0o711, 3, 4, mtime=T0), Entry("d/f", Kind.FILE, 0o600, mtime=T0))
    found = layer(copy(files, "/t/", "d/f", parents=True, keep_owner=True))
    assert found["t/d"] == "d 711 3:4 now"


def test_c20_a_file_on_the_way() -> None:
    with pytest.raises(ContextError, match="cannot copy the directory d to the non-directory /t/d"):
        copy(F, "/t/", "d/x", parents=True, onto={"t/d": "/e", "e": None})
    with pytest.raises(ContextError):
        copy(F, "/t/", "d/x", parents=True, onto={"t/d": b"file"})


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        (["x"], ["sub/y"]),
        (["sub"], ["x"]),
        (["*"], []),
        (["*", "!sub/y"], ["sub/y"]),
        (["**/y"], ["x"]),
        (["sub", "!sub/y"], ["sub/y", "x"]),
        (["d"], ["sub/y", "x"]),
        (["none"], ["sub/y", "x"]),
    ],
)
def test_c21_exclude_is_relative_to_the_source(exclude: list[str], expected: list[str]) -> None:
    assert paths(copy(F, "/t", "d", exclude=exclude)) == [f"t/{path}" for path in expected]


def test_c21_exclude_with_parents() -> None:
    assert parents("d", exclude=["**/y"]) == ["t/d/x"]
    assert parents("d/x", "a", exclude=["a"]) == ["t/d/x"]


@pytest.mark.parametrize("name", [".wh.x", ".wh..wh..opq", "d/.wh.y"])
def test_c29_names_that_would_delete(name: str) -> None:
    with pytest.raises(ContextError, match=".wh. would delete files"):
        copy({name: b""}, "/t/", ".")


def test_c29_a_destination_that_would_delete() -> None:
    with pytest.raises(ContextError, match=r"\.wh\."):
        copy(F, "/t/.wh.a", "a")


def test_c30_not_found() -> None:
    with pytest.raises(ContextError, match='"/d/sup": not found') as caught:
        copy(F, "/t", "d/sup")
    assert caught.value.hint == 'did you mean "sub"?'


def test_one_source_after_another() -> None:
    """The last wins."""
    work = copy({"one/f": b"1", "two/f": b"22"}, "/t", "one", "two")
    assert work.items()[1].entry.size == 2


def test_nothing_outside_of_the_layer_is_changed() -> None:
    onto: dict[str, bytes | str | None] = {"etc": None, "etc/passwd": b"root", "usr": None, "bin": "usr"}
    before = {entry.path: shown(entry) for entry in copy({}, "/").tree.walk()}
    work = copy(F, "/bin/", "a", onto=onto)
    after = work.result()
    assert after.lookup("etc/passwd") == work.tree.lookup("etc/passwd")
    assert shown(after.lookup("usr/a") or Entry("", Kind.DIR)) == "f 644"
    assert before == {"": "d 755 @0"}


def test_a_source_of_any_depth() -> None:
    deep = "/".join("d" * 1 for _ in range(1900))
    files = MemoryFiles()
    path = ""
    for _ in range(1900):
        path = f"{path}/d" if path else "d"
        files.entries[path] = Entry(path, Kind.DIR, 0o755)
    files.entries[path + "/f"] = Entry(path + "/f", Kind.FILE, 0o644)
    names: dict[str, list[str]] = {}
    for entry in files.entries.values():
        if entry.path:
            names.setdefault(entry.parent, []).append(entry.name)
    files.children = lambda path, /: names.get(path, ())  # type: ignore[method-assign]
    assert paths(copy(files, "/t", ".")) == [f"t/{deep}/f"]
    assert paths(copy(files, "/t", "**/f", parents=True)) == [f"t/{deep}/f"]


def test_rules_do_not_change_the_source() -> None:
    files = MemoryFiles.of(F)
    before = dict(files.entries)
    copy(files, "/t", ".", owner=(1, 2), chmod="700")
    assert files.entries == before
    assert rules().owner is None
    assert Tree.empty().children("") == []
