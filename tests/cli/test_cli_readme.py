"""The README says what the program says."""

import re
from pathlib import Path

import pytest

from kpy.cli.main import VERBS, main
from kpy.errors import KpyError

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_help_in_the_readme_is_the_programs(capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.findall(r"```\n\$ kpy (\w+) --help\n(.*?)\n```", README, re.DOTALL)
    assert [verb for verb, _ in shown] == ["doctor", "build"]
    for verb, text in shown:
        assert main([verb, "--help"]) == 0
        assert capsys.readouterr().out.rstrip("\n") == text


def test_the_verbs_and_files_that_the_readme_names_exist() -> None:
    assert set(re.findall(r"(?:^    |`)kpy ([a-z]+)[ `]", README, re.MULTILINE)) <= {*VERBS, "help", "VERB"}
    for path in re.findall(r"`(integration/[\w./-]+)`", README):
        assert (ROOT / path).exists(), path


def test_every_exit_code_is_in_the_readme() -> None:
    table = {
        int(number)
        for row in re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE)
        for number in row.split(",")
    }
    assert {kind.exit_code for kind in KpyError.__subclasses__()} - {1} <= table


def test_the_scripts_that_the_readme_calls_exist() -> None:
    for script in re.findall(r"^    (integration/\S+)$", README, re.MULTILINE):
        assert (ROOT / script).stat().st_mode & 0o111


def test_ci_runs_the_readmes_test_command() -> None:
    last = (ROOT / ".ci" / "run").read_text().rstrip().splitlines()[-1]
    assert f"    {last.removeprefix('exec ')}\n" in README
