"""A step's identity has all that its result depends on: each field of each operation changes it, or says why not."""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from kpy.dockerfile.remotes import GitRemote
from kpy.plan import model
from kpy.plan.graph import step_id
from kpy.plan.model import CopyOp, CopySource, GitOp, HttpOp, ImageOp, MountOp, RunOp, WorkdirOp
from kpy.solver import cachekey
from kpy.util.keyed import beside, data_of
from tests.fakes import KnownImages

STEP_ONLY = {("RunOp", "proxies"), ("MountOp", "input")}
NEVER = {("ImageOp", "name"), ("ImageOp", "base")}


def _ops() -> list[Any]:
    images = KnownImages()
    images.add("x")
    base = images("x", model.LINUX_AMD64)
    mount = MountOp("cache", "/t")
    remote = GitRemote("https://h/r", "main", "")
    return [
        ImageOp.of(base), model.ScratchOp(), model.ContextOp(""), HttpOp("http://h/f"), GitOp(remote),
        RunOp(("make",), (), "/", "", mounts=(mount,)), CopyOp("/d", (CopySource(1, ("a",)),)), WorkdirOp("/w", ""),
    ]  # fmt: skip


def _changed(value: Any) -> Any:
    """Any other value of the same type."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, tuple):
        return (*value, "x")
    raise AssertionError(f"the test knows no other {type(value)}")


def _variants(value: Any) -> Iterator[tuple[str, str, Any]]:
    """The value with one field changed, also in what it holds: the class, the field, and the result."""
    for item in dataclasses.fields(value):
        found = getattr(value, item.name)
        if isinstance(found, model.BaseImage):
            yield type(value).__name__, item.name, dataclasses.replace(value, **{item.name: None})
        elif dataclasses.is_dataclass(found):
            for owner, name, other in _variants(found):
                yield owner, name, dataclasses.replace(value, **{item.name: other})
        elif isinstance(found, tuple) and found and dataclasses.is_dataclass(found[0]):
            for owner, name, other in _variants(found[0]):
                yield owner, name, dataclasses.replace(value, **{item.name: (other, *found[1:])})
            yield type(value).__name__, item.name, dataclasses.replace(value, **{item.name: ()})
        else:
            yield type(value).__name__, item.name, dataclasses.replace(value, **{item.name: _changed(found)})


def test_all_operations_are_tried() -> None:
    assert {type(op) for op in _ops()} == set(typing.get_args(model.Op))


@pytest.mark.parametrize("op", _ops(), ids=lambda op: type(op).__name__)
def test_each_field_is_in_the_id_of_a_step(op: Any) -> None:
    same = {(owner, name) for owner, name, other in _variants(op) if step_id(other, ("a",)) == step_id(op, ("a",))}
    assert same <= NEVER
    assert step_id(op, ("a",)) != step_id(op, ("b",))


def test_each_field_of_a_run_is_in_its_cache_key() -> None:
    op = RunOp(("make",), (), "/", "", mounts=(MountOp("cache", "/t"),))
    key = cachekey.run_key(op, (), ("",), "gzip")
    same = {(owner, name) for owner, name, other in _variants(op) if cachekey.run_key(other, (), ("",), "gzip") == key}
    assert same == STEP_ONLY


def test_a_field_that_is_left_out_says_why() -> None:
    left_out = {}
    for kind in (*typing.get_args(model.Op), MountOp, CopySource):
        left_out |= {(kind.__name__, item.name): item.metadata.get("why") for item in dataclasses.fields(kind) if item.metadata}
    assert left_out.keys() == STEP_ONLY | NEVER
    assert all(left_out.values())
    with pytest.raises(ValueError, match="says why"):
        beside("")


def test_what_no_key_knows_is_no_key() -> None:
    """Nothing is keyed by its address or by a text that says less than it is."""
    with pytest.raises(TypeError):
        data_of(object())
