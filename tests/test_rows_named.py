"""Every row of section 1 of FEATURES has a test that names it, by its number, alone; or a reason not to have one.

Ranges in the heads of files do not count: who looks for C31 shall find what is tested of it.
"""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROWS = {"P": 16, "H": 9, "X": 13, "A": 16, "F": 15, "R": 24, "C": 33, "I": 18, "G": 10, "L": 13}
WITHOUT = {
    "I13": "a pointer: ARG and FROM are A01-A16 and F01-F15",
    "I14": "RSYNC is Charliecloud's own instruction: unknown here, with a suggestion, as any unknown one (P12)",
    "I15": "FROM --after is buildah's own flag: unknown here, as any unknown one (P10)",
    "I16": "Containerfile.in is buildah's own: cpp is not run",
    "I17": "INCLUDE is nobody's yet: unknown here (P12)",
    "I18": "the principle that nothing is ignored: every test of a refusal",
    "G02": ".containerignore is buildah's own: BuildKit, whose contexts these are, reads .dockerignore only",
}


def test_every_row_is_named() -> None:
    files = [*TESTS.rglob("*.py"), *(TESTS.parent / "integration").rglob("*.py")]
    text = "\n".join(path.read_text() for path in files if path != Path(__file__))
    # A range is of neither of its ends.
    text = re.sub(r"\b[A-Z]\d\d-[A-Z]?\d\d\b", "", text)
    rows = [f"{letter}{number:02}" for letter, count in ROWS.items() for number in range(1, count + 1)]
    named = {found.upper() for found in re.findall(r"(?<![a-zA-Z0-9])([a-zA-Z]\d\d)(?![a-zA-Z0-9])", text)}

    assert sorted(set(rows) - named - WITHOUT.keys()) == []
