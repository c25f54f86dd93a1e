"""Layers merged to one give the files that they gave apart (L10, L01-L03)."""

import hashlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpy.errors import KpyError
from kpy.layer.entry import Entry, Kind, LayerItem, sort_key
from kpy.layer.index import scan_layer
from kpy.layer.tree import Tree
from kpy.oci.digest import Digest
from kpy.plan.squash import Squash
from kpy.solver.assemble import Format, assemble
from kpy.solver.newest import newest_time
from kpy.solver.solve import solve
from kpy.solver.squash import differences, squashed
from kpy.solver.values import ChainValue
from tests.fakes import FakeRun, dir_item, file_item, link_item, tar_of
from tests.plan.planning import planned
from tests.solver.building import Builder, Built

TEXT = """FROM base
WORKDIR /app
COPY a .
RUN change
COPY d /app
RUN remove
ENV x=1
"""


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    made = Builder(tmp_path / "one")

    def change(run: FakeRun) -> int:
        run.write("app/a", b"changed", mode=0o600, uid=3)
        run.write("app/b", b"twice")
        run.written["app/c"] = LayerItem(Entry("app/c", Kind.HARDLINK, link="app/b"))
        run.written["etc"] = dir_item("etc", mode=0o700)
        return 0

    def remove(run: FakeRun) -> int:
        for path in ("app/f", "etc/passwd"):
            run.written[path] = LayerItem(Entry(path, Kind.WHITEOUT))
        return 0

    made.machine.commands = {"change": change, "remove": remove}
    yield made
    made.close()


def build(builder: Builder, wanted: Squash, text: str = TEXT, **changes: object) -> Built:
    """As kpy.app.build does it."""
    built = builder.build(text, **changes)
    values = solve(built.plan, built.services)
    (target,) = built.plan.targets
    value = values[target.step]
    assert isinstance(value, ChainValue)
    target, value = squashed(built.plan, target, value, wanted, built.services)
    newest = newest_time(target.base.created, value, built.services)
    image, raw = assemble(target, value, built.services.layers, newest=newest, epoch=None, form=Format())
    return Built(built.plan, [image], [raw], built.reporter, built.services)


def described(tree: Tree) -> list[tuple[object, ...]]:
    """All of it, with which names are one file."""
    links: dict[object, list[str]] = {}
    for entry in tree.walk():
        if (same := tree.link_id(entry)) is not None:
            links.setdefault(same, []).append(entry.path)
    one = {path: names for names in links.values() for path in names if len(names) > 1}
    return [(entry.path, entry.kind, entry.mode, entry.uid, entry.size, entry.sha256, entry.link, one.get(entry.path))
            for entry in tree.walk()]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "layers"),
    [(Squash(), 2), (Squash(base=True), 1), (Squash(3, 4), 5), (Squash(4), 4), (Squash(6, 6), 6), (Squash(2, 6), 2)],
)
def test_the_files_are_the_same(builder: Builder, wanted: Squash, layers: int) -> None:
    plain = builder.build(TEXT)

    built = build(builder, wanted)

    assert described(built.tree) == described(plain.tree)
    assert len(built.image.chain) == layers
    assert sum(not item.get("empty_layer") for item in built.config["history"]) == layers
    texts = [item.get("created_by", "") for item in built.config["history"]]
    assert [text for text in texts if text] == [item["created_by"] for item in plain.config["history"]]
    assert built.config["config"] == plain.config["config"]
    if not wanted.base:
        assert built.image.chain[0] == plain.image.chain[0], "the base is shared with every other image"


def test_it_is_remembered_and_the_same(builder: Builder, tmp_path: Path) -> None:
    first = build(builder, Squash())
    builder.images.content.opened.clear()

    again = build(builder, Squash())

    assert again.digests == first.digests
    assert again.outcomes()["squash 5 layers"] == "cached"
    assert first.outcomes()["squash 5 layers"] == "done"
    assert builder.images.content.opened == [], "nothing is unpacked"
    other = Builder(tmp_path / "two", builder.images, builder.machine)
    assert build(other, Squash()).digests == first.digests
    other.close()


def test_the_layer_is_in_order_and_whole(builder: Builder) -> None:
    built = build(builder, Squash())
    layer = built.image.chain[-1]
    with built.services.layers.tar(layer) as tar:
        data = tar.read()

    entries = scan_layer(BytesIO(data)).entries

    assert [f"{entry.kind} {entry.path}" for entry in entries] == [
        "d app", "f app/a", "f app/b", "h app/c", "d dev", "d etc", "w etc/passwd", "d proc", "d sys",
    ]  # fmt: skip
    assert hashlib.sha256(data).hexdigest() == layer.diff_id.hex


def test_nothing_to_do(builder: Builder) -> None:
    text = "FROM base\nENV a=b"
    assert build(builder, Squash(), text).digests == builder.build(text).digests


def test_a_failure_leaves_no_layer(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    from kpy.errors import StoreError
    from kpy.solver import squash

    def full(*_: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(squash, "write_layer", full)
    with pytest.raises(KpyError, match="disk full"):
        build(builder, Squash())
    assert list((builder.directory / "spool").iterdir()) == []


# --- any layers ------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@st.composite
def layer_items(draw: st.DrawFn) -> list[LayerItem]:
    """A layer as somebody might have made it: parents may be missing, whiteouts of nothing, files over directories."""
    found: dict[str, LayerItem] = {}
    for path in draw(st.lists(PATHS, max_size=5, unique=True)):
        above = path.rpartition("/")[0]
        if any(found[up].entry.kind is not Kind.DIR for up in found if path.startswith(up + "/")):
            continue
        if any(other.startswith(path + "/") for other in found):
            continue
        kind = draw(st.sampled_from("fdwol"))
        if kind == "f":
            found[path] = file_item(path, draw(st.binary(max_size=3)), mode=draw(st.sampled_from([0o600, 0o644])))
        elif kind == "d":
            found[path] = dir_item(path, mode=draw(st.sampled_from([0o700, 0o755])))
        elif kind == "l":
            found[path] = link_item(path, "elsewhere")
        else:
            found[path] = LayerItem(Entry(path, Kind.WHITEOUT if kind == "w" else Kind.OPAQUE))
        assert above not in found or found[above].entry.kind is Kind.DIR
    return sorted(found.values(), key=lambda item: sort_key(item.entry))


@settings(max_examples=300, deadline=None)
@given(st.lists(layer_items(), max_size=3), st.lists(layer_items(), min_size=1, max_size=3))
def test_one_layer_for_many(below: list[list[LayerItem]], layers: list[list[LayerItem]]) -> None:
    old = _applied(Tree.empty(), below)
    new = _applied(old, layers)

    changes = list(differences(old, new))

    one = tar_of(*(_with_content(entry, layers, below) for entry in changes))
    assert described(old.apply(scan_layer(BytesIO(one)), Digest.of(one))) == described(new)
    assert [sort_key(entry) for entry in changes] == sorted(sort_key(entry) for entry in changes)
    assert all(old.lookup(entry.path) is not None for entry in changes if entry.kind is Kind.WHITEOUT), "L01"


def _applied(tree: Tree, layers: list[list[LayerItem]]) -> Tree:
    for items in layers:
        tar = tar_of(*items)
        tree = tree.apply(scan_layer(BytesIO(tar)), Digest.of(tar))
    return tree


def _with_content(entry: Entry, *groups: list[list[LayerItem]]) -> LayerItem:
    if entry.kind is not Kind.FILE:
        return LayerItem(entry)
    for layers in groups:
        for item in (item for items in layers for item in items):
            if item.open is not None and hashlib.sha256(item.open().read()).hexdigest() == entry.sha256:
                return LayerItem(entry, item.open)
    return LayerItem(entry)


def test_planned_is_what_is_built() -> None:
    """The layers that the plan counts are those that the solver makes."""
    assert len([step for step in planned(TEXT).steps if step.name.startswith("[")]) == 5
