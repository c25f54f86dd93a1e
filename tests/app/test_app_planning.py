"""Build checks during a build: each finding is a warning, once, and an error if the Dockerfile says so (P04, 1.12)."""

from pathlib import Path

import pytest

from kpy.app.options import BuildOptions
from kpy.app.planning import make_plan
from kpy.app.sources import Sources
from kpy.buildcontext.directory import DirectoryContext
from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.parser import parse
from kpy.errors import DockerfileError, UsageError
from kpy.events import Warned
from kpy.oci import platform as platforms
from kpy.solver.values import Context
from kpy.util.cancel import Cancel
from tests.fakes import KnownImages, RecordingReporter


def warned(text: str, directory: Path, ignore: tuple[str, ...] = (), *, fails: str = "", **options: object) -> list[Warned]:
    report = RecordingReporter()
    context = Context(DirectoryContext(str(directory), Ignore.of(ignore)), "")
    sources = Sources(parse(text.encode()), "", {"": context}, ())
    images = KnownImages()
    images.add("base", platform=platforms.host())
    given = BuildOptions(".", **options)  # type: ignore[arg-type]
    with Cancel() as cancel:
        if fails:
            with pytest.raises((DockerfileError, UsageError), match=fails):
                make_plan(given, sources, images, report, cancel)
        else:
            assert make_plan(given, sources, images, report, cancel).targets
    return report.of(Warned)


def test_each_finding_once_and_the_last_tells_where_to_read(tmp_path: Path) -> None:
    assert warned("FROM base AS X\nCOPY docs /\nCMD echo $x\n", tmp_path, ("docs",)) == [
        Warned('Dockerfile:1: StageNameCasing: the stage name "X" should be lower case', "", "Dockerfile", 1, 1),
        Warned('Dockerfile:2: CopyIgnoredFile: COPY of "docs", which .dockerignore excludes', "", "Dockerfile", 2, 2),
        Warned(
            "Dockerfile:3: JSONArgsRecommended: CMD is in shell form: a shell runs it, and does not pass signals on",
            "3 warnings found; `kpy explain JSONArgsRecommended` tells why, and what to do",
            "Dockerfile", 3, 3,
        ),
    ]


def test_nothing_found_nothing_said(tmp_path: Path) -> None:
    assert warned("FROM base\n", tmp_path) == []
    assert warned("# check=skip=all\nFROM base\nCMD x\n", tmp_path) == []


def test_one_is_no_plural(tmp_path: Path) -> None:
    (only,) = warned("FROM base\nCMD x\n", tmp_path)
    assert only.hint.startswith("1 warning found; ")


def test_stages_that_are_not_needed_are_judged_by_their_text_only(tmp_path: Path) -> None:
    found = warned("FROM base AS a\nCMD x\nMAINTAINER x\nFROM base\n", tmp_path)
    assert [item.message.split(": ")[1] for item in found] == ["MaintainerDeprecated"]


def test_findings_can_be_errors(tmp_path: Path) -> None:
    found = warned(
        "# check=error=true\nFROM base\nMAINTAINER x\nCMD x\n", tmp_path,
        fails="the build checks failed: JSONArgsRecommended, MaintainerDeprecated",
    )  # fmt: skip
    assert len(found) == 2
    assert warned("# check=error=true\nFROM base\n", tmp_path) == []


def test_what_was_found_is_said_also_when_planning_fails(tmp_path: Path) -> None:
    found = warned("FROM base AS X\nVOLUME $none\n", tmp_path, fails="can not be an empty string")
    assert [item.message.split(": ")[1] for item in found] == ["StageNameCasing", "UndefinedVar"]


def test_build_argument(tmp_path: Path) -> None:
    text = "FROM base\nCMD x\n"
    assert warned(text, tmp_path, build_args=(("BUILDKIT_DOCKERFILE_CHECK", "skip=all"),)) == []
    warned(text, tmp_path, build_args=(("BUILDKIT_DOCKERFILE_CHECK", "error=true"),), fails="JSONArgsRecommended")
    warned(text, tmp_path, build_args=(("BUILDKIT_DOCKERFILE_CHECK", "x"),), fails="BUILDKIT_DOCKERFILE_CHECK: invalid")


def test_arguments_that_nobody_takes_are_still_said(tmp_path: Path) -> None:
    (only,) = warned("FROM base\n", tmp_path, build_args=(("NOBODY", "1"),))
    assert only.message == "one or more build-args were not consumed: NOBODY"
