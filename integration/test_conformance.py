"""The conformance suite: what kpy builds of each case is what BuildKit builds; and what a mistake looks like (issue 3, 6; P15):
every case that has to fail shows the file, the lines and an excerpt, and for a word that is nearly right the right one.

The suite stands beside the checkout, or where KPY_CONFORMANCE says. A clone without it has nothing to run here;
in CI it must be there.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from forked_kpy import forked
from people import Kpy, User
from servers import Registry

SUITE = Path(
    os.environ.get("KPY_CONFORMANCE") or Path(__file__).resolve().parents[2] / "shared" / "conformance"
)

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


@dataclass(frozen=True)
class Outcome:
    """Of one run of the suite: what it said, and a directory with what it kept of each case."""

    said: subprocess.CompletedProcess[str]
    kept: Path


if SUITE.is_dir() or os.environ.get("CI") == "true":

    @pytest.fixture(scope="module")
    def outcome(program: str, dev: User, registry: Registry, area: Path) -> Iterator[Outcome]:
        # A copy, because the user who runs it may not be able to enter the directory that the suite is in.
        suite = area / "conformance"
        shutil.copytree(SUITE, suite, symlinks=True)
        make = suite / "bases" / "make-bases"
        subprocess.run([make, "--push", registry.host], check=True, capture_output=True, timeout=600)
        home = area / "conformance-home"
        home.mkdir()
        os.chown(home, dev.uid, dev.gid)
        kept = home / "kept"
        spawn = Kpy(program, dev, home).spawn()
        with forked(home, spawn) as fast:
            command = [
                suite / "run", "--builder", "kpy", "--tool", f"kpy={fast}", "--registry", registry.host,
                "--jobs", "2", "--timeout", "300", "--keep", kept,
            ]  # fmt: skip
            done = subprocess.run(
                command, cwd=home, capture_output=True, text=True, check=False, timeout=3000, **spawn
            )  # type: ignore[call-overload]
        yield Outcome(done, kept)
        shutil.rmtree(home, ignore_errors=True)

    def test_all_cases(outcome: Outcome) -> None:
        done = outcome.said
        counts = re.findall(r"^(\d+) passed, (\d+) failed", done.stdout, re.MULTILINE)
        assert counts, done.stdout[-2000:] + done.stderr[-2000:]
        passed, failed = map(int, counts[-1])
        # The suite prints one line for a case and then what differs: show those of the cases that failed.
        assert failed == 0, done.stdout[-20_000:]
        assert passed > 300

    def test_every_error_shows_where_it_is(outcome: Outcome) -> None:
        logs = sorted(outcome.kept.glob("error-*/log"))
        assert len(logs) > 60, outcome.said.stdout[-2000:] + outcome.said.stderr[-2000:]

        for log in logs:
            _check(log.parent.name, log.parent, log.read_text())

        classes = {json.loads((SUITE / "cases" / log.parent.name / "case.json").read_text())["error_class"] for log in logs}
        assert len(classes) >= 18, classes
