"""--load: a program of docker's or podman's takes the archive (3.1). With the real ones: integration/test_exporters_real.py."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kpy.errors import StoreError, UsageError
from kpy.exporter.base import Exporter
from kpy.exporter.load import Loader, LoadExporter
from kpy.oci.reference import Reference
from tests.exporter.exporting import one

_: type[Exporter] = LoadExporter
NAMES = (Reference.parse("app:v1"),)
Plant = Callable[..., dict[str, str]]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Programs on a PATH of their own; its variables."""

    def make(**programs: str) -> dict[str, str]:
        (tmp_path / "bin").mkdir()
        for name, script in programs.items():
            (tmp_path / "bin" / name).write_text("#!/bin/sh\n" + script)
            (tmp_path / "bin" / name).chmod(0o755)
        return {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "OUT": str(tmp_path / "out"), "DOCKER_HOST": "unix:///none"}

    return make


ANSWERS = '[ "$1" != version ] || exit 0\n'


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_it_gets_the_archive_and_its_variables(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    variables = plant(**{name: ANSWERS + 'test "$1" = load && echo "$DOCKER_HOST" > "$OUT.host" && cat > "$OUT"\n'})
    variables["PATH"] = f"{tmp_path}/bin"
    (tmp_path / "bin" / "cat").symlink_to("/bin/cat")
    result = LoadExporter(Loader.find(variables), NAMES).export(one())
    assert result.names == ("docker.io/library/app:v1",)
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "out").read_bytes())) as archive:
        [found] = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert found["RepoTags"] == ["app:v1"]
    assert (tmp_path / "out.host").read_text() == "unix:///none\n"


def test_neither_is_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--load needs docker or podman, and neither is on PATH"):
        Loader.find({"PATH": str(tmp_path)})


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo Cannot connect to the engine >&2; exit 1", "Cannot connect to the engine"), ("exit 3", "exit code 3")],
)
def test_an_engine_that_does_not_answer(plant: Plant, script: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"--load: docker cannot be used: {said}"):
        Loader.find(plant(docker=script))


def test_a_program_that_is_none() -> None:
    with pytest.raises(UsageError, match="--load: docker cannot be used"):
        Loader("docker", "/dev/null", {}).check()


@pytest.mark.parametrize("reads", ["", "head -c 100 > /dev/null; ", "cat > /dev/null; "])
def test_a_failure_says_what_the_engine_says(plant: Plant, reads: str) -> None:
    variables = plant(docker=ANSWERS + reads + "echo first >&2; echo no space left on device >&2; exit 1\n")
    with pytest.raises(StoreError, match="docker load failed: no space left on device"):
        LoadExporter(Loader.find(variables), NAMES).export(one())


def test_an_error_of_the_image_ends_the_program(plant: Plant, tmp_path: Path) -> None:
    variables = plant(docker=ANSWERS + 'cat > "$OUT" && touch "$OUT.done"\n')

    class Broken(Exception):
        pass

    def report(event: object) -> None:
        if type(event).__name__ == "StepFinished":
            raise Broken

    with pytest.raises(Broken):
        LoadExporter(Loader.find(variables), NAMES, report).export(one())
    assert not (tmp_path / "out.done").exists()
