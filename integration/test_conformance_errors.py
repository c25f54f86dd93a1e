"""What a mistake looks like (issue 3, 6; P15): every case of the conformance suite that has to fail shows the file, the lines
and an excerpt, and for a word that is nearly right the right one. (test_conformance.py: they fail, and for the reason.)
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from people import Kpy
from servers import Registry
from test_conformance import SUITE

# They have no line to show: a file without an instruction; and a mistake on the command line.
WITHOUT_LINES = {"error-empty-dockerfile", "error-only-comments", "error-no-stage", "error-target-missing"}
_EXCERPT = re.compile(r"^(\S+):(\d+)\n-{20}\n((?: *\d+ \|.*\n)+)-{20}\nerror: \S", re.MULTILINE)
_ROW = re.compile(r"^ *(\d+) \|(?: (>>>|   )(?: (.*))?)?$")


def _shown(output: str, name: str) -> tuple[str, int, dict[int, str], set[int]]:
    """File and line that an error names, the lines of its excerpt, and which of them are marked."""
    found = _EXCERPT.findall(output)
    assert len(found) == 1, f"{name}: one excerpt, right before the error\n{output}"
    file, line, excerpt = found[0]
    rows = [match.groups() for match in map(_ROW.match, excerpt.splitlines()) if match]
    assert len(rows) == len(excerpt.splitlines()), f"{name}\n{excerpt}"
    return file, int(line), {int(number): text or "" for number, _, text in rows}, {int(n) for n, mark, _ in rows if mark == ">>>"}


def _check(name: str, case: Path, output: str) -> None:
    expected = json.loads((SUITE / "cases" / name / "expected.json").read_text())["error"]
    context = case / "context"
    assert "Traceback" not in output, name
    assert len(re.findall(r"^error: ", output, re.MULTILINE)) == 1, f"{name}: one error\n{output}"
    meant = re.search(r"did you mean ([^?\s]+)\?", expected["buildkit"])
    if meant:
        assert re.search(rf'^hint: did you mean "-*{re.escape(meant[1])}"\?$', output, re.MULTILINE), f"{name}\n{output}"
    if name in WITHOUT_LINES:
        assert not _EXCERPT.search(output), f"{name}: it has lines to show, after all"
        assert "Dockerfile" in output or meant, name
        return
    file, line, excerpt, marked = _shown(output, name)
    lines = (context / Path(file).name).read_text().split("\n")
    assert line == min(marked), name
    assert marked == set(range(min(marked), max(marked) + 1)), f"{name}: a range"
    assert line == expected.get("line", line), name
    for number, text in excerpt.items():
        assert lines[number - 1].rstrip() == text.rstrip(), f"{name}:{number}"
    begin, end = max(1, min(marked) - 2), min(len(lines), max(marked) + 2)
    assert set(range(begin, end)) <= set(excerpt) <= set(range(begin, end + 1)), f"{name}: two lines on each side"
    # An instruction is shown to its end: no line that it goes on with is left out.
    if not lines[max(marked) - 1].lstrip().startswith("#"):
        assert not lines[max(marked) - 1].endswith("\\"), name


if SUITE.is_dir() or os.environ.get("CI") == "true":

    def test_every_error_shows_where_it_is(kpy: Kpy, registry: Registry, area: Path) -> None:
        suite = area / "conformance-errors"
        shutil.copytree(SUITE, suite, symlinks=True)
        make = suite / "bases" / "make-bases"
        subprocess.run([make, "--push", registry.host], check=True, capture_output=True, timeout=600)
        kept = kpy.home / "errors"
        argv = [
            suite / "run", "--builder", "kpy", "--tool", f"kpy={kpy.program}", "--registry", registry.host,
            "--jobs", "2", "--timeout", "300", "--cases", "error-*", "--keep", kept,
        ]  # fmt: skip
        done = subprocess.run(
            argv, cwd=kpy.home, capture_output=True, text=True, check=False, timeout=900, **kpy.spawn()
        )  # type: ignore[call-overload]
        logs = sorted(kept.glob("*/log"))
        assert len(logs) > 60, done.stdout[-2000:] + done.stderr[-2000:]

        for log in logs:
            _check(log.parent.name, log.parent, log.read_text())

        classes = {json.loads((suite / "cases" / log.parent.name / "case.json").read_text())["error_class"] for log in logs}
        assert len(classes) >= 18, classes
