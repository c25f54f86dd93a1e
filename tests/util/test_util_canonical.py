"""JSON with one spelling, and JSON of strangers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.util import canonical

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(JSON)
def test_what_is_written_reads_back(value: object) -> None:
    assert canonical.loads(canonical.dumps_sorted(value)) == value
    assert json.loads(canonical.dumps_sorted(value)) == value


def test_order_is_the_given_one_or_sorted() -> None:
    assert canonical.dumps({"b": 1, "a": "ä"}) == '{"b":1,"a":"ä"}'.encode()
    assert canonical.dumps_sorted({"b": 1, "a": "ä"}) == b'{"a":"\\u00e4","b":1}'


def test_what_is_no_unicode_is_replaced_for_people_and_kept_for_keys() -> None:
    assert canonical.dumps("\udcff") == '"\ufffd"'.encode()
    assert canonical.dumps_sorted("\udcff") != canonical.dumps_sorted("\ufffd")


@pytest.mark.parametrize("raw", [b"NaN", b"[Infinity]", b"", b"\xff", b"[" * 5000 + b"]" * 5000, b"[" * 101 + b"]" * 101, b"1" * 5000])
def test_what_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        canonical.loads(raw)


def test_numbers_that_json_has_not_are_never_written() -> None:
    with pytest.raises(ValueError):
        canonical.dumps({"x": float("nan")})
