"""A directory as a context, with .dockerignore (C07, C14-C16, C30, C33, G01-G08), on real directories."""

import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from kpy.buildcontext.directory import DirectoryContext
from kpy.buildcontext.empty import EmptyContext
from kpy.dockerfile.dockerignore import Ignore
from kpy.errors import ContextError
from kpy.layer.entry import Kind
from kpy.layer.source import FileSource

_directory: type[FileSource] = DirectoryContext
_empty: type[FileSource] = EmptyContext


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in ("a.md", "a.txt", "d/b.md", "d/deep/c.md", "d/deep/c.txt", "e/f", "Makefile"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    return tmp_path


def seen(root: Path, *lines: str) -> list[str]:
    """All files that a walk finds."""
    context = DirectoryContext(str(root), Ignore.parse("\n".join(lines).encode()) if lines else None)
    found = []
    todo = [""]
    while todo:
        here = todo.pop()
        for name in context.children(here):
            path = f"{here}/{name}" if here else name
            entry = context.lookup(path)
            assert entry is not None
            if entry.kind is Kind.DIR:
                todo.append(path)
            else:
                found.append(path)
    return sorted(found)


ALL = ["Makefile", "a.md", "a.txt", "d/b.md", "d/deep/c.md", "d/deep/c.txt", "e/f"]


@pytest.mark.parametrize(
    ("lines", "gone"),
    [
        ((), set()),
        (("# comment", "", "  "), set()),
        (("*.md",), {"a.md"}),
        (("**/*.md",), {"a.md", "d/b.md", "d/deep/c.md"}),
        (("/a.md",), {"a.md"}),
        (("./a.md",), {"a.md"}),
        (("d",), {"d/b.md", "d/deep/c.md", "d/deep/c.txt"}),
        (("d/",), {"d/b.md", "d/deep/c.md", "d/deep/c.txt"}),
        (("d/*",), {"d/b.md", "d/deep/c.md", "d/deep/c.txt"}),
        (("d", "!d/deep"), {"d/b.md"}),
        (("d", "!d/deep/c.txt"), {"d/b.md", "d/deep/c.md"}),
        (("*", "!d/deep/*.txt"), set(ALL) - {"d/deep/c.txt"}),
        (("*", "!**/*.md"), {"Makefile", "a.txt", "d/deep/c.txt", "e/f"}),
        (("**", "!e"), set(ALL) - {"e/f"}),
        (("!a.md", "*.md"), {"a.md"}),
        (("*.md", "!a.md", "a.*"), {"a.md", "a.txt"}),
        (("makefile",), set()),
        (("[a-b].md",), {"a.md"}),
        (("?.txt",), {"a.txt"}),
        (("deep",), set()),
        (("../a.md",), set()),
    ],
)
def test_g03_to_g06_patterns(root: Path, lines: tuple[str, ...], gone: set[str]) -> None:
    assert seen(root, *lines) == sorted(set(ALL) - gone)


def test_g04_an_excluded_directory_with_nothing_let_in_is_not_there(root: Path) -> None:
    context = DirectoryContext(str(root), Ignore.of(["d", "!d/none"]))
    assert context.lookup("d") is None
    assert DirectoryContext(str(root), Ignore.of(["d", "!d/deep/c.txt"])).lookup("d") is not None


def test_c30_it_is_there_but_excluded(root: Path) -> None:
    context = DirectoryContext(str(root), Ignore.of(["*.md"]))
    assert context.lookup("a.md") is None
    assert context.exists_but_excluded("a.md")
    assert not context.exists_but_excluded("nowhere.md")
    assert not context.exists_but_excluded("a.txt")


def test_each_way_of_asking_gives_the_same(root: Path) -> None:
    """A lookup of a deep path before any walk, and after one."""
    patterns = ["d", "!d/deep", "d/deep/*.md"]
    for path in (*ALL, "d", "d/deep", "e", "none", "a.md/x", "d/deep/none"):
        fresh, walked = (DirectoryContext(str(root), Ignore.of(patterns)) for _ in range(2))
        for name in ("", "d", "d/deep", "e"):
            walked.children(name)
        assert (fresh.lookup(path) is None) == (walked.lookup(path) is None), path
        assert fresh.excluded(path) == Ignore.of(patterns).matches(path)


def test_c07_everything_is_of_root_and_keeps_mode_and_time(root: Path) -> None:
    (root / "a.txt").chmod(0o4751)
    os.utime(root / "a.txt", ns=(5, 1_234_567_890_123_456_789))
    entry = DirectoryContext(str(root)).lookup("a.txt")
    assert entry is not None
    assert (entry.uid, entry.gid, entry.mode, entry.mtime, entry.size) == (0, 0, 0o4751, 1_234_567_890_123_456_789, 5)


def test_links_are_never_followed(root: Path) -> None:
    (root / "out").symlink_to("/etc")
    (root / "l").symlink_to("d")
    context = DirectoryContext(str(root))
    entry = context.lookup("out")
    assert entry is not None
    assert (entry.kind, entry.link) == (Kind.SYMLINK, "/etc")
    assert context.lookup("out/passwd") is None
    assert context.lookup("l/b.md") is None
    assert list(context.children("out")) == []


def test_c14_hard_links_are_told(root: Path) -> None:
    os.link(root / "a.txt", root / "z")
    context = DirectoryContext(str(root))
    one, two, other = (context.lookup(path) for path in ("a.txt", "z", "a.md"))
    assert one is not None
    assert two is not None
    assert other is not None
    assert context.link_id(one) == context.link_id(two) is not None
    assert context.link_id(other) is None


def test_c16_special_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "fifo")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        context = DirectoryContext(str(root))
        kinds = {name: entry.kind for name in ("fifo", "sock") if (entry := context.lookup(name))}
        assert kinds == {"fifo": Kind.FIFO, "sock": Kind.FILE}
        sock = context.lookup("sock")
        assert sock is not None
        with context.open(sock) as stream:
            assert (sock.size, stream.read()) == (0, b"")


def test_contents(root: Path) -> None:
    context = DirectoryContext(str(root))
    entry = context.lookup("e/f")
    assert entry is not None
    with context.reading([entry]) as opener, opener(entry) as stream:
        assert stream.read() == b"e/f"


@pytest.mark.parametrize("how", ["gone", "link"])
def test_what_changes_meanwhile_is_an_error(root: Path, how: str) -> None:
    context = DirectoryContext(str(root))
    entry = context.lookup("a.txt")
    assert entry is not None
    (root / "a.txt").unlink()
    if how == "link":
        (root / "a.txt").symlink_to("/etc/passwd")
    with pytest.raises(ContextError, match=r"cannot read a\.txt in the build context"):
        context.open(entry)


def test_what_has_become_a_fifo_is_not_waited_for(root: Path) -> None:
    context = DirectoryContext(str(root))
    entry = context.lookup("a.txt")
    assert entry is not None
    (root / "a.txt").unlink()
    os.mkfifo(root / "a.txt")
    with pytest.raises(ContextError, match="changed during the build"), context.open(entry) as stream:
        assert stream.read() == b""


@pytest.mark.parametrize("path", ["no", "no/where", "a.txt/x", "nul\0", "n" * 300, "\ud800"])
def test_odd_paths(root: Path, path: str) -> None:
    context = DirectoryContext(str(root))
    try:
        assert context.lookup(path) is None
    except ContextError as error:
        assert "cannot read" in error.message


def test_names_that_are_not_utf_8(root: Path) -> None:
    with open(os.fsencode(root) + b"/\xff.md", "wb"):
        pass
    assert "\udcff.md" in seen(root)
    assert "\udcff.md" not in seen(root, "*.md")


def test_c33_a_directory_that_nobody_asks_for_is_not_read(root: Path) -> None:
    context = DirectoryContext(str(root))
    (root / "d").chmod(0)
    try:
        assert context.lookup("a.txt") is not None
        assert len(list(context.children(""))) == 5
    finally:
        (root / "d").chmod(0o755)


def test_entries_say_which_file_they_are(root: Path) -> None:
    context = DirectoryContext(str(root))
    entry, directory = context.lookup("a.txt"), context.lookup("d")
    assert entry is not None
    assert directory is not None
    assert entry.stat[:3] == ((root / "a.txt").stat().st_dev, (root / "a.txt").stat().st_ino, 5)
    assert directory.stat == ()
    (root / "a.txt").write_text("other")
    again = context.lookup("a.txt")
    assert again is not None
    assert again.stat != entry.stat


def test_g01_entries_are_what_lookup_finds(root: Path) -> None:
    """Of a whole directory at once, in order, with what is excluded left out."""
    context = DirectoryContext(str(root), Ignore.of(["d", "!d/deep", "*.md"]))
    for path in ("", "d", "d/deep"):
        found = list(context.listing(path))
        assert [entry.name for entry in found] == list(context.children(path)) == sorted(entry.name for entry in found)
        assert found == [context.lookup(entry.path) for entry in found]
    assert list(context.listing("a.txt")) == []


def test_a_deep_directory(root: Path) -> None:
    place = os.open(root, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d2", dir_fd=place)
        deeper = os.open("d2", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = deeper
    os.close(place)
    assert seen(root, "d2", "!**/x") == ALL
    from kpy.util.erase import remove

    remove(str(root / "d2"))


def test_no_context() -> None:
    context = EmptyContext()
    assert (list(context.children("")), context.lookup("x")) == ([], None)
    top = context.lookup("")
    assert top is not None
    with pytest.raises(ContextError, match="no context"), context.reading([]) as opener:
        opener(top)


def test_what_cannot_be_listed_is_not_left_out_in_silence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """G04: below an excluded directory a `!` may let something in. A failed listing once made it look empty, and the image
    another one."""
    context = DirectoryContext(str(root), Ignore.parse(b"d\n!d/deep\n"))
    list_directory = os.scandir

    def failing(number: int):  # type: ignore[no-untyped-def]
        if name_of(number) == "d":
            raise OSError(24, "Too many open files")
        return list_directory(number)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(ContextError, match="cannot list d in the build context") as caught:
        context.children("")
    assert "take the ! pattern" in caught.value.hint


def test_an_excluded_directory_that_nobody_may_read_is_no_error_without_exceptions_in_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", lambda number: pytest.fail("d is listed") if name_of(number) == "d" else _scan(number))
    assert "d" not in DirectoryContext(str(root), Ignore.parse(b"d\n!e/f\n")).children("")


_scan = os.scandir


def name_of(descriptor: int) -> str:
    return os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))


def _rewritten(path: Path) -> None:
    path.write_bytes(b"two")


def _replaced(path: Path) -> None:
    path.with_name("new").write_bytes(b"two")
    os.rename(path.with_name("new"), path)


@pytest.mark.parametrize("change", [_rewritten, _replaced])
def test_c33_a_file_that_changes_after_it_was_listed_is_an_error(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Its digest may be in a key already: the layer would have another content."""
    (tmp_path / "f").write_bytes(b"one")
    os.utime(tmp_path / "f", ns=(5, 5))
    context = DirectoryContext(str(tmp_path))
    entry = context.lookup("f")
    assert entry is not None
    with context.open(entry) as stream:
        assert stream.read() == b"one"

    change(tmp_path / "f")

    with pytest.raises(ContextError, match="f in the build context changed during the build"), context.open(entry) as stream:
        stream.read()


def test_c33_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"one" * 1000)
    os.utime(tmp_path / "f", ns=(5, 5))
    context = DirectoryContext(str(tmp_path))
    entry = context.lookup("f")
    assert entry is not None
    with pytest.raises(ContextError, match="changed during the build"), context.open(entry) as stream:
        stream.read(3)
        (tmp_path / "f").write_bytes(b"two" * 1000)
        stream.read()


def test_an_error_of_who_reads_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"one")
    context = DirectoryContext(str(tmp_path))
    entry = context.lookup("f")
    assert entry is not None
    with pytest.raises(ZeroDivisionError), context.open(entry):
        (tmp_path / "f").write_bytes(b"other")
        raise ZeroDivisionError


def test_who_reads_may_close_it_before_its_end(tmp_path: Path) -> None:
    """As a reader of archives does, which looks at the beginning."""
    (tmp_path / "f").write_bytes(b"one")
    context = DirectoryContext(str(tmp_path))
    entry = context.lookup("f")
    assert entry is not None
    with context.open(entry) as stream, io.BufferedReader(stream) as reader:  # type: ignore[arg-type]
        assert reader.read(1) == b"o"
    assert stream.closed
