"""The build checks that depend on variables, images and .dockerignore (1.12), made while the build is planned."""

from typing import Any

import pytest

from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.lint.checks import Checks, select
from kpy.dockerfile.lint.rules import RULES, Finding
from kpy.dockerfile.parser import parse
from kpy.errors import KpyError
from kpy.oci.config import RuntimeConfig
from kpy.plan.convert import convert
from kpy.plan.model import PlanOptions
from kpy.plan.notes import Notes
from tests.fakes import KnownImages
from tests.plan.planning import AMD64, ARM64, base, planned

EVERY = Checks(experimental=frozenset({"all"}))
DIGEST = "sha256:" + "a" * 64


def found(text: str, images: KnownImages | None = None, **options: Any) -> tuple[Finding, ...]:
    options["build_args"] = tuple(options.get("build_args", {}).items())
    dockerfile, notes = parse(text.encode()), Notes()
    convert(dockerfile, PlanOptions(build_platform=AMD64, **options), images or base(), notes)
    return select(dockerfile, EVERY, notes.findings)


def broken(name: str, text: str, images: KnownImages | None = None, **options: Any) -> list[str]:
    assert name in RULES
    return [f"{item.span.first}: {item.detail}" for item in found(text, images, **options) if item.rule.name == name]


# --- FROM


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ARG VARIANT=e\nFROM bas$VARIENT$VARIANT", ["2: the variable VARIENT in FROM is not declared (did you mean VARIANT?)"]),
        ("FROM base${x}", ["1: the variable x in FROM is not declared"]),
        ("FROM base AS x\nFROM base$unused AS unused\nFROM x", ["2: the variable unused in FROM is not declared"]),
        ("ARG x\nFROM base$x", []),
        ("FROM --platform=${TARGETPLATFRM:-$TARGETPLATFORM}$TARGETPLATFRM base", ["1: the variable TARGETPLATFRM in FROM is not declared (did you mean TARGETPLATFORM?)"]),
        ("FROM ${x:-base}\nFROM base${y+}", []),
    ],
)  # fmt: skip
def test_undefined_arg_in_from(text: str, expected: list[str]) -> None:
    assert broken("UndefinedArgInFrom", text) == expected


@pytest.mark.parametrize(
    ("text", "given", "lines"),
    [
        ("ARG N\nFROM base AS x\nFROM $N", {"N": "base"}, ["3"]),
        ("ARG N\nFROM base AS x\nFROM ba$N", {"N": "se"}, []),
        ("ARG N=\nFROM base AS x\nFROM base:$N", {"N": "1"}, ["3"]),
        ("ARG N=base\nFROM $N", {}, []),
        ("ARG O=se\nARG N=ba$O\nFROM $N", {}, []),
        ("ARG O\nARG N=ba$O\nFROM base:${N#ba}", {"O": "1"}, ["3"]),
        ("FROM scratch", {}, []),
    ],
)
def test_invalid_default_arg_in_from(text: str, given: dict[str, str], lines: list[str]) -> None:
    images = base(**{"ba": RuntimeConfig(), "base:1": RuntimeConfig()})
    details = broken("InvalidDefaultArgInFrom", text, images, build_args=given)
    assert [line.partition(":")[0] for line in details] == lines


@pytest.mark.parametrize(
    ("flag", "redundant"),
    [
        ("$TARGETPLATFORM", True),
        ("${TARGETPLATFORM}", True),
        ("${TARGETPLATFORM:-linux/arm64}", True),
        ("$BUILDPLATFORM", False),
        ("$TARGETOS/$TARGETARCH", False),
        ("linux/amd64", False),
    ],
)
def test_redundant_target_platform(flag: str, redundant: bool) -> None:
    expected = [f"1: --platform={flag} is what FROM does anyway"] if redundant else []
    assert broken("RedundantTargetPlatform", f"FROM --platform={flag} base") == expected


@pytest.mark.parametrize(
    ("start", "is_found"),
    [
        ("--platform=linux/amd64 base", True),
        ("--platform=linux/amd64 base AS x", True),
        ("--platform=linux/amd64 base AS x-amd64", False),
        ("--platform=linux/amd64 base AS linux-x", False),
        ("--platform=$BUILDPLATFORM base", False),
        ("--platform=${unset:-linux/amd64} base", False),
        ("base", False),
    ],
)
def test_from_platform_flag_const_disallowed(start: str, is_found: bool) -> None:
    expected = ['1: --platform="linux/amd64" is a constant'] if is_found else []
    assert broken("FromPlatformFlagConstDisallowed", f"FROM {start}") == expected


def test_invalid_base_image_platform() -> None:
    class Other(KnownImages):
        def __call__(self, name: str, platform: Any) -> Any:
            from dataclasses import replace

            return replace(super().__call__(name, ARM64), other_platform=True)

    images = Other()
    images.add("base", RuntimeConfig(), platform=ARM64)
    expected = ["1: the image base is for linux/arm64, not for linux/amd64"]
    assert broken("InvalidBaseImagePlatform", "FROM base", images) == expected
    assert broken("InvalidBaseImagePlatform", "FROM base", base()) == []


def test_unpinned_base() -> None:
    text = f"FROM base AS x\nFROM base@{DIGEST}\nFROM x\nFROM scratch\nFROM named\nFROM other:1@{DIGEST}"
    images = base(**{"other": RuntimeConfig(), f"base@{DIGEST}": RuntimeConfig(), f"other:1@{DIGEST}": RuntimeConfig()})
    expected = ["1: base may be another image tomorrow: add its @sha256 digest"]
    assert broken("UnpinnedBase", text, images, contexts=(("named", "image", "base"),), target="x") == expected


# --- variables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ENV a=$b", ["2: the variable $b is not defined"]),
        ("ENV VERSION=1\nCOPY x-$VERSOIN /", ["3: the variable $VERSOIN is not defined (did you mean $VERSION?)"]),
        ("WORKDIR /$a\nUSER u$a\nVOLUME /v$a\nLABEL l=$a", [f"{n}: the variable $a is not defined" for n in (2, 3, 4, 5)]),
        ("STOPSIGNAL 9$a\nEXPOSE 80 $a\nADD --chown=$a x /", [f"{n}: the variable $a is not defined" for n in (2, 3, 4)]),
        ("ARG x=$a$a\nCOPY <<E /$a\n$b\nE", ["2: the variable $a is not defined", "3: the variable $a is not defined", "3: the variable $b is not defined"]),
        ("RUN --mount=type=cache,target=/c$a x", ["2: the variable $a is not defined"]),
        ("COPY <<'E' /f\n$b\nE", []),
        ("ARG a\nENV b=$a", []),
        ("ENV a=${b:-c} d=${b+x} e='$b' f=\\$b g=$PATH", []),
        ("RUN echo $a\nCMD echo $a\nENTRYPOINT echo $a\nHEALTHCHECK CMD echo $a\nSHELL [\"$a\"]", []),
        ("ONBUILD ENV a=$b", []),
        ("ARG TARGETARCH\nENV a=$TARGETARCH", []),
        ("ENV a=$TARGETARCH", ["2: the variable $TARGETARCH is not defined"]),
    ],
)  # fmt: skip
def test_undefined_var(text: str, expected: list[str]) -> None:
    assert broken("UndefinedVar", f"FROM base\n{text}") == expected


def test_a_global_argument_is_not_defined_in_a_stage_until_it_is_declared_there() -> None:
    assert broken("UndefinedVar", "ARG V=1\nFROM base\nENV a=$V") == ["3: the variable $V is not defined"]
    assert broken("UndefinedVar", "ARG V=1\nFROM base\nARG V\nENV a=$V") == []


def test_a_stage_has_the_variables_of_the_stage_it_is_built_from() -> None:
    assert broken("UndefinedVar", "FROM base AS a\nENV X=1\nARG Y\nFROM a\nENV b=$X$Y$Z") == [
        "5: the variable $Z is not defined"
    ]


def test_a_default_that_a_build_argument_replaces_is_not_expanded() -> None:
    assert broken("UndefinedVar", "FROM base\nARG a=$b") == ["2: the variable $b is not defined"]
    assert broken("UndefinedVar", "FROM base\nARG a=$b", build_args={"a": "1"}) == []


def test_triggers_of_a_base_are_not_this_files_fault() -> None:
    images = base(RuntimeConfig(onbuild=("ENV a=$b", "CMD echo", "WORKDIR x", "EXPOSE 80/TCP", "COPY .wh.x /")))
    names = {item.rule.name for item in found("FROM base", images)}
    assert names == {"UnpinnedBase"}


# --- instructions


def test_json_args_recommended() -> None:
    text = 'FROM base\nCMD echo\nentrypoint echo\nCMD ["echo"]\nHEALTHCHECK CMD echo\nRUN echo'
    shell = "is in shell form: a shell runs it, and does not pass signals on"
    assert broken("JSONArgsRecommended", text) == [f"2: CMD {shell}", f"3: entrypoint {shell}"]


@pytest.mark.parametrize(
    ("trigger", "problem"),
    [("COPPY a b", 'unknown instruction: COPPY (did you mean "COPY"?)'),
     ("COPY a", "COPY requires at least two arguments, but only one was provided"),
     ("RUN --mount=type=foo x", 'unsupported mount type "foo"'), ("SHELL x", "SHELL arguments must be in JSON form")],
)  # fmt: skip
def test_i07_a_trigger_that_will_fail_is_stored_and_said(trigger: str, problem: str) -> None:
    """As BuildKit, which says nothing."""
    text = f"FROM base\nONBUILD {trigger}\nONBUILD RUN fine"
    assert broken("BrokenTrigger", text) == [f"2: {trigger!r} will fail where it runs: {problem}"]
    assert planned(text).targets[0].runtime.onbuild == (trigger, "RUN fine")


def test_shell_form_is_meant_where_a_shell_is_set() -> None:
    assert broken("JSONArgsRecommended", 'FROM base\nSHELL ["/bin/bash", "-c"]\nCMD echo') == []
    assert broken("JSONArgsRecommended", "FROM base\nCMD echo", base(RuntimeConfig(shell=("/bin/ash",)))) == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("FROM base\nWORKDIR a\nWORKDIR b", [2]),
        ("FROM base\nWORKDIR /a\nWORKDIR b", []),
        ("FROM base\nENV d=/x\nWORKDIR $d/a", []),
        ("FROM base AS x\nWORKDIR /a\nFROM x\nWORKDIR b", []),
        ("FROM base AS x\nFROM x\nWORKDIR b", [3]),
        ("FROM base\nWORKDIR a\nFROM base\nWORKDIR b", [4]),  # the first stage is not needed
    ],
)
def test_workdir_relative_path(text: str, lines: list[int]) -> None:
    images = base(RuntimeConfig(workdir="/srv"))
    assert [item.span.first for item in found(text, images) if item.rule.name == "WorkdirRelativePath"] == lines


def test_expose() -> None:
    text = "FROM base\nARG P=81/Udp\nEXPOSE 80/TCP 80/tcp $P 127.0.0.1:82:83 84:85/tcp 86-87"
    assert broken("ExposeProtoCasing", text) == [
        '3: the protocol of "80/TCP" should be lower case',
        '3: the protocol of "81/Udp" should be lower case',
    ]
    mapped = "names an address or port of the host, which EXPOSE cannot set"
    assert broken("ExposeInvalidFormat", text) == [f'3: "127.0.0.1:82:83" {mapped}', f'3: "84:85/tcp" {mapped}']


@pytest.mark.parametrize(
    ("patterns", "text", "expected"),
    [
        (["docs"], "COPY docs /d", ['2: COPY of "docs", which .dockerignore excludes']),
        (["docs"], "ADD ./docs/a.md b /d/", ['2: ADD of "docs/a.md", which .dockerignore excludes']),
        (["*.md"], "ENV n=x\nCOPY $n.md /", ['3: COPY of "x.md", which .dockerignore excludes']),
        (["*"], "COPY /a /", ['2: COPY of "a", which .dockerignore excludes']),
        (["*", "!a"], "COPY b /", []),
        (["**"], "COPY . /\nADD https://example.com/x /y\nADD https://example.com/x.git /z\nCOPY --from=base /a /b", []),
        (["docs"], "COPY src /d", []),
        ([], "COPY docs /d", []),
    ],
)
def test_copy_ignored_file(patterns: list[str], text: str, expected: list[str]) -> None:
    assert broken("CopyIgnoredFile", f"FROM base\n{text}", ignore=Ignore.of(patterns)) == expected


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("FROM scratch\nCOPY --chown=app x /", True),
        ("FROM scratch\nWORKDIR /x\nADD --chown=0:app x /", True),
        ("FROM scratch\nCOPY --chown=1:2 x /", False),
        ("FROM scratch\nCOPY passwd /etc/passwd\nCOPY --chown=app x /", False),
        ("FROM base\nCOPY --chown=app x /", False),
    ],
)
def test_unknown_chown_user(text: str, is_found: bool) -> None:
    assert bool(broken("UnknownChownUser", text)) is is_found


# --- which stages


def test_stages_that_are_not_needed_are_checked_when_asked_for() -> None:
    text = "FROM base\nENV a b\nCMD echo\nFROM base\n"
    assert [item.rule.name for item in found(text)] == ["UnpinnedBase", "UnpinnedBase"]
    names = [item.rule.name for item in found(text, every_stage=True)]
    assert names == ["UnpinnedBase", "LegacyKeyValueFormat", "JSONArgsRecommended", "UnpinnedBase"]


def test_several_platforms_find_the_same_once() -> None:
    images = KnownImages()
    for platform in (AMD64, ARM64):
        images.add("base", RuntimeConfig(), platform=platform)
    names = [item.rule.name for item in found("FROM base\nCMD echo $x", images, platforms=(AMD64, ARM64))]
    assert names == ["UnpinnedBase", "JSONArgsRecommended"]


def test_what_was_found_before_an_error_is_kept() -> None:
    dockerfile, notes = parse(b"FROM base\nENV a=$b\nVOLUME $c\n"), Notes()
    with pytest.raises(KpyError):
        convert(dockerfile, PlanOptions(), base(), notes)
    names = [item.rule.name for item in select(dockerfile, Checks(), notes.findings)]
    assert names == ["UndefinedVar", "UndefinedVar"]
