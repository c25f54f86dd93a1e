"""A word that is nearly right: the error says the right one (P15; issue 3, 6)."""

import re

import pytest

from kpy.errors import KpyError
from tests.plan.planning import planned

CASES = [
    ("FROM base\nCPOY a b\n", 2, "COPY"),  # an instruction
    ("FRMO base\n", 1, "FROM"),
    ("FROM base\nCOPY --chwon=1 a b\n", 2, "--chown"),  # a flag
    ("FROM --platfrom=linux/amd64 base\n", 1, "--platform"),
    ("FROM base\nRUN --netwrok=none x\n", 2, "--network"),
    ("FROM base\nHEALTHCHECK --intervall=3s CMD x\n", 2, "--interval"),
    ("FROM base\nRUN --network=nnone x\n", 2, "none"),  # a flag's value
    ("FROM base\nRUN --mount=type=cahce,target=/c x\n", 2, "cache"),
    ("FROM base\nRUN --mount=type=cache,targt=/c x\n", 2, "target"),
    ("FROM base\nSTOPSIGNAL SIGTREM\n", 2, "SIGTERM"),
    ("FROM base AS build\nFROM biuld\n", 2, "build"),  # a stage
    ("FROM base AS build\nFROM base\nCOPY --from=buidl /a /b\n", 3, "build"),
    ("FROM base AS build\nFROM base\nRUN --mount=from=biuld,target=/x y\n", 3, "build"),
    ("FROM base AS Build\nFROM Biuld\n", 2, "build"),
    ("FROM base\nARG VERSION=1\nENV a=${VERSOIN:?needed}\n", 3, "VERSION"),  # a variable
    ("ARG BASE=base\nFROM $BSAE\n", 2, "BASE"),
    ("ARG BASE=base\nFROM ${BSAE:?}\n", 2, "BASE"),
]


@pytest.mark.parametrize(("text", "line", "meant"), CASES)
def test_the_likely_spelling(text: str, line: int, meant: str) -> None:
    with pytest.raises(KpyError) as caught:
        planned(text)
    assert caught.value.hint == f'did you mean "{meant}"?'
    assert (caught.value.file, caught.value.first_line) == ("Dockerfile", line)
    assert re.search(rf"^ *{line} \| >>> ", caught.value.excerpt, re.MULTILINE)


def test_what_nothing_is_like_keeps_its_own_hint() -> None:
    for text in ("FROM base AS build\nFROM quite-another\n", "FROM base\nENV a=${X:?}\n", "ARG A=b\nFROM $ZZZ\n"):
        with pytest.raises(KpyError) as caught:
            planned(text)
        assert "did you mean" not in caught.value.hint


def test_an_argument_without_a_value_is_no_misspelling() -> None:
    with pytest.raises(KpyError) as caught:
        planned("ARG BASE\nARG BASE2=base\nFROM $BASE\n")
    assert "BASE has no value" in caught.value.hint
