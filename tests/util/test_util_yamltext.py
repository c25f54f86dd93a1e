"""YAML that every reader takes for what was meant."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kpy.util.yamltext import dumps, scalar

# What YAML cannot hold at all: lone surrogates. Everything else must come back.
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
VALUES = st.recursive(
    st.one_of(TEXT, st.integers(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_written_is_read(value: object) -> None:
    assert yaml.safe_load(dumps(value)) == value


@given(st.lists(st.text("ab |-#:\t'\"", max_size=6), min_size=2, max_size=5))
def test_lines_are_read(lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    assert yaml.safe_load(dumps({"a": text, "b": [text, 1]})) == {"a": text, "b": [text, 1]}


@pytest.mark.parametrize("text", ["registry.example/app:1", "--push", "--tag=r.example:5000/app:1", "/kpy/state", "batch/v1", "ALL"])
def test_what_reads_well_is_plain(text: str) -> None:
    assert scalar(text) == text
    assert yaml.safe_load(f"- {text}") == [text]


@pytest.mark.parametrize("text", ["", "yes", "No", "on", "null", "y", "~", "1e3", "0x1", "12:30", "2001-01-01", "a: b", "a #b", "- a", "1Gi", "a:", "=", "*a", "&a", "!a", "--", "---"])
def test_what_could_be_something_else_is_quoted(text: str) -> None:
    assert scalar(text) == f'"{text}"'


def test_lines_stay_lines() -> None:
    assert dumps({"a": ["x", "set -eu\n\n  b\nc\n"]}) == "a:\n  - x\n  - |\n    set -eu\n\n      b\n    c\n"
