"""diff.py: exactly what changed between two scans (L01, L02, L03, L05, EXECUTION D)."""

import errno
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kpy.layer.entry import Entry, Kind, LayerItem, sort_key
from kpy.snapshot.diff import differences
from kpy.snapshot.scan import scan, settle


class Root:
    """A root, what it was, and what a lookup in the merged tree of its chain says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = scan(str(path))
        self.tree: dict[str, Entry] = {}

    def mark(self, *, known: bool = False) -> None:
        """From here on, changes count."""
        self.before = scan(str(self.path))
        settle(self.before)
        if known:
            items = {item.entry.path: item for item in differences(str(self.path), {}, self.before)}
            self.tree = {path: _known(item, items) for path, item in items.items()}

    def items(self) -> list[LayerItem]:
        return list(differences(str(self.path), self.before, scan(str(self.path)), self.tree.get))

    def changes(self) -> list[str]:
        return [f"{item.entry.kind.value} {item.entry.path}" + _arrow(item.entry) for item in self.items()]


def _arrow(entry: Entry) -> str:
    return f" -> {entry.link}" if entry.link else ""


def _known(item: LayerItem, items: Mapping[str, LayerItem]) -> Entry:
    import dataclasses

    source = items[item.entry.link] if item.entry.kind is Kind.HARDLINK else item
    if source.open is None:
        return item.entry
    with source.open() as file:
        return dataclasses.replace(
            source.entry, path=item.entry.path, sha256=hashlib.sha256(file.read()).hexdigest()
        )


@pytest.fixture
def root(tmp_path: Path) -> Root:
    for name in ("etc", "etc/conf", "usr", "usr/bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "etc" / "passwd").write_text("root\n")
    (tmp_path / "etc" / "conf" / "a").write_text("a")
    (tmp_path / "etc" / "conf" / "b").write_text("b")
    (tmp_path / "usr" / "bin" / "sh").write_text("shell")
    os.link(tmp_path / "usr" / "bin" / "sh", tmp_path / "usr" / "bin" / "tool")
    (tmp_path / "bin").symlink_to("usr/bin")
    made = Root(tmp_path)
    made.mark()
    return made


def _rewrite_keeping_mtime(path: Path, content: str) -> None:
    times = path.stat()
    path.write_text(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_nothing_changed_is_nothing(root: Root) -> None:
    assert root.changes() == []


def test_a_new_file_comes_with_its_parents_and_content(root: Root) -> None:
    (root.path / "usr" / "new").write_text("hello")

    (usr, new) = root.items()

    assert (usr.entry.path, usr.entry.kind) == ("usr", Kind.DIR)
    assert (new.entry.path, new.entry.size, new.entry.uid) == ("usr/new", 5, os.getuid())
    assert new.open is not None
    with new.open() as file:
        assert file.read() == b"hello"


def test_same_size_rewrite_with_the_old_mtime_is_a_change(root: Root) -> None:
    _rewrite_keeping_mtime(root.path / "etc" / "passwd", "toor\n")

    assert root.changes() == ["d etc", "f etc/passwd"]


def test_same_size_rewrite_is_told_by_content_when_the_tree_knows_it(root: Root) -> None:
    root.mark(known=True)
    _rewrite_keeping_mtime(root.path / "etc" / "passwd", "toor\n")
    _rewrite_keeping_mtime(root.path / "etc" / "conf" / "a", "a")

    assert root.changes() == ["d etc", "f etc/passwd"]


def test_chmod_only(root: Root) -> None:
    (root.path / "etc" / "passwd").chmod(0o600)

    assert root.changes() == ["d etc", "f etc/passwd"]
    assert root.items()[1].entry.mode == 0o600


def test_mtime_only_is_a_change_of_a_file(root: Root) -> None:
    os.utime(root.path / "etc" / "passwd", ns=(1, 1_000_000_007))

    assert root.changes() == ["d etc", "f etc/passwd"]
    assert root.items()[1].entry.mtime == 1_000_000_007


def test_a_chmod_to_the_same_mode_is_no_change(root: Root) -> None:
    root.mark(known=True)
    for path in ("etc/passwd", "usr/bin/sh", "etc"):
        (root.path / path).chmod((root.path / path).stat().st_mode & 0o7777)

    assert root.changes() == []


def test_a_ctime_alone_counts_when_nobody_knows_the_content(root: Root) -> None:
    (root.path / "etc" / "passwd").chmod((root.path / "etc" / "passwd").stat().st_mode & 0o7777)

    assert root.changes() == ["d etc", "f etc/passwd"]


def _set_xattr(path: Path, value: bytes) -> None:
    try:
        os.setxattr(path, "user.kpy-test", value)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.fail("the temporary directory has no user xattrs")


def test_xattr_only(root: Root) -> None:
    _set_xattr(root.path / "etc" / "conf" / "a", b"one")
    root.mark(known=True)
    _set_xattr(root.path / "etc" / "passwd", b"two")
    _set_xattr(root.path / "usr", b"three")
    os.removexattr(root.path / "etc" / "conf" / "a", "user.kpy-test")

    assert root.changes() == ["d etc", "d etc/conf", "f etc/conf/a", "f etc/passwd", "d usr"]
    assert root.items()[3].entry.xattrs == {"user.kpy-test": b"two"}


def test_a_directory_with_another_mode_is_a_change_but_not_one_with_another_mtime(root: Root) -> None:
    (root.path / "etc" / "conf").chmod(0o700)
    os.utime(root.path / "usr", ns=(1, 1))
    (root.path / "usr" / "bin" / "x").touch()
    (root.path / "usr" / "bin" / "x").unlink()

    assert root.changes() == ["d etc", "d etc/conf"]


def test_gone_is_a_whiteout_of_the_topmost(root: Root) -> None:
    (root.path / "etc" / "conf" / "a").unlink()
    (root.path / "etc" / "conf" / "b").unlink()
    (root.path / "etc" / "conf").rmdir()

    assert root.changes() == ["d etc", "w etc/conf"]


def test_deleted_and_made_again(root: Root) -> None:
    conf = root.path / "etc" / "conf"
    (conf / "a").unlink()
    (conf / "b").unlink()
    conf.rmdir()
    conf.mkdir()
    (conf / "b").write_text("new b")
    (conf / "c").touch()

    assert root.changes() == ["d etc", "d etc/conf", "w etc/conf/a", "f etc/conf/b", "f etc/conf/c"]


def test_a_directory_that_became_a_file_has_no_whiteouts_below(root: Root) -> None:
    conf = root.path / "etc" / "conf"
    (conf / "a").unlink()
    (conf / "b").unlink()
    conf.rmdir()
    conf.touch()

    assert root.changes() == ["d etc", "f etc/conf"]


def test_a_file_that_became_a_directory(root: Root) -> None:
    (root.path / "etc" / "passwd").unlink()
    (root.path / "etc" / "passwd").mkdir()
    (root.path / "etc" / "passwd" / "x").touch()

    assert root.changes() == ["d etc", "d etc/passwd", "f etc/passwd/x"]


def test_a_symlink_with_another_target(root: Root) -> None:
    (root.path / "bin").unlink()
    (root.path / "bin").symlink_to("usr/xbn")

    assert root.changes() == ["l bin -> usr/xbn"]


def test_a_file_that_became_a_socket_is_a_whiteout(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.chdir(root.path / "etc")
    os.unlink("passwd")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("passwd")

    assert root.changes() == ["d etc", "w etc/passwd"]


def test_rename(root: Root) -> None:
    (root.path / "etc" / "conf").rename(root.path / "aaa")

    assert root.changes() == ["d aaa", "f aaa/a", "f aaa/b", "d etc", "w etc/conf"]


def test_all_names_of_a_changed_file(root: Root) -> None:
    (root.path / "usr" / "bin" / "tool").write_text("other")

    assert root.changes() == ["d usr", "d usr/bin", "f usr/bin/sh", "h usr/bin/tool -> usr/bin/sh"]


def test_a_new_name_of_an_old_file_is_a_file_of_its_own(root: Root) -> None:
    """As in BuildKit's layers; that they are one file is in the layer's index alone (LayerItem.twin)."""
    root.mark(known=True)
    os.link(root.path / "etc" / "passwd", root.path / "copy")

    assert root.changes() == ["f copy"]
    assert root.items()[0].twin == "etc/passwd"


def test_a_name_less_is_only_a_whiteout(root: Root) -> None:
    root.mark(known=True)
    (root.path / "usr" / "bin" / "tool").unlink()

    assert root.changes() == ["d usr", "d usr/bin", "w usr/bin/tool"]


def test_order_is_by_components(root: Root) -> None:
    for name in ("usr.x", "usr-y", "usr/z"):
        (root.path / name).touch()

    entries = [item.entry for item in root.items()]

    assert [entry.path for entry in entries] == ["usr", "usr/z", "usr-y", "usr.x"]
    assert entries == sorted(entries, key=sort_key)


def test_mode_of_the_root_itself(root: Root) -> None:
    """BuildKit's layers never have it."""
    root.path.chmod(0o711)

    assert root.changes() == []



Action = tuple[str, str, str]
_PATHS = st.sampled_from(["a", "b", "a/x", "a/y", "b/x", "a/x/p"])
_ACTIONS = st.lists(
    st.tuples(st.sampled_from(["write", "mkdir", "remove", "link", "rename"]), _PATHS, _PATHS), max_size=12
)


def _act(root: Path, action: Action) -> None:
    from kpy.util.erase import remove

    verb, one, two = action
    try:
        if verb == "write":
            (root / one).write_text(two)
        elif verb == "mkdir":
            (root / one).mkdir()
        elif verb == "remove":
            remove(str(root / one))
        elif verb == "link":
            os.link(root / one, root / two)
        else:
            (root / one).rename(root / two)
    except OSError:
        pass


def _content(root: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(root)): path.read_text() if path.is_file() else None for path in root.rglob("*")
    }


def _applied(old: dict[str, str | None], items: list[LayerItem]) -> dict[str, str | None]:
    """What an extractor makes of the layer."""
    new = dict(old)

    def drop(path: str) -> None:
        for other in [name for name in new if name == path or name.startswith(path + "/")]:
            del new[other]

    for item in items:
        entry = item.entry
        if entry.kind is Kind.WHITEOUT:
            assert entry.path in old
            drop(entry.path)
        elif entry.kind is Kind.DIR:
            if new.get(entry.path) is not None:
                drop(entry.path)
            new[entry.path] = None
        else:
            drop(entry.path)
            if entry.kind is Kind.HARDLINK:
                new[entry.path] = new[entry.link]
            else:
                assert item.open
                with item.open() as file:
                    new[entry.path] = file.read().decode()
    return new


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=_ACTIONS, second=_ACTIONS)
def test_the_old_tree_and_the_changes_give_the_new_tree(
    tmp_path_factory: pytest.TempPathFactory, first: list[Action], second: list[Action]
) -> None:
    path = tmp_path_factory.mktemp("root")
    for action in first:
        _act(path, action)
    root = Root(path)
    root.mark(known=True)
    old = _content(path)
    for action in second:
        _act(path, action)

    assert _applied(old, root.items()) == _content(path)
