"""Hints tell people what to type: only what exists."""

import re
from pathlib import Path

from kpy.cli.main import VERBS

KPY = Path(__file__).resolve().parent.parent.parent / "kpy"


def test_every_verb_in_a_message_exists() -> None:
    """A hint named `kpy prune` before there was one."""
    named = set()
    for path in KPY.rglob("*.py"):
        for hint in re.findall(r'hint\s*=\s*f?"[^"\n]*"|return f?"[^"\n]*"', path.read_text()):
            named |= {(verb, path.name) for verb in re.findall(r"[`(:\"] ?kpy ([a-z]+)\b", hint)}
    assert {verb for verb, _ in named} <= {*VERBS, "help", "knows", "keeps", "ends"}, named
    assert ("build", "main.py") in named
