"""The build checks that need nothing but the Dockerfile (1.12): what breaks each rule, and what does not."""

import pytest

from kpy.dockerfile.lint import rules
from kpy.dockerfile.lint.rules import RULES, Finding
from kpy.dockerfile.lint.text import check_file, check_stage
from kpy.dockerfile.parser import parse


def found(text: str) -> list[Finding]:
    dockerfile = parse(text.encode())
    return [*check_file(dockerfile), *(item for stage in dockerfile.stages for item in check_stage(stage))]


def lines(name: str, text: str) -> list[int]:
    return [item.span.first for item in found(text) if item.rule.name == name]


# name, Dockerfile, lines that break the rule
CASES = [
    ("StageNameCasing", "FROM a AS Build\nFROM a AS build-2", [1]),
    ("StageNameCasing", "FROM a AS build\nFROM b", []),
    ("FromAsCasing", "FROM a as x\nfrom a AS y\nFROM a AS z\nfrom a as w\nFROM a As v", [1, 2, 5]),
    ("FromAsCasing", "From a as x\nFROM a", []),  # ConsistentInstructionCasing's
    ("NoEmptyContinuation", "FROM a\nRUN x \\\n\n  y\nRUN z", [4]),
    ("NoEmptyContinuation", "FROM a\nRUN x \\\n\n\n# c\n  y \\\n  z\nRUN z", [7]),
    ("NoEmptyContinuation", "FROM a\nRUN x \\\n# only a comment\n  y\n\nRUN z", []),
    ("NoEmptyContinuation", "FROM a\nRUN <<E\n\nx \\\n\ny\nE\n", []),
    ("NoEmptyContinuation", "FROM a\nRUN <<E x \\\n\n  y\n\nE\n", [4]),
    ("NoEmptyContinuation", "# escape=`\nFROM a\nRUN x `\n\n  y\nRUN x \\\n", [5]),
    ("NoEmptyContinuation", "ARG A \\\n\n B\nFROM a", [3]),
    ("ConsistentInstructionCasing", "FROM a\nrun x\nRUN y\nRuN z", [2, 4]),
    ("ConsistentInstructionCasing", "from a\nrun x\nRUN y", [3]),
    ("ConsistentInstructionCasing", "from a\nRUN y", [1]),  # as many: upper case
    ("ConsistentInstructionCasing", "from a\nrun x", []),
    ("ConsistentInstructionCasing", "arg X=1\nFROM a\nRUN x", []),  # BuildKit counts stages only
    ("DuplicateStageName", "FROM a AS x\nFROM a AS y\nFROM b AS X", [3]),
    ("DuplicateStageName", "FROM a\nFROM a", []),
    ("ReservedStageName", "FROM a AS scratch\nFROM a AS Context\nFROM scratch AS x", [1, 2]),
    ("MaintainerDeprecated", "FROM a\nMAINTAINER me", [2]),
    ("MaintainerDeprecated", "FROM a\nLABEL org.opencontainers.image.authors=me", []),
    ("MultipleInstructionsDisallowed", 'FROM a\nCMD ["a"]\nCMD ["b"]\nCMD ["c"]', [2, 3]),
    ("MultipleInstructionsDisallowed", 'FROM a\nCMD ["a"]\nENTRYPOINT ["b"]\nHEALTHCHECK NONE', []),
    ("MultipleInstructionsDisallowed", 'FROM a\nENTRYPOINT ["a"]\nENTRYPOINT ["a"]\nHEALTHCHECK NONE\nHEALTHCHECK CMD x', [2, 4]),
    ("MultipleInstructionsDisallowed", 'FROM a\nCMD ["a"]\nFROM a\nCMD ["b"]', []),
    ("LegacyKeyValueFormat", "FROM a\nENV a b\nLABEL a b\nENV a=b\nLABEL a=b c=d", [2, 3]),
    ("SecretsUsedInArgOrEnv", "FROM a\nARG API_KEY\nENV DB_PASSWORD=x\nARG a b auth", [2, 3, 4]),
    ("SecretsUsedInArgOrEnv", "FROM a\nENV apikey=1 token=2 X_PASSWD=3 pword=4 my_secret_x=5 credentials=6", [2] * 6),
    ("SecretsUsedInArgOrEnv", "FROM a\nARG PUBLIC_KEY KEY_FILE TOKEN_VERSION monkey tokens AUTHOR KEYS", []),
    ("SecretsUsedInArgOrEnv", "ARG TOKEN\nFROM a", []),  # it is in no image
    ("InvalidDefinitionDescription", "# nonsense\nFROM a AS b\n# V is fine\nARG V=1\n# no\nARG W", [2, 6]),
    ("InvalidDefinitionDescription", "# b is good\nFROM a AS b\n# X and Y\nARG X Y\n# Y first\nARG X Y\n# Z\nARG X Y", [8]),
    ("InvalidDefinitionDescription", "# far away\n\nFROM a AS b\n# detached\n#\nARG V\n# no name\nFROM c", []),
    ("InvalidDefinitionDescription", "# syntax=x\nFROM a AS b\n# check=skip=all\nARG V", []),
    ("InvalidDefinitionDescription", "# a word\nARG G=1\nFROM a", [2]),
    ("JSONLookalike", "FROM a\nCMD ['a', 'b']\nENTRYPOINT [\"a\", 'b']\nRUN [\"a\", \"b\"", [2, 3, 4]),
    ("JSONLookalike", 'FROM a\nCMD ["a"] # why\nCMD ["a",]\nRUN [“a”, “b”]\nCMD [nginx]\nCMD [a, b]\nRUN [ "a" "b", "c" ]', [2, 3, 4, 5, 6, 7]),
    ("JSONLookalike", "FROM a\nCOPY ['a', 'b']\nADD [\"a\" \"b\"]\nVOLUME ['/v']\nHEALTHCHECK --interval=3s CMD ['x']", [2, 3, 4, 5]),
    ("JSONLookalike", "FROM a\nONBUILD RUN ['x']\nRUN --network=none ['x']\nLABEL a=['x']", [2, 3]),
    ("JSONLookalike", 'FROM a\nCMD ["a", "b"]\nRUN [ -f /x ]\nRUN [ "$a" = "b" ] && c\nRUN [ "$a" = b ]\nRUN [[ -n x ]]', []),
    ("JSONLookalike", "FROM a\nCOPY [abc].txt /d/\nCOPY [a-c] /d/\nCOPY [ab],[cd] [x]/\nCMD []\nHEALTHCHECK NONE\nENV a=[1]", []),
    ("WhiteoutName", "FROM a\nCOPY .wh.x /\nADD d/.wh..wh..opq /\nCOPY x /d/.wh.y\nCOPY <<.wh.z /d/\nx\n.wh.z\n", [2, 3, 4, 5]),
    ("WhiteoutName", "FROM a\nCOPY x.wh.y wh.z .wha .white /", []),
    ("AptCacheLeft", "FROM a\nRUN apt-get update && apt-get -y install x\nRUN apt install x\nRUN <<E\napt-get -qq -y update\nE\n", [2, 3, 4]),
    ("AptCacheLeft", "FROM a\nRUN apt-get update && rm -rf /var/lib/apt/lists/*\nRUN <<E\napt-get update\nrm -r /var/lib/apt/lists/*\nE\nRUN find x", []),
    ("AptCacheLeft", "FROM a\nRUN --mount=type=cache,target=/var/lib/apt apt-get update\nRUN --mount=type=tmpfs,target=/var/lib/apt/lists/ apt update", []),
    ("AptCacheLeft", "FROM a\nRUN --mount=type=cache,target=/var/cache/apt apt-get update\nRUN ls /var/lib/apt/lists; apt-get update", [2, 3]),
    ("AptCacheLeft", "FROM a\nRUN apt-cache search x\nRUN aptitude install\nRUN adapt update", []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), CASES)
def test_rule(name: str, text: str, expected: list[int]) -> None:
    assert name in RULES
    assert lines(name, text) == expected


def test_a_clean_file_has_no_findings() -> None:
    text = '# syntax=docker/dockerfile:1\nARG V=1\nFROM a:${V} AS b\nWORKDIR /x\nCOPY . .\nRUN make\nCMD ["./x"]\n'
    assert found(text) == []


def test_findings_tell_names_as_they_are_written() -> None:
    details = [item.detail for item in found('from a AS Xy\ncmd ["a"]\ncmd ["b"]\nenv a b\narg my_token\n')]
    assert details == [
        'the stage name "Xy" should be lower case',
        "from and AS are not in the same case",
        "another CMD in this stage follows, and only the last counts",
        'write "env key=value" instead of "env key value"',
        'ARG "my_token" looks like a secret: anybody who has the image can read it',
    ]


def test_one_line_for_a_build() -> None:
    (item,) = found("FROM a AS Xy")
    assert item.text == 'Dockerfile:1: StageNameCasing: the stage name "Xy" should be lower case'
    assert item.rule is rules.STAGE_NAME_CASING
    assert item.rule.help == "kpy explain StageNameCasing"


def test_buildkits_rules_are_all_there_and_ours() -> None:
    ours = {"JSONLookalike", "WhiteoutName", "UnknownChownUser", "BrokenTrigger", "UnknownCheck", "AptCacheLeft", "UnpinnedBase"}
    assert len(RULES.keys() - ours) == 22
    assert {rule.name for rule in RULES.values() if rule.experimental} == {
        "InvalidDefinitionDescription", "AptCacheLeft", "UnpinnedBase",
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "RUN " + "apt -x " * 30_000,
        "RUN " + "apt update; " * 10_000 + "rm " * 30_000,
        "CMD [" + "a ," * 60_000,
        "CMD ['" + "a' ,  " * 40_000,
        "CMD ['a'" + " " * 200_000 + "x",
        "ENV " + " ".join(f"TOKEN{n}_key=1" for n in range(20_000)),
    ],
)
def test_hostile_lines_take_no_time(line: str) -> None:
    found(f"FROM a\n{line}\n")
