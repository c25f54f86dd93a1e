"""SOURCE_DATE_EPOCH (A16): numbers, and names of what has a time."""

import io
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest

from kpy.app.epoch import settle
from kpy.app.options import BuildOptions, Environment, OutputSpec
from kpy.app.outputs import rewrite
from kpy.app.remotes import Remotes
from kpy.app.sources import Sources
from kpy.buildcontext.directory import DirectoryContext
from kpy.buildcontext.empty import EmptyContext
from kpy.buildcontext.http import Download
from kpy.dockerfile.parser import parse
from kpy.errors import DockerfileError, KpyError, UsageError
from kpy.events import Warned
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.plan.model import GitOp, HttpOp
from kpy.solver.rewrite import Rewrite
from kpy.solver.values import Context, FilesValue
from tests.fakes import MemoryRepository, RecordingReporter

OTHER = "FROM scratch\nARG SOURCE_DATE_EPOCH\n"


class FakeRemotes:
    """Gives what it is told to have, and notes what it was asked for."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.asked: list[HttpOp | GitOp] = []

    def fetch(self, op: HttpOp | GitOp, ident: str) -> FilesValue:
        self.asked.append(op)
        return FilesValue(self.source)


def file(data: bytes, seconds: int) -> Download:
    blobs = MemoryRepository()
    descriptor = Descriptor("application/octet-stream", Digest.of(data), len(data))
    blobs.put(BytesIO(data), descriptor)
    return Download("f", seconds, descriptor, cast("Any", blobs))


def archive(*times: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for number, seconds in enumerate(times):
            info = tarfile.TarInfo(f"f{number}")
            info.mtime = seconds
            tar.addfile(info)
        later = tarfile.TarInfo("directory")
        later.type, later.mtime = tarfile.DIRTYPE, 5_000_000_000
        tar.addfile(later)
    return out.getvalue()


def settled(
    text: str, *, args: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None, source: Any = None,
    modified: int = 0, named: tuple[tuple[str, str, str], ...] = (),
) -> tuple[int | None, str | None, str | None, list[HttpOp | GitOp], list[Warned]]:  # fmt: skip
    """Seconds; the build argument and the default of the global ARG afterwards; what was fetched; warnings."""
    remotes, report = FakeRemotes(source), RecordingReporter()
    sources = Sources(parse(text.encode(), "Dockerfile"), "", {"": Context(EmptyContext())}, named, modified)
    environment = Environment(env or {}, "/", BytesIO(), BytesIO())
    options, after, seconds = settle(
        BuildOptions(".", build_args=tuple((args or {}).items())), environment, sources, cast("Remotes", remotes), report
    )
    default = next((arg.value for item in after.dockerfile.global_args for arg in item.args if arg.key == "SOURCE_DATE_EPOCH"), None)
    return seconds, dict(options.build_args).get("SOURCE_DATE_EPOCH"), default, remotes.asked, report.of(Warned)


def test_numbers_from_the_argument_the_environment_and_the_global_default() -> None:
    assert settled(OTHER)[:3] == (None, None, None)
    assert settled(OTHER, args={"SOURCE_DATE_EPOCH": "5"})[:3] == (5, "5", None)
    assert settled(OTHER, env={"SOURCE_DATE_EPOCH": "6"})[:3] == (6, "6", None)
    assert settled(OTHER, args={"SOURCE_DATE_EPOCH": ""}, env={"SOURCE_DATE_EPOCH": "6"})[0] is None
    text = "ARG N=7\nARG SOURCE_DATE_EPOCH=$N\n" + OTHER
    assert settled(text)[:3] == (7, None, "$N")
    assert settled(text, args={"N": "8"})[0] == 8
    assert settled(text, args={"SOURCE_DATE_EPOCH": "9"})[0] == 9
    assert settled(text, args={"SOURCE_DATE_EPOCH": ""})[0] is None


@pytest.mark.parametrize(
    ("build_arg", "variable", "text", "expected"),
    [
        (None, None, "FROM a", None),
        ("5", "6", "ARG SOURCE_DATE_EPOCH=7\nFROM a", 5),
        (None, "6", "ARG SOURCE_DATE_EPOCH=7\nFROM a", 6),
        (None, None, "ARG SOURCE_DATE_EPOCH=7\nFROM a", 7),
        (None, None, 'ARG T=8\nARG SOURCE_DATE_EPOCH="$T"\nFROM a', 8),
        (None, None, "ARG SOURCE_DATE_EPOCH\nFROM a", None),
        ("", "6", "FROM a", None),
        (None, None, "FROM a\nARG SOURCE_DATE_EPOCH=7", None),
    ],
)
def test_which_of_them_wins(build_arg: str | None, variable: str | None, text: str, expected: int | None) -> None:
    args = {} if build_arg is None else {"SOURCE_DATE_EPOCH": build_arg}
    variables = {} if variable is None else {"SOURCE_DATE_EPOCH": variable}
    assert settled(text, args=args, env=variables)[0] == expected


def test_a_remote_context_has_a_time_and_is_a_number_in_the_dockerfile_then() -> None:
    assert settled(OTHER, args={"SOURCE_DATE_EPOCH": "context"}, modified=11)[:2] == (11, "11")
    assert settled("ARG SOURCE_DATE_EPOCH=context\n" + OTHER, modified=11)[:3] == (11, None, "11")


def test_a_local_context_has_none_and_leaves_it_unset() -> None:
    seconds, argument, _, _, warnings = settled(OTHER, args={"SOURCE_DATE_EPOCH": "context"})
    assert (seconds, argument) == (None, "")
    assert "SOURCE_DATE_EPOCH=context: it has no time of its own" in warnings[0].message


STAGE = "ARG HOST=h\nFROM scratch AS Src\nARG FILE=f\nARG HOST\nADD {flags}{source} /\n" + OTHER


@pytest.mark.parametrize(("data", "seconds", "expected"), [
    (b"x", 12, 12), (archive(3, 20, 4), 12, 12), (archive(3, 20, 4), 0, 20), (b"no archive", 0, None), (archive(), 0, None),
    (b"\x1f\x8bbroken", 0, None),
])  # fmt: skip
def test_a_stage_that_is_a_url(data: bytes, seconds: int, expected: int | None) -> None:
    text = STAGE.format(flags=f"--checksum=sha256:{'0' * 64} ", source="https://$HOST/$FILE")
    found = settled(text, args={"SOURCE_DATE_EPOCH": "SRC", "FILE": "g"}, source=file(data, seconds))
    assert found[0] == expected
    assert found[3] == [HttpOp("https://h/g", f"sha256:{'0' * 64}", "g")]


def test_a_stage_or_a_context_that_is_a_repository(tmp_path: Path) -> None:
    import os

    os.utime(tmp_path, (33, 33))
    text = STAGE.format(flags="", source="https://$HOST/r.git#main")
    for found in (
        settled(text, args={"SOURCE_DATE_EPOCH": "src"}, source=DirectoryContext(str(tmp_path))),
        settled(OTHER, args={"SOURCE_DATE_EPOCH": "ctx"}, source=DirectoryContext(str(tmp_path)), named=(("ctx", "git", "https://h/r.git#main"),)),
    ):
        assert found[0] == 33
        assert isinstance(found[3][0], GitOp)
        assert (found[3][0].remote.url, found[3][0].remote.ref) == ("https://h/r.git", "main")


def test_named_contexts() -> None:
    named = (("u", "http", "https://h/f"), ("d", "local", ""), ("i", "image", "alpine"))
    assert settled(OTHER, args={"SOURCE_DATE_EPOCH": "u"}, named=named, source=file(b"x", 4))[0] == 4
    for name in ("d", "i"):
        seconds, argument, *_, warnings = settled(OTHER, args={"SOURCE_DATE_EPOCH": name}, named=named)
        assert (seconds, argument, len(warnings)) == (None, "", 1)


@pytest.mark.parametrize(("stage", "message", "line"), [
    ("FROM alpine AS s\nADD https://h/f /", "must use FROM scratch", 1),
    ("FROM scratch AS s", "must contain exactly one remote ADD", 1),
    ("FROM scratch AS s\nADD https://h/f /\nADD https://h/g /", "source-only requirements", 3),
    ("FROM scratch AS s\nADD https://h/f https://h/g /", "exactly one remote ADD source", 2),
    ("FROM scratch AS s\nADD f /", "exactly one remote ADD source", 2),
    ("FROM scratch AS s\nADD https://h/f /\nRUN x", "source-only requirements", 3),
    ("FROM scratch AS s\nADD <<E /f\nE", "exactly one remote ADD source", 2),
])  # fmt: skip
def test_stages_that_will_not_do(stage: str, message: str, line: int) -> None:
    with pytest.raises(DockerfileError, match=message) as caught:
        settled(f"{stage}\n{OTHER}", args={"SOURCE_DATE_EPOCH": "s"})
    assert caught.value.first_line == line
    assert "exactly one remote ADD" in caught.value.hint


@pytest.mark.parametrize("text", ["-5", "1.5", "now", "1" * 13, "9" * 5000, "١", "²"])
def test_what_is_neither(text: str) -> None:
    with pytest.raises(UsageError, match="invalid SOURCE_DATE_EPOCH"):
        settled(OTHER, args={"SOURCE_DATE_EPOCH": text})


def outputs(*attrs: Mapping[str, str]) -> BuildOptions:
    return BuildOptions(".", outputs=(OutputSpec("cacheonly"), *(OutputSpec("oci", "f", item) for item in attrs)))


def test_what_outputs_want_of_layers() -> None:
    report = RecordingReporter()
    on = {"rewrite-timestamp": "true"}
    assert rewrite(outputs(on), 5, report) == Rewrite(5)
    assert rewrite(outputs({}), 5, report) == Rewrite()
    assert rewrite(outputs({"force-compression": "true"}), 5, report) == Rewrite(compress=True)
    assert not report.events
    assert rewrite(outputs(on), None, report) == Rewrite()
    assert "no effect" in report.of(Warned)[0].message
    with pytest.raises(KpyError, match="the outputs differ in rewrite-timestamp"):
        rewrite(outputs(on, {}), 5, report)
