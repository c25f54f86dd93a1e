"""What a Dockerfile offers: arguments, secrets and stages, with what comments say of them (--call)."""

from typing import Any

from kpy.dockerfile.parser import parse
from kpy.plan.model import PlanOptions
from kpy.plan.outline import Outline, outline, targets
from tests.plan.planning import AMD64


def outlined(text: str, **options: Any) -> Outline:
    options["build_args"] = tuple(options.get("build_args", {}).items())
    return outline(parse(text.encode()), PlanOptions(build_platform=AMD64, **options))


def arguments(text: str, **options: Any) -> list[tuple[str, str, str, int]]:
    return [(item.name, item.value, item.description, item.span.first) for item in outlined(text, **options).arguments]


def test_name_and_description_of_the_target() -> None:
    text = "# build compiles\nFROM a AS build\n\n# run is what ships\nFROM build AS run\n"
    assert (outlined(text).name, outlined(text).description) == ("run", "is what ships")
    assert outlined(text, target="build").description == "compiles"
    assert (outlined("FROM a\n").name, outlined("FROM a\n").description) == ("", "")


def test_arguments_of_the_stages_that_are_needed() -> None:
    text = (
        "# TAG of the base\nARG TAG=1\nARG UNUSED=x\n"
        "FROM a:$TAG AS one\n# OPT what to do\nARG OPT=fast\n"
        "FROM b AS two\nARG TWO\n"
        "FROM one\nCOPY --from=two /x /\nARG LAST=$OPT-z\n"
    )
    assert arguments(text) == [
        ("TAG", "1", "of the base", 2),
        ("OPT", "fast", "what to do", 6),
        ("TWO", "", "", 8),
        ("LAST", "fast-z", "", 11),
    ]
    assert [name for name, *_ in arguments(text, target="one")] == ["TAG", "OPT"]


def test_values_are_those_of_this_build() -> None:
    assert arguments("ARG A=1\nFROM x:$A\nARG A\nARG B\n", build_args={"A": "2", "B": "3"}) == [
        ("A", "2", "", 1),
        ("B", "3", "", 4),
    ]


def test_an_argument_that_only_a_default_uses() -> None:
    assert [name for name, *_ in arguments("ARG A=1\nARG B=x$A\nARG C=$A\nFROM x:$B\n")] == ["A", "B"]


def test_an_argument_that_is_declared_again_is_the_outer_one() -> None:
    assert arguments("ARG A=1\nFROM x\nARG A\nARG A=5\n") == [("A", "5", "", 4)]
    assert arguments("ARG A=1\nFROM x\nARG A\n") == [("A", "1", "", 1)]


def test_predefined_arguments_are_not_offered() -> None:
    assert arguments("FROM --platform=$BUILDPLATFORM x\nARG TARGETARCH\n") == []


def test_secrets_and_ssh() -> None:
    text = (
        "FROM a AS x\nRUN --mount=type=secret,id=one --mount=type=ssh y\nFROM b AS unused\nRUN --mount=type=secret,id=no z\n"
        "FROM a\nARG n=two\nCOPY --from=x /a /\nRUN --mount=type=secret,id=$n,required=true --mount=type=secret,id=one,required y\n"
    )
    found = outlined(text)
    assert [(item.name, item.required, item.span.first) for item in found.secrets] == [("one", True, 2), ("two", True, 8)]
    assert [(item.name, item.required, item.span.first) for item in found.ssh] == [("default", False, 2)]


def test_targets() -> None:
    text = "# build compiles\nFROM a AS build\nFROM --platform=$BUILDPLATFORM build\n# Release ships\nFROM b AS Release\n"
    assert [
        (item.name, item.index, item.is_default, item.description, item.base, item.platform, item.span.first)
        for item in targets(parse(text.encode()))
    ] == [
        ("build", 0, False, "compiles", "a", "", 2),
        ("", 1, False, "", "build", "$BUILDPLATFORM", 3),
        ("release", 2, True, "", "b", "", 5),
    ]
