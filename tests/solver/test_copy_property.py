"""COPY of any tree onto any tree: nothing outside the root, layers that everybody can apply, and a simple model."""

import io

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kpy.errors import ContextError
from kpy.layer.entry import Entry, Kind
from kpy.layer.tree import Tree, scan_layer
from tests.fakes import MemoryFiles, dir_item, file_item, link_item, tar_of
from tests.solver.copying import Copying, apply, rules

NAMES = st.sampled_from(["a", "b", "c", "..."])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TARGETS = st.lists(st.sampled_from(["a", "b", "c", "..", ".", "..."]), min_size=1, max_size=4).map("/".join)
LINKS = st.tuples(st.sampled_from(["", "/"]), TARGETS).map("".join)
WHAT = st.none() | st.binary(max_size=4) | LINKS
FILES = st.dictionaries(PATHS, WHAT, max_size=7)
WORDS = st.sampled_from(["", "/", "a", "b", "a/b", "../c", "*", "*/*", "a/*", "[ab]", "c/../a"])
DESTS = st.tuples(st.just("/"), PATHS, st.sampled_from(["", "/"])).map("".join) | st.just("/")  # as the planner cleans them


def consistent(files: "dict[str, bytes | str | None]") -> "dict[str, bytes | str | None]":
    """Without what is below something that is no directory."""
    return {
        path: what
        for path, what in files.items()
        if all(files.get("/".join(path.split("/")[:depth])) is None for depth in range(1, path.count("/") + 1))
    }


def tree_of(files: "dict[str, bytes | str | None]") -> Tree:
    items = []
    for path, what in sorted(files.items(), key=lambda pair: pair[0].split("/")):
        if what is None:
            items.append(dir_item(path))
        else:
            items.append(link_item(path, what) if isinstance(what, str) else file_item(path, what))
    return apply(Tree.empty(), items)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(FILES.map(consistent), FILES.map(consistent), st.lists(WORDS, min_size=1, max_size=3), DESTS, st.booleans(), st.booleans())
def test_layers_of_copy_are_sound(
    source: "dict[str, bytes | str | None]", onto: "dict[str, bytes | str | None]", words: list[str], dest: str, parents: bool, linked: bool
) -> None:
    files = MemoryFiles.of(source)
    if linked:
        files.links = {path: "one" for path, what in source.items() if isinstance(what, bytes)}
    below = tree_of(onto)
    work = Copying(files, below, rules(parents=parents))
    try:
        for word in words:
            work.copier.copy(word, dest)
    except ContextError as error:
        assert "\n" not in error.message
        return
    items = work.items()
    seen: dict[str, Kind] = {"": Kind.DIR}
    for item in items:
        entry = item.entry
        assert not any(part in ("", ".", "..") for part in entry.path.split("/"))
        assert entry.path not in seen or entry.kind is Kind.OPAQUE
        assert seen[entry.parent] is Kind.DIR, "parents come first (L02)"
        if entry.kind is Kind.HARDLINK:
            assert seen[entry.link] is Kind.FILE, "the target comes first (L03)"
        seen.setdefault(entry.path, entry.kind)
        assert below.resolve(entry.parent) in (entry.parent, None), "no entry lies behind a symlink of the tree"
    data = tar_of(*items)
    index = scan_layer(io.BytesIO(data))
    after = below.apply(index, _digest(data))
    for entry in index.entries:
        there = after.lookup(entry.path)
        assert there is not None
        if entry.kind is not Kind.HARDLINK:
            assert (there.kind, there.mode, there.link, there.sha256) == (entry.kind, entry.mode, entry.link, entry.sha256)
    touched = {item.entry.path for item in items}
    for entry in below.walk():
        if entry.path not in touched:
            assert after.lookup(entry.path) == entry, "what is not in the layer stays"


def _digest(data: bytes):  # type: ignore[no-untyped-def]
    from kpy.oci.digest import Digest

    return Digest.of(data)


PLAIN = st.dictionaries(PATHS, st.none() | st.binary(max_size=4), max_size=7).map(consistent)


@settings(deadline=None, max_examples=200)
@given(PLAIN, PLAIN, st.sampled_from(["/", "/a", "/a/", "/b/c", "/new"]))
def test_copy_of_all_equals_the_model(source: "dict[str, bytes | None]", onto: "dict[str, bytes | None]", dest: str) -> None:
    """COPY . DEST: a dictionary update below DEST, unless something is in the way."""
    model = _full(onto)
    wanted = {"/".join(part for part in (dest.strip("/"), path) if part): what for path, what in _full(source).items()}
    if dest.strip("/"):
        wanted = {**_above(dest.strip("/")), **wanted}
    clash = any(path in model and (model[path] is None) != (what is None) for path, what in wanted.items())
    work = Copying(MemoryFiles.of(source), tree_of(onto), rules())
    try:
        work.copier.copy(".", dest)
    except ContextError:
        assert clash
        return
    assert not clash
    after = work.result()
    found = {entry.path: _what(entry) for entry in after.walk() if entry.path}
    assert found == {path: _plain(what) for path, what in {**model, **wanted}.items()}


def _above(path: str) -> dict[str, None]:
    parts = path.split("/")
    return {"/".join(parts[:depth]): None for depth in range(1, len(parts) + 1)}


def _full(files: "dict[str, bytes | None]") -> "dict[str, bytes | None]":
    found: dict[str, bytes | None] = {}
    for path, what in files.items():
        above = path.rpartition("/")[0]
        if above:
            found |= _above(above)
        found[path] = what
    return found


def _what(entry: Entry) -> str:
    return "" if entry.kind is Kind.DIR else entry.sha256


def _plain(what: bytes | None) -> str:
    import hashlib

    return "" if what is None else hashlib.sha256(what).hexdigest()
