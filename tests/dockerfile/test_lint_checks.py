"""`# check=` (P04): at the top, above an instruction, given with the build."""

import time

import pytest

from kpy.dockerfile.comments import description
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.lint.checks import Checks, checks_of, select
from kpy.dockerfile.lint.text import check_file, check_stage
from kpy.dockerfile.model import Dockerfile
from kpy.dockerfile.parser import parse, parse_onbuild
from kpy.errors import DockerfileError


def chosen(text: str, given: str | None = None) -> list[str]:
    dockerfile = parse(text.encode())
    found = [*check_file(dockerfile), *(item for stage in dockerfile.stages for item in check_stage(stage))]
    return [f"{item.span.first} {item.rule.name}" for item in select(dockerfile, checks_of(dockerfile, given), found)]


def wanted(*skip: str, experimental: tuple[str, ...] = (), error: bool = False) -> Checks:
    return Checks(frozenset(skip), frozenset(experimental), error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", wanted()),
        ("  ", wanted()),
        ("skip=A", wanted("A")),
        (" skip = A , B ", wanted("A", "B")),
        ("skip=all;error=true", wanted("all", error=True)),
        ("error=1;skip=A", wanted("A", error=True)),
        ("error=F", wanted()),
        ("experimental=X,Y;skip=A", wanted("A", experimental=("X", "Y"))),
        ("skip=all;error=false;experimental=all", wanted("all", experimental=("all",))),
        ("skip=A,B // because, really", wanted("A", "B")),
    ],
)
def test_directive(text: str, expected: Checks) -> None:
    assert Checks.parse(text) == expected


@pytest.mark.parametrize("text", ["A", "skip", "skipp=A", "error=yes", "error=", "skip=A;x=y", "skip=A;"])
def test_bad_directive(text: str) -> None:
    with pytest.raises(FormError, match="invalid check option"):
        Checks.parse(text)


def test_bad_directive_names_its_line_and_what_is_near() -> None:
    dockerfile = parse(b"# syntax=x\n# check=skpi=A\nFROM a\n")
    with pytest.raises(DockerfileError) as caught:
        checks_of(dockerfile, None)
    assert (caught.value.first_line, caught.value.hint) == (2, 'did you mean "skip"?')


BAD = "FROM a AS B\nMAINTAINER x\nENV a b\n"


@pytest.mark.parametrize(
    ("directive", "expected"),
    [
        ("", ["1 StageNameCasing", "2 MaintainerDeprecated", "3 LegacyKeyValueFormat"]),
        ("# check=skip=StageNameCasing, LegacyKeyValueFormat\n", ["3 MaintainerDeprecated"]),
        ("# check=skip=all\n", []),
        ("# check=skip=all;error=true\n", []),
        ("# check=experimental=all;skip=all\n", []),
    ],
)
def test_skip(directive: str, expected: list[str]) -> None:
    assert chosen(directive + BAD) == expected


def test_what_the_build_is_given_stands_for_the_directive() -> None:
    text = "# check=skip=all\n" + BAD
    assert chosen(text, "skip=StageNameCasing,Whatever") == ["3 MaintainerDeprecated", "4 LegacyKeyValueFormat"]
    assert len(chosen(text, "")) == 3


def test_an_experimental_check_runs_when_asked_for_whatever_is_skipped() -> None:
    text = "\n# words\nFROM a AS b\nRUN apt-get update\n"
    assert chosen(text) == []
    assert chosen("# check=experimental=AptCacheLeft;skip=all\n" + text) == ["5 AptCacheLeft"]
    assert chosen(text, "experimental=all") == ["3 InvalidDefinitionDescription", "4 AptCacheLeft"]
    assert chosen(text, "skip=AptCacheLeft;experimental=all") == ["3 InvalidDefinitionDescription", "4 AptCacheLeft"]


def test_skip_above_an_instruction_is_for_that_instruction() -> None:
    text = (
        "FROM a\n"
        "# check=skip=LegacyKeyValueFormat\nENV a b\n"
        "ENV c d\n"
        "# a reason\n# check=skip=LegacyKeyValueFormat,SecretsUsedInArgOrEnv\n# more reasons\nENV key d\n"
        "#check=skip=all\nENV token d\n"
        "# check=skip=LegacyKeyValueFormat\n\nENV e f\n"
        "# check=skip=MaintainerDeprecated\nENV g h\n"
        "# check=the value\nENV i j\n"
    )
    assert chosen(text) == [f"{line} LegacyKeyValueFormat" for line in (4, 13, 15, 17)]


def test_skip_above_covers_what_is_found_in_later_lines_of_the_instruction() -> None:
    assert chosen("FROM a\n# check=skip=NoEmptyContinuation\nRUN a \\\n\n b\nRUN a \\\n\n b\n") == ["8 NoEmptyContinuation"]


def test_experimental_above_an_instruction() -> None:
    text = "FROM a\n# check=experimental=AptCacheLeft\nRUN apt-get update\nRUN apt-get update\n"
    assert chosen(text) == ["3 AptCacheLeft"]
    skipped = "FROM a\n# check=skip=AptCacheLeft\nRUN apt-get update\nRUN apt-get update\n"
    assert chosen(skipped, "experimental=all") == ["4 AptCacheLeft"]


def test_unknown_names_in_the_directive_are_found() -> None:
    assert chosen("# check=skip=MaintainerDeprecatd,JSONArgsRecommended\nFROM a\n") == ["1 UnknownCheck"]
    assert chosen("# check=skip=Nonsense,UnknownCheck\nFROM a\n") == []
    assert chosen("FROM a\n", "skip=OfAnotherTool") == []


def test_each_once_in_the_order_of_the_file() -> None:
    dockerfile = parse(BAD.encode())
    found = [*check_stage(dockerfile.stages[0]), *check_file(dockerfile)] * 2
    assert [item.span.first for item in select(dockerfile, Checks(), found)] == [1, 2, 3]


def test_findings_in_other_files_are_dropped() -> None:
    dockerfile = parse(b"FROM a\n")
    trigger = parse_onbuild("ENV a b", name="ONBUILD of a")
    stage = Dockerfile(dockerfile.source, dockerfile.directives, (), ()).stages
    assert stage == ()
    from kpy.dockerfile.lint.rules import LEGACY_KEY_VALUE_FORMAT

    assert select(dockerfile, Checks(), [LEGACY_KEY_VALUE_FORMAT.found("x", trigger.span)]) == ()


def test_many_findings_below_many_comments_take_no_time() -> None:
    comments = "# x\n" * 5_000
    body = "".join(f"ENV {' '.join(f'k{n}_token{m}_key=1' for m in range(30))}\n{comments[:400]}" for n in range(300))
    begin = time.monotonic()
    chosen(f"FROM a\n{comments}{body}")
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# x makes it\nFROM a AS x", "makes it"),
        ("# x one\n# x two\nFROM a AS x", "one"),
        ("# other\n# x one\n# more\nFROM a AS x", "one"),
        ("# x makes it\n\nFROM a AS x", ""),
        ("# xy makes it\nFROM a AS x", ""),
        ("#x makes it\n# check=skip=A\nFROM a AS x", "makes it"),
        ("FROM a AS x", ""),
    ],
)
def test_description(text: str, expected: str) -> None:
    dockerfile = parse(text.encode())
    assert description(dockerfile.source, dockerfile.stages[0].start.span.first, "x") == expected
