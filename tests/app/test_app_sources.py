"""Which Dockerfile of a directory is read: G07, G09."""

import io
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kpy.app.options import BuildOptions, Environment
from kpy.app.sources import Sources, read_sources
from kpy.errors import ContextError
from kpy.util.cancel import Cancel

NOBODY: Any = None  # a directory needs nobody who fetches


def sources(directory: Path, **options: str) -> Sources:
    environment = Environment({}, str(directory), io.BytesIO(), io.BytesIO())
    with Cancel() as cancel, ExitStack() as stack:
        return read_sources(BuildOptions(".", **options), environment, NOBODY, "", cancel, stack)  # type: ignore[arg-type]


def test_the_lower_case_name_is_read_where_the_other_is_missing(tmp_path: Path) -> None:
    """G09"""
    (tmp_path / "dockerfile").write_text("FROM scratch AS lower\n")
    assert sources(tmp_path).dockerfile.stages[0].name == "lower"

    (tmp_path / "Dockerfile").write_text("FROM scratch AS upper\n")
    assert sources(tmp_path).dockerfile.stages[0].name == "upper"


def test_an_ignored_dockerfile_is_read_and_not_in_the_context(tmp_path: Path) -> None:
    """G07"""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
    (tmp_path / "file").write_text("x")
    found = sources(tmp_path)

    assert len(found.dockerfile.stages) == 1
    assert list(found.contexts[""].files.children("")) == ["file"]


def test_no_dockerfile_is_an_error_that_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(ContextError) as error:
        sources(tmp_path)
    assert "-f" in error.value.hint
