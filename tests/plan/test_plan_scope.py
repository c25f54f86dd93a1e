"""ARG and ENV scoping (A01-A16), as the RUN environments, histories and configurations that come out of it."""

import pytest

from kpy.errors import DockerfileError
from kpy.oci.config import DEFAULT_PATH, RuntimeConfig
from kpy.oci.platform import Platform
from kpy.plan.model import CopyOp
from tests.plan.planning import ARM64, base, env_of, histories, planned, runs, target


def env(text: str, **options: object) -> dict[str, str]:
    """The environment of the last RUN."""
    return env_of(runs(text, **options)[-1])


def test_a01_global_args_need_a_declaration() -> None:
    assert env("ARG a=1\nFROM base\nRUN x") == {}
    assert env("ARG a=1\nFROM base\nARG a\nRUN x") == {"a": "1"}
    assert env("ARG a=1\nFROM base\nARG a=2\nRUN x") == {"a": "2"}
    assert env("ARG a=1\nFROM base\nARG a\nRUN x", build_args={"a": "3"}) == {"a": "3"}
    assert env("ARG a=1\nARG b=$a-2\nFROM base\nARG b\nRUN x", build_args={"a": "3"}) == {"b": "3-2"}


def test_a01_only_global_args_are_seen_by_from() -> None:
    images = base()
    images.add("base:2")
    planned("ARG t=2\nFROM base:$t", images)
    with pytest.raises(DockerfileError, match="should not be blank"):
        planned("FROM base\nARG name=base\nFROM $name", base())


def test_a02_several_in_one_instruction_see_the_earlier_ones() -> None:
    assert env("FROM base\nARG a=1 b=${a}2 c\nRUN x") == {"a": "1", "b": "12"}


def test_a03_a_stage_from_a_stage_inherits_but_a_copy_does_not() -> None:
    text = "FROM base AS one\nARG a=1\nRUN one\nFROM one\nRUN x"
    assert env(text) == {"a": "1"}
    assert histories(text)[-1] == "RUN |1 a=1 /bin/sh -c x # buildkit"
    assert env("FROM base AS one\nARG a=1\nRUN one\nFROM base\nCOPY --from=one / /\nRUN x") == {}


def test_a03_nothing_before_its_line() -> None:
    before, after = (env_of(run) for run in runs("FROM base\nRUN x\nARG a=1\nRUN y"))
    assert (before, after) == ({}, {"a": "1"})


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ("ARG a=arg\nENV a=env", "env"),
        ("ENV a=env\nARG a=arg", "arg"),
        ("ENV a=env\nARG a", "cli"),
        ("ARG a=arg\nENV a=$a-env", "cli-env"),
    ],
)
def test_a04_the_later_declaration_wins(lines: str, value: str) -> None:
    given = {"a": "cli"} if value.startswith("cli") else {}
    assert env(f"FROM base\n{lines}\nRUN x", build_args=given) == {"a": value}


def test_a04_an_env_hides_an_arg_from_the_command_line_too() -> None:
    assert env("FROM base\nARG a\nENV a=env\nRUN x", build_args={"a": "cli"}) == {"a": "env"}


def test_a04_an_arg_with_a_value_hides_the_env_of_the_base() -> None:
    images = base(RuntimeConfig(env=("PATH=/bin", "a=base")))
    (run,) = runs("FROM base\nARG a=arg\nRUN x", images)
    assert env_of(run) == {"a": "arg"}
    assert target("FROM base\nARG a=arg\nRUN x", images).runtime.env == ("PATH=/bin", "a=base")
    (run,) = runs("FROM base\nARG a\nRUN x", images)
    assert env_of(run) == {"a": "base"}, "an ARG without a value hides nothing"


def test_a06_what_nobody_declares_is_a_warning() -> None:
    plan = planned("ARG g\nFROM base\nARG s\nRUN x", build_args={"g": "1", "s": "2", "http_proxy": "p", "no": "3", "nope": "4", "BUILDKIT_X": "5", "TARGETARCH": "6", "SOURCE_DATE_EPOCH": "7"})
    assert [warning.message for warning in plan.warnings] == ["one or more build-args were not consumed: no, nope"]


def test_a07_without_a_value_it_is_not_set() -> None:
    text = "FROM base\nARG a\nRUN x"
    assert env(text) == {}
    assert histories(text) == ["ARG a", "RUN |1 a= /bin/sh -c x # buildkit"]
    assert env("FROM base\nARG a=\nRUN x") == {"a": ""}


def test_a04_in_the_next_stage_the_image_s_env_is_stronger_than_an_arg() -> None:
    """The later ARG wins in its own stage alone: the image of it, which the next one starts from, has ENV only."""
    (here, there) = runs("FROM base AS one\nENV a=env\nARG a=arg\nRUN x\nFROM one\nRUN y")
    assert env_of(here)["a"] == "arg"
    assert env_of(there)["a"] == "env"
    assert histories("FROM base AS one\nENV a=env\nARG a=arg\nFROM one\nRUN y")[-1] == "RUN |1 a=env /bin/sh -c y # buildkit"


def test_a08_proxies_are_given_but_in_no_history() -> None:
    (run,) = runs("FROM base\nRUN x", build_args={"HTTP_PROXY": "http://p"})
    assert run.proxies == ("HTTP_PROXY=http://p", "http_proxy=http://p")
    assert env_of(run) == {}
    assert histories("FROM base\nRUN x", build_args={"HTTP_PROXY": "http://p"}) == ["RUN /bin/sh -c x # buildkit"]


def test_a08_a_declared_proxy_is_an_argument_too() -> None:
    (run,) = runs("FROM base\nARG http_proxy\nRUN x", build_args={"http_proxy": "http://p"})
    assert env_of(run) == {"http_proxy": "http://p"}
    assert run.proxies == ("HTTP_PROXY=http://p", "http_proxy=http://p")
    assert histories("FROM base\nARG no_proxy\nRUN x", build_args={"no_proxy": "h"})[1].startswith("RUN |1 no_proxy=h ")


def test_a08_the_build_s_proxy_is_stronger_than_a_default() -> None:
    (run,) = runs("FROM base\nARG http_proxy=x\nRUN x", build_args={"HTTP_PROXY": "http://p"})
    assert run.proxies == ("HTTP_PROXY=http://p", "http_proxy=http://p")


def test_a08_an_empty_proxy_is_none() -> None:
    (run,) = runs("FROM base\nRUN x", build_args={"HTTP_PROXY": "", "no_proxy": "h"})
    assert run.proxies == ("NO_PROXY=h", "no_proxy=h")


def test_a09_platform_arguments() -> None:
    names = "TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM BUILDARCH TARGETSTAGE"
    text = f"FROM --platform=$BUILDPLATFORM base AS app\nARG {names}\nRUN x"
    assert env(text, platforms=(Platform("linux", "arm", "v7"),), target="app") == {
        "TARGETPLATFORM": "linux/arm/v7", "TARGETOS": "linux", "TARGETARCH": "arm", "TARGETVARIANT": "v7",
        "BUILDPLATFORM": "linux/amd64", "BUILDARCH": "amd64", "TARGETSTAGE": "app",
    }  # fmt: skip
    assert env("FROM base\nRUN x") == {}, "in a stage they need a declaration"
    assert env("FROM base\nARG TARGETARCH\nRUN x", build_args={"TARGETARCH": "mine"}) == {"TARGETARCH": "mine"}
    assert env("FROM base\nARG TARGETSTAGE\nRUN x") == {"TARGETSTAGE": "default"}
    assert env("FROM base AS last\nARG TARGETSTAGE\nRUN x") == {"TARGETSTAGE": "last"}, "the target without --target"


def test_a10_arguments_for_the_builder_are_not_for_run() -> None:
    assert env("FROM base\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN x") == {}


def test_a11_args_never_reach_the_configuration() -> None:
    assert target("FROM base\nARG a=1\nENV b=$a").runtime.env == ("PATH=/bin", "b=1")


def test_a12_an_arg_is_in_the_step_of_run_but_not_in_that_of_copy() -> None:
    def ids(value: str) -> tuple[str, str]:
        plan = planned("FROM base\nARG v\nCOPY a b\nRUN make", build_args={"v": value})
        copy, run = (step for step in plan.steps if step.inputs)
        assert isinstance(copy.op, CopyOp)
        return copy.id, run.id

    one, two = ids("1"), ids("2")
    assert one[0] == two[0]
    assert one[1] != two[1]


def test_a13_history_has_the_values_that_run_sees() -> None:
    text = "FROM base\nARG a=1 b=2\nENV a=env\nRUN [\"make\", \"x y\"]"
    assert histories(text) == ["ARG a=1 b=2", "ENV a=env", "RUN |2 a=env b=2 make x y # buildkit"]


def test_a13_an_argument_declared_twice_is_shown_once() -> None:
    assert histories("FROM base\nARG a=1\nARG a=2\nRUN x")[-1] == "RUN |1 a=2 /bin/sh -c x # buildkit"


def test_a14_forms_of_env() -> None:
    assert target('FROM base\nENV a=1 b="x y" c=\\ z\nENV d  e  f').runtime.env == ("PATH=/bin", "a=1", "b=x y", "c= z", "d=e  f")


def test_a15_every_image_has_a_path() -> None:
    for text in ("FROM scratch", "FROM base"):
        assert f"PATH={DEFAULT_PATH}" in target(text, base(RuntimeConfig())).runtime.env
    assert env_of(runs("FROM base\nRUN x", base(RuntimeConfig()))[0]) == {}
    assert runs("FROM base\nRUN x", base(RuntimeConfig()))[0].env == (f"PATH={DEFAULT_PATH}",)
    assert target("FROM base", base(RuntimeConfig(env=("PATH=",)))).runtime.env == ("PATH=",), "empty is set"


def test_x10_an_instruction_sees_the_environment_before_it() -> None:
    found = target("FROM base\nENV a=1\nENV a=2 b=$a\nLABEL l=$a")
    assert found.runtime.env == ("PATH=/bin", "a=2", "b=1")
    assert found.runtime.labels == {"l": "2"}


def test_x10_expansions_of_one_instruction_do_not_see_each_other() -> None:
    assert target("FROM base\nENV a=1 b=$a").runtime.env == ("PATH=/bin", "a=1", "b=")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ENV a=\"${b:?must be there}\"", "must be there"),
        ("USER ${", "failed to process"),
    ],
)
def test_mistakes_have_a_place(line: str, words: str) -> None:
    with pytest.raises(DockerfileError, match=words) as caught:
        planned(f"FROM base\nENV ok=1\n{line}")
    assert caught.value.first_line == 3
    assert ">>> " + line in caught.value.excerpt


def test_mistakes_in_global_arguments_have_a_place() -> None:
    with pytest.raises(DockerfileError, match="no value") as caught:
        planned('ARG a="${b:?no value}"\nFROM base')
    assert caught.value.first_line == 1


def test_f06_platform_of_from_may_use_arguments() -> None:
    images = base()
    images.add("base", platform=ARM64)
    assert target("ARG arch=arm64\nFROM --platform=linux/$arch base", images).platform == ARM64
