"""Golden: what the parser makes of tests/golden/*/Dockerfile. To write ast.txt anew: `python tests/dockerfile/test_golden_ast.py`."""

from pathlib import Path

import pytest

from kpy.dockerfile.dump import dump
from kpy.dockerfile.parser import parse

CASES = sorted((Path(__file__).parent.parent / "golden").glob("*/Dockerfile"))


def actual(path: Path) -> str:
    return dump(parse(path.read_bytes()))


def test_there_are_cases() -> None:
    assert len(CASES) >= 12


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.parent.name)
def test_golden(path: Path) -> None:
    assert actual(path) == path.with_name("ast.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    for case in CASES:
        case.with_name("ast.txt").write_text(actual(case), encoding="utf-8")
