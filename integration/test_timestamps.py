"""SOURCE_DATE_EPOCH, `rewrite-timestamp` and `force-compression`, as a user, with a real base (A16, L11)."""

import json
import subprocess
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from people import Kpy
from test_run_features import Image, Project

EPOCH = 1_500_000_000  # earlier than the files of the base of busybox, which are of 1,600,000,000
TEXT = """
COPY old new /copied/
WORKDIR /work
RUN echo x > /made && ln /made /linked && rm /copied/old && mkdir -p /d && touch -d @1000000000 /d/old
ARG SOURCE_DATE_EPOCH
RUN test "${SOURCE_DATE_EPOCH:-unset}" = "EXPECTED" && rm -r /home && mkdir /home
"""


@pytest.fixture
def project(shared_kpy: Kpy, busybox_base: str, workdir: Path) -> Project:
    return Project(shared_kpy, busybox_base, workdir / "context")


def image(project: Project, attrs: str, *more: str, expected: str = str(EPOCH)) -> Image:
    project.write(TEXT.replace("EXPECTED", expected), old="1", new="2")
    archive = project.directory.with_name("image.tar")
    archive.unlink(missing_ok=True)
    project.kpy(*project.arguments("-o", f"type=oci,dest={archive},{attrs}".rstrip(","), *more))
    return Image(archive)


def latest(members: dict[str, tarfile.TarInfo]) -> float:
    return max((item.mtime for item in members.values()), default=0)


def test_times_are_rewritten_in_new_layers_only(project: Project) -> None:
    arguments = ("--build-arg", f"SOURCE_DATE_EPOCH={EPOCH}")
    plain = image(project, "", *arguments)
    found = image(project, "rewrite-timestamp=true", *arguments)
    assert found.manifest["layers"][0] == plain.manifest["layers"][0]
    assert latest(found.members[0]) > EPOCH
    assert all(latest(members) <= EPOCH for members in found.members[1:])
    assert any(latest(members) > EPOCH for members in plain.members[1:])
    for before, after in zip(plain.members, found.members, strict=True):
        assert [(name, item.mode, item.uid, item.size, item.type) for name, item in before.items()] == [
            (name, item.mode, item.uid, item.size, item.type) for name, item in after.items()
        ]
    run = next(members for members in found.members[1:] if "made" in members)
    assert (run["made"].mtime, run["d/old"].mtime) == (EPOCH, 1_000_000_000)
    assert run["copied/.wh.old"].mtime <= EPOCH
    assert found.config["created"] == "2017-07-14T02:40:00Z"
    assert found.config["rootfs"]["diff_ids"][0] == plain.config["rootfs"]["diff_ids"][0]
    # From what is remembered, and made anew: the same.
    assert image(project, "rewrite-timestamp=true", *arguments).manifest == found.manifest


def test_another_epoch_runs_nothing_again(project: Project) -> None:
    first = image(project, "rewrite-timestamp=true", "--build-arg", f"SOURCE_DATE_EPOCH={EPOCH}")
    project.write(TEXT.partition("ARG")[0], old="1", new="2")
    archive = project.directory.with_name("image.tar")
    said = project.kpy(
        *project.arguments("-o", f"type=oci,dest={archive},rewrite-timestamp=true", "--build-arg", f"SOURCE_DATE_EPOCH={EPOCH + 5}")
    ).stderr
    assert said.count("CACHED") == 3
    run = next(members for members in Image(archive).members[1:] if "made" in members)
    assert run["made"].mtime == EPOCH + 5
    assert next(members for members in first.members[1:] if "made" in members)["made"].mtime == EPOCH


def test_without_an_epoch_there_is_a_warning_and_nothing_else(project: Project) -> None:
    plain = image(project, "", expected="unset")
    project.write(TEXT.replace("EXPECTED", "unset"), old="1", new="2")
    archive = project.directory.with_name("image.tar")
    said = project.kpy(*project.arguments("-o", f"type=oci,dest={archive},rewrite-timestamp=true")).stderr
    assert "rewrite-timestamp has no effect" in said
    assert Image(archive).manifest == plain.manifest


def test_every_layer_in_one_compression(project: Project) -> None:
    gzip = image(project, "", expected="unset")
    zstd = image(project, "compression=zstd", expected="unset")
    forced = image(project, "compression=zstd,force-compression=true", expected="unset")
    kinds = [[layer["mediaType"].rpartition("+")[2] for layer in item.manifest["layers"]] for item in (gzip, zstd, forced)]
    count = len(kinds[0])
    assert kinds == [["gzip"] * count, ["gzip", *["zstd"] * (count - 1)], ["zstd"] * count]
    assert forced.config["rootfs"] == zstd.config["rootfs"]
    assert list(forced.members[0]) == list(gzip.members[0])
    plain = image(project, "compression=uncompressed,force-compression=true", expected="unset")
    assert {layer["mediaType"] for layer in plain.manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""


@pytest.fixture
def web(workdir: Path) -> Iterator[tuple[str, Path]]:
    """An address and the directory behind it."""
    directory = workdir / "web"
    directory.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", directory
        server.shutdown()


def test_the_epoch_of_a_stage_and_of_a_named_context(project: Project, web: tuple[str, Path]) -> None:
    address, directory = web
    (directory / "file").write_text("content")
    subprocess.run(["touch", "-d", f"@{EPOCH}", directory / "file"], check=True)
    text = f"FROM scratch AS source\nADD {address}/file /\nFROM base\n" + TEXT.replace("EXPECTED", str(EPOCH))
    archive = project.directory.with_name("image.tar")
    for name, more in (("source", ()), ("other", ("--build-context", f"other={address}/file"))):
        project.write(text, old="1", new="2")
        project.kpy(*project.arguments("-o", f"type=oci,dest={archive}", "--build-arg", f"SOURCE_DATE_EPOCH={name}", *more))
        assert Image(archive).config["created"] == "2017-07-14T02:40:00Z"
        assert json.dumps(Image(archive).config["history"]).count(f"SOURCE_DATE_EPOCH={EPOCH}") >= 1
        archive.unlink()
    code, said = project.fails(TEXT, "--build-arg", "SOURCE_DATE_EPOCH=bas", old="1", new="2")
    assert (code, 'did you mean "base"?' in said) == (2, True), said
    code, said = project.fails(TEXT, "--build-arg", "SOURCE_DATE_EPOCH=base", old="1", new="2")
    assert (code, "SOURCE_DATE_EPOCH stage must use FROM scratch" in said, "Dockerfile:2" in said) == (3, True, True), said
