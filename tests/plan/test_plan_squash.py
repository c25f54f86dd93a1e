"""--squash: which layers are meant, and what the history says (L10)."""

import pytest

from kpy.errors import UsageError
from kpy.oci.config import History
from kpy.plan.squash import Squash, squashed_history, squashed_layers
from tests.plan.planning import planned

TEXT = """FROM base AS one
RUN a
ENV x=1
RUN b \\
  c
FROM one
WORKDIR /w
COPY a .
LABEL l=1
RUN d
"""


def layers(wanted: Squash, text: str = TEXT) -> range:
    plan = planned(text)
    return squashed_layers(plan, plan.targets[0], wanted)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Squash(), range(5)),
        (Squash(base=True), range(5)),
        (Squash(2, 4), range(2)),
        (Squash(4), range(1, 5)),
        (Squash(1, 7), range(3)),
        (Squash(8, 8), range(3, 4)),
    ],
)
def test_the_layers_of_lines(wanted: Squash, expected: range) -> None:
    """Counted from the base image up; stages that the target is FROM belong to it."""
    assert layers(wanted) == expected


def test_lines_without_a_layer_are_an_error() -> None:
    with pytest.raises(UsageError, match=r"--squash=9\.\.9: no layer comes from these lines") as caught:
        layers(Squash(9, 9))
    assert caught.value.hint == "lines that make layers: 2, 4, 7, 8, 10"


def test_a_build_without_layers() -> None:
    assert layers(Squash(), "FROM base\nENV a=b") == range(0)


TRIGGERS = """FROM base AS one
ONBUILD RUN t
RUN a
FROM one
RUN b
"""


def test_triggers_have_no_line() -> None:
    """Their layer is between those of line 3 and line 5: it is not taken along unasked."""
    assert layers(Squash(5), TRIGGERS) == range(2, 3)
    assert layers(Squash(), TRIGGERS) == range(3)
    for wanted in (Squash(1, 2), Squash(4, 4)):
        with pytest.raises(UsageError, match="no layer comes from these lines"):
            layers(wanted, TRIGGERS)
    with pytest.raises(UsageError, match="layers of other lines are between these"):
        layers(Squash(3, 5), TRIGGERS)


HISTORY = (History(created_by="one"), History(created_by="env", empty_layer=True), History(created_by="two"), History(created_by="three"))


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (range(3), ["one-", "env-", "two-", "three-", "+"]),
        (range(2), ["one-", "env-", "two-", "+", "three"]),
        (range(1, 3), ["one", "env-", "two-", "three-", "+"]),
        (range(0), ["one", "env-", "two", "three", "+"]),
    ],
)
def test_the_history(which: range, expected: list[str]) -> None:
    """Every instruction is there; one more entry, with a comment, has the layer."""
    found = squashed_history(HISTORY, which, 7)
    assert [f"{item.created_by}{'-' * item.empty_layer}" or "+" for item in found] == expected
    (merged,) = [item for item in found if item.comment]
    assert (merged.comment, merged.empty_layer) == ("kpy: 7 layers squashed into one", False)
