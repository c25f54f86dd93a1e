"""Chains on disk: what a copy changed counts for nothing, and is made again."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kpy.events import Event, Warned
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Chain, Layer
from kpy.snapshot.stack import Stack


def layer(letter: str) -> Layer:
    digest = Digest.parse("sha256:" + letter * 64)
    return Layer(Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", digest, 1), digest)


ONE: Chain = (layer("a"),)
TWO: Chain = (*ONE, layer("b"))


def add(stack: Stack, chain: Chain, *, on_parent: bool) -> None:
    with stack.using(), stack.workplace() as place:
        os.mkdir(os.path.join(place, "fs"))
        stack.add(chain, place, on_parent=on_parent)


def made(directory: Path) -> Stack:
    stack = Stack(str(directory))
    add(stack, ONE, on_parent=False)
    add(stack, TWO, on_parent=True)
    return stack


def test_what_was_made_is_there_for_the_next_one(tmp_path: Path) -> None:
    lowers = made(tmp_path / "s").lowers(TWO)
    assert lowers is not None
    assert len(lowers) == 2
    assert Stack(str(tmp_path / "s")).lowers(TWO) == lowers
    (tmp_path / "s").rename(tmp_path / "moved")
    assert Stack(str(tmp_path / "moved")).longest(TWO) == 2


def _copied(directory: Path) -> None:
    shutil.copytree(directory, directory.with_name("copy"), symlinks=True)
    shutil.rmtree(directory)
    directory.with_name("copy").rename(directory)


def _moded(directory: Path) -> None:
    for path in directory.glob("*/chains/*/fs"):
        path.chmod(0o700)
        path.chmod(0o755)


def _older(directory: Path) -> None:
    for path in directory.glob("*/chains/*/meta.json"):
        path.write_text(path.read_text().partition(', "mark"')[0] + "}")


@pytest.mark.parametrize("change", [_copied, _moded, _older])
def test_what_was_changed_is_made_again(tmp_path: Path, change: Callable[[Path], None]) -> None:
    made(tmp_path / "s")
    change(tmp_path / "s")
    events: list[Event] = []
    stack = Stack(str(tmp_path / "s"), report=events.append)
    assert stack.lowers(TWO) is None
    assert stack.longest(TWO) == 0
    assert stack.held() == []
    messages = {event.message for event in events if isinstance(event, Warned)}
    assert len(messages) == 1
    assert "made again" in messages.pop()
    add(stack, ONE, on_parent=False)
    add(stack, TWO, on_parent=True)
    lowers = stack.lowers(TWO)
    assert lowers is not None
    assert all(os.path.isdir(path) for path in lowers)


def test_a_chain_on_which_one_that_was_changed_stands_is_no_chain(tmp_path: Path) -> None:
    stack = made(tmp_path)
    lowers = stack.lowers(TWO)
    assert lowers is not None
    os.chmod(lowers[1], 0o700)
    assert stack.lowers(ONE) is None
    assert stack.lowers(TWO) is None
    assert stack.longest(TWO) == 0
