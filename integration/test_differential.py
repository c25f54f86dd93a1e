"""The official parser and ours on mutations of real Dockerfiles: golden tests, examples, and the conformance suite's.

What may differ, and why, is in tests/dockerfile/test_dockerfile_differential.py, whose `compare` this uses.
"""

import random
from pathlib import Path

import pytest
from test_conformance import SUITE

from tests.dockerfile.test_dockerfile_differential import BODIES, ENDS, HEADS, KEYWORDS, PIECES, compare

CHECKOUT = Path(__file__).resolve().parents[1]
FILES = sorted(
    [*CHECKOUT.glob("tests/golden/*/Dockerfile"), *CHECKOUT.glob("integration/examples/*/Dockerfile")]
    + [path for path in SUITE.glob("cases/*/context/**/*Dockerfile*") if path.is_file() and not path.is_symlink()]
)
MUTATIONS = 60  # of each file


def mutated(text: str, others: list[str], chance: random.Random) -> str:
    """A few changes: lines lost, doubled, swapped, taken from another file; pieces put in, cut out, replaced."""
    lines = text.splitlines(keepends=True)
    for _ in range(chance.randint(1, 4)):
        if not lines:
            break
        at = chance.randrange(len(lines))
        line = lines[at]
        cut = chance.randrange(len(line) + 1)
        match chance.randrange(9):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, line)
            case 2:
                other = chance.randrange(len(lines))
                lines[at], lines[other] = lines[other], line
            case 3:
                lines.insert(at, chance.choice(chance.choice(others).splitlines(keepends=True)))
            case 4:
                lines[at] = line[:cut] + chance.choice(PIECES) + line[cut:]
            case 5:
                lines[at] = line[:cut] + line[cut + chance.randint(1, 4) :]
            case 6:
                lines[at] = line.rstrip("\r\n") + chance.choice(ENDS)
            case 7:
                lines.insert(at, chance.choice([*BODIES, *HEADS]))
            case _:
                lines[at] = line.replace(line.split(None, 1)[0] if line.split() else line, chance.choice(KEYWORDS), 1)
    return "".join(lines)


def readable(path: Path) -> str | None:
    """The package takes text alone."""
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return None
    return text if text and len(text) < 60_000 else None  # it takes no lines above 64 KiB (P09)


TEXTS = {str(path.relative_to(path.parents[2])): text for path in FILES if (text := readable(path)) is not None}


@pytest.mark.parametrize("name", TEXTS)
def test_mutations(name: str) -> None:
    chance = random.Random(name)
    others = list(TEXTS.values())
    compare(TEXTS[name].encode())
    for _ in range(MUTATIONS):
        text = mutated(TEXTS[name], others, chance)
        try:
            compare(text.encode())
        except AssertionError as error:
            raise AssertionError(f"{error}\nfor {text!r}") from error
