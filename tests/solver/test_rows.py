"""Rows of FEATURES section 1 that no other test names: C23, L08, L12."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from tests.fakes import MemoryFiles
from tests.solver.building import Builder


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("inner")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    return gzip.compress(out.getvalue(), mtime=0)


@pytest.mark.parametrize(
    ("flag", "paths"),
    [("", ["to", "to/inner"]), ("--unpack=true ", ["to", "to/inner"]), ("--unpack=false ", ["to", "to/x.tgz"])],
)
def test_unpack_says_whether_a_local_archive_is_unpacked(tmp_path: Path, flag: str, paths: list[str]) -> None:
    """C23"""
    builder = Builder(tmp_path)
    builder.context = MemoryFiles.of({"x.tgz": archive()})
    built = builder.build(f"FROM scratch\nADD {flag}x.tgz /to/\n")
    builder.close()

    assert [entry.path for entry in built.tree.walk() if entry.path] == paths


def test_the_variant_of_the_platform_is_in_the_configuration(tmp_path: Path) -> None:
    """L08"""
    builder = Builder(tmp_path)
    from kpy.oci.platform import Platform

    built = builder.build("FROM scratch\nCOPY a /\n", plan_options={"platforms": (Platform.parse("linux/arm/v6"),)})
    builder.close()

    assert (built.config["architecture"], built.config["os"], built.config["variant"]) == ("arm", "linux", "v6")


def test_more_layers_than_docker_takes_are_warned_of() -> None:
    """L12"""
    from kpy.solver.assemble import too_deep

    assert too_deep(127) is None
    warning = too_deep(128)
    assert warning is not None
    assert "128 layers" in warning.message
