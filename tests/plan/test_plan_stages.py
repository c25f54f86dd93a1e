"""Stages: what FROM, --from and --target mean, and what is left out (F01-F15, C18, I07)."""

import pytest

from kpy.dockerfile.parser import parse
from kpy.errors import DockerfileError, ImageNotFoundError, KpyError, UsageError
from kpy.oci.config import RuntimeConfig
from kpy.oci.platform import Platform
from kpy.plan.convert import convert
from kpy.plan.model import ContextOp, ImageOp, PlanOptions, RunOp, ScratchOp
from kpy.plan.notes import Notes
from tests.fakes import KnownImages
from tests.plan.planning import AMD64, ARM64, base, copies, histories, planned, runs, steps_of, target


def test_f02_scratch() -> None:
    found = target("FROM scratch\nCOPY a /", platforms=(ARM64,))
    assert found.platform == ARM64
    assert found.base.diff_ids == ()
    assert not steps_of(planned("FROM scratch\nCOPY a /"), ImageOp)


def test_f02_an_image_without_layers_is_scratch() -> None:
    images = KnownImages()
    image = images.add("empty", RuntimeConfig(env=("A=1",)), ())
    assert image.config.diff_ids, "one empty layer is a layer"
    assert steps_of(planned("FROM empty", images), ImageOp)
    import dataclasses

    bare = dataclasses.replace(image, config=dataclasses.replace(image.config, diff_ids=(), history=()), chain=())
    images.images["empty"][AMD64] = bare
    plan = planned("FROM empty", images)
    assert not steps_of(plan, ImageOp)
    assert "A=1" in plan.targets[0].runtime.env


def test_f03_the_last_of_one_name_wins_and_case_does_not_count() -> None:
    text = "FROM base AS X\nRUN one\nFROM base AS x\nRUN two\nFROM scratch\nCOPY --from=X / /"
    assert [run.argv[-1] for run in runs(text)] == ["two"]


def test_f04_a_stage_inherits_configuration_history_and_author() -> None:
    text = 'FROM base AS one\nMAINTAINER me\nCMD ["one"]\nRUN one\nFROM one\nENV a=b'
    found = target(text)
    assert (found.runtime.cmd, found.author) == (("one",), "me")
    assert histories(text) == ["MAINTAINER me", 'CMD ["one"]', "RUN /bin/sh -c one # buildkit", "ENV a=b"]


def test_f02_scratch_is_for_the_target_whatever_the_from_says() -> None:
    found = target("FROM --platform=linux/arm64 scratch\nCOPY a /", platforms=(AMD64,))
    assert found.platform == AMD64


def test_f03_from_takes_an_earlier_stage_of_the_name_and_copy_the_last() -> None:
    text = "FROM base AS a\nRUN one\nFROM a AS b\nRUN two\nFROM base AS a\nRUN three\nFROM base\nCOPY --from=b / /\nCOPY --from=a / /"
    assert sorted(run.argv[-1] for run in runs(text)) == ["one", "three", "two"]


@pytest.mark.parametrize("number", ["+1", "01", "1"])
def test_f05_numbers_as_go_reads_them(number: str) -> None:
    assert [run.argv[-1] for run in runs(f"FROM base\nFROM base\nRUN one\nFROM scratch\nCOPY --from={number} / /")] == ["one"]


def test_f05_numbers_are_earlier_stages() -> None:
    assert [run.argv[-1] for run in runs("FROM base\nRUN zero\nFROM base\nRUN one\nFROM scratch\nCOPY --from=1 / /")] == ["one"]


@pytest.mark.parametrize(
    ("text", "line", "words", "hint"),
    [
        ("FROM base\nCOPY --from=3 / /", 2, "invalid stage index 3", "0 to 0"),
        ("FROM base\nCOPY --from=1 / /\nFROM base\nFROM base\nCOPY --from=0 / /", 2, "cannot use stage 1", ""),
        ("FROM base\nCOPY --from=late / /\nFROM base AS late\nFROM base\nCOPY --from=0 / /", 2, 'from stage "late"', "move the stage up"),
        ("FROM base AS a\nCOPY --from=a / /", 2, "circular dependency detected on stage: a", ""),
        ("FROM base\nCOPY --from=0 / /", 2, "circular dependency detected on stage: stage-0", ""),
        ("FROM base AS a\nRUN --mount=from=a,target=/x y", 2, "circular dependency", ""),
        ("FROM base\nFROM base\nRUN --mount=from=0,target=/x y", 3, "from=0 of --mount: no stage", "FROM … AS NAME"),
        ("FROM base\nCOPY --from=-1 / /", 2, "invalid stage index -1", "0 to 0"),
        ("FROM base AS a\nFROM A", 2, "invalid reference 'A'", "write a"),
        ("FROM base AS a\nFROM base AS b\nCOPY --from=a / /\nFROM base AS a\nFROM b", 3, 'from stage "a", it needs to be defined', "move the stage up"),
        # in stages that are not needed
        ("FROM base\nCOPY --from=7 / /\nFROM base", 2, "invalid stage index 7", "0 to 1"),
        ("FROM base\nCOPY --from=Upper / /\nFROM base", 2, "invalid reference 'Upper'", ""),
        ("FROM Upper\nFROM base", 1, "invalid reference 'Upper'", ""),
        ("FROM --platform=x/y/z/q base\nFROM base", 1, "failed to parse platform", ""),
        ("FROM base AS a\nCOPY --from=a / /\nFROM base", 2, "circular dependency detected on stage: a", ""),
        ("FROM base AS a\nCOPY --from=b / /\nFROM a AS b\nFROM base", 3, "circular dependency detected on stage: a", ""),
        ("ARG i\nFROM $i", 2, r"\(\$i\) should not be blank", "i has no value"),
        ('FROM ""', 1, "should not be blank", ""),
        ("FROM --platform=$nothing base", 1, "empty platform value", ""),
        ("FROM --platform=nonsense base", 1, "failed to parse platform nonsense", "os/arch"),
        ("FROM UPPER", 1, "invalid repository name", "lower case"),
        ("FROM base\nCOPY --from=$x / /", 2, "the argument x is not set", "those of ARG"),
        ("FROM base\nFROM $nothing\nFROM base", 2, "should not be blank", "nothing has no value"),
    ],
)
def test_mistakes(text: str, line: int, words: str, hint: str) -> None:
    with pytest.raises(DockerfileError, match=words) as caught:
        planned(text)
    assert caught.value.first_line == line
    assert hint in caught.value.hint
    assert caught.value.excerpt


@pytest.mark.parametrize(
    ("lines", "source"),
    [
        ("ARG v=one\n{}FROM base\nCOPY --from=$v /a /a", "one"),
        ("ARG v=one\n{}FROM base\nARG v\nCOPY --from=${{v}} /a /a", "one"),
        ("ARG v=zero\n{}FROM base\nARG v=one\nCOPY --from=$v /a /a", "one"),
        ("{}FROM base\nARG v=on\nCOPY --from=${{v}}e /a /a", "one"),
        ("{}FROM base\nCOPY --from=${{v:-one}} /a /a", "one"),
        ("{}FROM base\nARG v=0\nCOPY --from=$v /a /a", "one"),
        ("{}FROM base\nARG v=one\nENV v=two\nCOPY --from=$v /a /a", "two"),
        ("{}FROM base\nCOPY --from=for-$TARGETARCH /a /a", "for-amd64"),
    ],
)
def test_x12_from_may_name_arguments(lines: str, source: str) -> None:
    stages = "".join(f"FROM base AS {name}\nRUN {name}\n" for name in ("one", "two", "for-amd64"))
    assert [run.argv[-1] for run in runs(lines.format(stages))] == [source], "and no other stage is built"


@pytest.mark.parametrize(
    ("lines", "words", "hint"),
    [
        ("FROM base\nENV v=base\nCOPY --from=$v /a /a", "the argument v is not set", "those of ARG"),
        ("FROM base\nARG v\nCOPY --from=$v /a /a", "the argument v is not set", "those of ARG"),
        ("FROM base\nARG version=base\nCOPY --from=$verison /a /a", "the argument verison is not set", 'did you mean "version"'),
        ("FROM base\nCOPY --from=${v:-} /a /a", "it is empty", "those of ARG"),
        ("FROM base\nARG v=base\nCOPY --from=${v:=x} /a /a", "unsupported modifier", ""),
    ],
)
def test_x12_arguments_that_name_nothing(lines: str, words: str, hint: str) -> None:
    with pytest.raises(DockerfileError, match=words) as caught:
        planned(lines)
    assert hint in caught.value.hint
    assert caught.value.first_line == lines.count("\n") + 1


def test_x12_the_command_line_wins() -> None:
    text = "FROM base AS one\nRUN one\nFROM base AS two\nRUN two\nFROM base\nARG v=one\nCOPY --from=$v /a /a"
    assert [run.argv[-1] for run in runs(text, build_args={"v": "two"})] == ["two"]


def test_f12_contexts_make_no_circle() -> None:
    """A named context is an image, a directory, a URL: never a stage, not even the one that asks for it."""
    text = "FROM base AS a\nCOPY --from=b / /\nFROM base AS b\nCOPY --from=a / /\n"
    with pytest.raises(DockerfileError, match="circular dependency detected on stage: a"):
        planned(text, target="a")
    plan = planned(text, target="b", contexts=(("a", "image", "base"),))
    assert [step.name for step in plan.steps if "COPY" in step.name] == ["[b 2/2] COPY --from=a / /"]
    assert planned("FROM a AS a\n", base(a=RuntimeConfig())).targets[0].stage == "a", "FROM of its own name is an image"
    assert planned("FROM a AS a\n", contexts=(("a", "image", "base"),)).targets[0].stage == "a"


def test_an_unknown_stage_is_an_image_that_is_not_there_with_a_suggestion() -> None:
    with pytest.raises(ImageNotFoundError, match="bulider: not found") as caught:
        planned("FROM base AS builder\nRUN x\nFROM base\nCOPY --from=bulider / /")
    assert caught.value.hint == 'did you mean "builder"?'


@pytest.mark.parametrize("name", ["²", "٣", "9" * 5000, "1" * 20])
def test_odd_numbers_are_names(name: str) -> None:
    with pytest.raises(KpyError):
        planned(f"FROM base\nCOPY --from={name} / /")
    with pytest.raises(UsageError, match="could not be found"):
        planned("FROM base", target=name)


def test_f06_f07_platforms() -> None:
    images = base()
    images.add("base", platform=ARM64)
    planned("FROM base\nFROM --platform=$BUILDPLATFORM base AS b\nFROM base\nCOPY --from=b / /", images, platforms=(ARM64,))
    assert images.asked == [("base", "linux/arm64"), ("base", "linux/amd64")]


def test_f07_another_platform_is_a_warning() -> None:
    notes = Notes()
    plan = convert(parse(b"FROM base"), PlanOptions(platforms=(ARM64,)), base(), notes)
    assert any("the image base is for linux/amd64, not for linux/arm64" in str(item) for item in notes.findings)
    assert plan.targets[0].platform == AMD64


def test_f08_contexts_stand_before_stages_and_images() -> None:
    images = base()
    images.add("mirror/base")
    plan = planned(
        "FROM base AS dep\nRUN no\nFROM BASE\nCOPY --from=Dep / /", images,
        contexts=(("base", "image", "mirror/base"), ("dep", "local", "")),
    )  # fmt: skip
    assert images.asked == [("mirror/base", "linux/amd64")]
    assert not steps_of(plan, RunOp)
    assert [step.op for step in steps_of(plan, ContextOp)] == [ContextOp("dep")]


def test_f08_a_directory_as_base_is_copied_onto_nothing() -> None:
    plan = planned("FROM src\nRUN x", contexts=(("src", "local", ""),))
    assert sorted(type(step.op).__name__ for step in plan.steps) == ["ContextOp", "CopyOp", "RunOp", "ScratchOp"]
    assert [item.empty_layer for item in plan.targets[0].history] == [False, False]


def test_f08_a_context_stands_for_a_whole_stage() -> None:
    plan = planned("FROM base AS dep\nRUN no\nFROM dep AS dep2\nRUN yes", contexts=(("dep", "image", "base"),))
    assert [step.name for step in steps_of(plan, RunOp)] == ["[dep2 2/2] RUN yes"]


def test_c07_owners_stay_from_stages_and_images_only() -> None:
    found = copies("FROM base AS a\nRUN x\nFROM base\nCOPY x /\nCOPY --from=a x /\nCOPY --from=dir x /", contexts=(("dir", "local", ""),))
    assert [op.keep_owner for op in found] == [False, True, False]


def test_f09_what_the_target_does_not_need_is_left_out() -> None:
    images = base()
    plan = planned("FROM missing AS never\nRUN never\nFROM base AS app\nRUN app\nFROM app\nRUN last", images, target="app")
    assert [step.name for step in steps_of(plan, RunOp)] == ["[app 2/2] RUN app"]
    assert images.asked == [("base", "linux/amd64")]


@pytest.mark.parametrize(("name", "stage"), [("", "c"), ("a", "a"), ("B", "b"), ("1", "b"), ("0", "a")])
def test_f10_targets(name: str, stage: str) -> None:
    assert target("FROM base AS a\nFROM base AS b\nFROM base AS c", target=name).stage == stage


def test_f10_a_name_that_is_a_number_is_a_name() -> None:
    with pytest.raises(UsageError) as caught:
        planned("FROM base AS builder\nFROM base", target="biulder")
    assert caught.value.hint == 'did you mean "builder"?'
    with pytest.raises(UsageError) as caught:
        planned("FROM base", target="7")
    assert caught.value.hint == "no stage of this Dockerfile has a name"


def test_f13_one_step_for_what_is_the_same_on_all_platforms() -> None:
    images = base()
    images.add("base", platform=ARM64)
    text = "FROM --platform=$BUILDPLATFORM base AS b\nRUN build\nFROM base\nCOPY --from=b / /\nRUN native"
    plan = planned(text, images, platforms=(AMD64, ARM64))
    assert [step.op.argv[-1] for step in steps_of(plan, RunOp) if isinstance(step.op, RunOp)] == ["build", "native", "native"]
    assert [item.platform for item in plan.targets] == [AMD64, ARM64]


def test_f14_one_step_for_one_image() -> None:
    assert len(steps_of(planned("FROM base AS a\nFROM base\nCOPY --from=a / /\nCOPY --from=base / /"), ImageOp)) == 1


def test_inputs_come_first() -> None:
    plan = planned("FROM base AS a\nRUN a\nFROM base AS b\nRUN --mount=from=a,target=/m b\nFROM a\nCOPY --from=b / /\nCOPY . /")
    seen: set[str] = set()
    for step in plan.steps:
        assert set(step.inputs) <= seen
        seen.add(step.id)


def test_the_same_dockerfile_gives_the_same_ids() -> None:
    text = "FROM base\nARG a=1\nENV b=2\nRUN x\nCOPY <<EOF /f\nbody\nEOF"
    assert [step.id for step in planned(text).steps] == [step.id for step in planned(text).steps]


def test_i07_triggers_run_in_order_right_after_from() -> None:
    images = base(RuntimeConfig(env=("PATH=/bin",), onbuild=("ENV a=1", "RUN one $a", "LABEL l=$a")))
    found = target("FROM base\nRUN two", images)
    assert histories("FROM base\nRUN two", images) == ["ENV a=1", "RUN /bin/sh -c one $a # buildkit", "LABEL l=1", "RUN /bin/sh -c two # buildkit"]
    assert found.runtime.onbuild == ()
    assert [step.name for step in steps_of(planned("FROM base\nRUN two", images), RunOp)] == ["[2/3] RUN one $a", "[3/3] RUN two"]


def test_i07_triggers_of_a_stage_run_once_in_its_child() -> None:
    text = "FROM base AS a\nONBUILD RUN trigger\nFROM a AS b\nFROM b\nRUN last"
    assert [run.argv[-1] for run in runs(text)] == ["trigger", "last"]
    assert target("FROM base\nONBUILD RUN x\nONBUILD COPY . .").runtime.onbuild == ("RUN x", "COPY . .")
    assert histories("FROM base\nONBUILD RUN x") == [], "as BuildKit"


def test_i07_triggers_may_copy_from_stages() -> None:
    images = base(RuntimeConfig(), trig=RuntimeConfig(onbuild=("COPY --from=assets / /",)))
    assert [run.argv[-1] for run in runs("FROM base AS assets\nRUN a\nFROM trig", images)] == ["a"]


@pytest.mark.parametrize("trigger", ["FROM x", "ONBUILD RUN x", "MAINTAINER x", "", "COPY <<EOF /x", "\x00", "ENV", "RUN --mount=type=bad,target=/x y"])
def test_i07_a_bad_trigger_is_an_error_of_the_from(trigger: str) -> None:
    with pytest.raises(DockerfileError, match="ONBUILD|failed|invalid|unsupported|unterminated") as caught:
        planned("FROM base", base(RuntimeConfig(onbuild=("RUN ok", trigger))))
    assert "\n" not in caught.value.message


def test_scratch_is_one_step() -> None:
    assert len(steps_of(planned("FROM scratch AS a\nFROM scratch\nCOPY --from=a / /"), ScratchOp)) == 1


def test_a_hostile_depth_of_stages() -> None:
    def chain(length: int) -> str:
        return "FROM base AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\nRUN {n}\n" for n in range(length))

    assert len(planned(chain(50)).steps) == 51
    with pytest.raises(DockerfileError, match="stages depend on each other too deeply"):
        planned(chain(2000))


def test_platforms_of_windows_are_kept() -> None:
    images = base()
    windows = Platform("windows", "amd64", os_version="10.0.1")
    images.add("win", platform=windows)
    assert target("FROM --platform=windows/amd64 win", images).platform == windows
