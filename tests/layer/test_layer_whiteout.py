"""L01: marker names to and from meanings; cleaning of paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.errors import ContentError
from kpy.layer import whiteout
from kpy.layer.entry import Kind
from kpy.util import paths

_name = st.text("abc.wh", min_size=1, max_size=6).filter(lambda name: not name.startswith(".wh.") and name.strip("."))


@given(st.lists(_name, min_size=1, max_size=4).map("/".join))
def test_round_trip(path):
    assert whiteout.read_marker(whiteout.marker(path)) == (Kind.WHITEOUT, path)
    assert whiteout.read_marker(whiteout.opaque_marker(path)) == (Kind.OPAQUE, path)
    assert not whiteout.holds_marker(path)
    assert whiteout.holds_marker(whiteout.marker(path))


def test_root_is_opaque():
    assert whiteout.opaque_marker("") == ".wh..wh..opq"
    assert whiteout.read_marker(".wh..wh..opq") == (Kind.OPAQUE, "")


@pytest.mark.parametrize("path", [".wh.", ".wh..", ".wh...", "a/.wh.", ".wh.a/b"])
def test_markers_of_nothing(path):
    with pytest.raises(ContentError, match="whiteout"):
        whiteout.read_marker(path)


@given(st.text("ab./", max_size=12))
def test_clean_paths_are_inside(path):
    cleaned = paths.clean(path)
    assert not cleaned.startswith("/") and not cleaned.endswith("/")
    assert not {"..", ".", ""} & set(cleaned.split("/")) or cleaned == ""
    assert paths.clean(cleaned) == cleaned
