"""`kpy explain`: a page for each check, whose examples are what they say."""

import re
from pathlib import Path

import pytest

from kpy.cli import explain
from kpy.cli.terminal import Terminal
from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.lint.checks import Checks, select
from kpy.dockerfile.lint.rules import RULES
from kpy.dockerfile.lint.text import check_file
from kpy.dockerfile.parser import parse
from kpy.errors import UsageError
from kpy.oci.platform import Platform
from kpy.plan.convert import convert
from kpy.plan.model import BaseImage, PlanOptions
from kpy.plan.notes import Notes
from tests.fakes import KnownImages

AMD64 = Platform("linux", "amd64")
PAGES = Path(explain.__file__).parents[1] / "rules"


class AnyImage(KnownImages):
    """Knows every name; `only-arm64` is for another platform."""

    def __call__(self, name: str, platform: Platform) -> BaseImage:
        found = self.add(name, platform=Platform("linux", "arm64") if "only-arm64" in name else platform)
        return BaseImage(name, found, found.manifest.descriptor.digest, other_platform="only-arm64" in name)


def found(text: str) -> set[str]:
    dockerfile, notes = parse(text.encode()), Notes()
    options = PlanOptions(build_platform=AMD64, every_stage=True, ignore=Ignore.of(["docs"]))
    error = None
    try:
        convert(dockerfile, options, AnyImage(), notes)
    except Exception as problem:  # the bad example of InvalidDefaultArgInFrom is an error as well
        error = problem
    given = Checks.parse(dockerfile.directives.check)
    checks = Checks(given.skip, frozenset({"all"}))
    names = {item.rule.name for item in select(dockerfile, given, [*check_file(dockerfile), *notes.findings])}
    names |= {item.rule.name for item in select(dockerfile, checks, [*check_file(dockerfile), *notes.findings])}
    assert error is None or names, error
    return names


@pytest.mark.parametrize("name", RULES)
def test_page(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["Why", "Bad", "Good"]
    bad, good = re.findall(r"```dockerfile\n(.*?)```", text, re.DOTALL)
    assert name in found(bad)
    assert name not in found(good)
    assert ("check=experimental=" in text) is RULES[name].experimental
    assert max(map(len, text.splitlines())) <= 120


def test_every_page_is_a_rules() -> None:
    assert {path.stem for path in PAGES.iterdir()} == set(RULES)


def test_one_page(terminal: Terminal) -> None:
    assert explain.run(["jsonargsrecommended"], terminal) == 0
    shown = terminal.stdout.getvalue().decode()  # type: ignore[attr-defined]
    assert shown == (PAGES / "JSONArgsRecommended.md").read_text()


def test_the_list(terminal: Terminal) -> None:
    assert explain.run([], terminal) == 0
    rows = terminal.stdout.getvalue().decode().splitlines()  # type: ignore[attr-defined]
    assert [row.split()[0] for row in rows] == list(RULES)
    assert [row.split()[0] for row in rows if row.split()[1] == "*"] == [
        "InvalidDefinitionDescription", "AptCacheLeft", "UnpinnedBase",
    ]  # fmt: skip


def test_a_name_that_is_none(terminal: Terminal) -> None:
    with pytest.raises(UsageError, match="no check is named 'JSONArgRecommended'") as caught:
        explain.run(["JSONArgRecommended"], terminal)
    assert caught.value.hint == 'did you mean "JSONArgsRecommended"?'
    with pytest.raises(UsageError, match="one check"):
        explain.run(["a", "b"], terminal)
