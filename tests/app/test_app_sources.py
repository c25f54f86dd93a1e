"""Which Dockerfile and ignore file of a directory are read, and that none of them reads another file: G01, G07-G09."""

import io
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kpy.app.options import BuildOptions, Environment
from kpy.app.sources import MAX_DOCKERFILE, read_sources
from kpy.dockerfile.model import Dockerfile
from kpy.errors import ContextError
from kpy.util.cancel import Cancel
from tests.privileges import make_device, needs_root

NOBODY: Any = None  # a directory needs nobody who fetches


@dataclass(frozen=True)
class Read:
    """The Dockerfile, and the names at the top of each context."""

    dockerfile: Dockerfile
    names: dict[str, list[str]]


def sources(directory: Path, /, **options: Any) -> Read:
    environment = Environment({}, str(directory), io.BytesIO(), io.BytesIO())
    with Cancel() as cancel, ExitStack() as stack:
        found = read_sources(BuildOptions(**{"context": ".", **options}), environment, NOBODY, "", cancel, stack)
        names = {name: list(context.files.children("")) for name, context in found.contexts.items()}
    return Read(found.dockerfile, names)


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
    assert found.names == {"": ["file"]}


def test_no_dockerfile_is_an_error_that_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(ContextError) as error:
        sources(tmp_path)
    assert "-f" in error.value.hint


# --- links: whoever made the context made them, and not the user

SECRET = "s3cret: token"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context beside a file that is none of its business."""
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "context" / "sub").mkdir(parents=True)
    return tmp_path / "context"


def refused(directory: Path, /, **options: Any) -> ContextError:
    with pytest.raises(ContextError) as caught:
        sources(directory, **options)
    error = caught.value
    assert SECRET not in error.message + error.hint + error.excerpt
    assert "s3cret" not in error.message + error.hint + error.excerpt
    return error


@pytest.mark.parametrize(
    "target", ["../secret", "/proc/self/environ", "sub/../../secret", "sub/on", "/etc/passwd", "Dockerfile", "nowhere"]
)
def test_a_dockerfile_that_is_a_link_out_of_the_context_is_refused(context: Path, target: str) -> None:
    """The excerpt of the error once showed the environment of the builder."""
    (context / "sub" / "on").symlink_to("../../secret")
    (context / "Dockerfile").symlink_to(target)

    error = refused(context)

    assert error.message.startswith("cannot read the Dockerfile Dockerfile: ")
    assert ("-f PATH names a Dockerfile outside of the context" in error.hint) == (target != "Dockerfile")
    if target != "Dockerfile":
        assert f"Dockerfile is a link to {target}, which is not in the context" in error.message
    assert error.exit_code == 5


@pytest.mark.parametrize("target", ["sub/real", "/sub/real", "sub/../sub/real", "sub/on"])
def test_a_dockerfile_that_is_a_link_inside_the_context_is_read(context: Path, target: str) -> None:
    (context / "sub" / "real").write_text("FROM scratch AS found\n")
    (context / "sub" / "on").symlink_to("real")
    (context / "Dockerfile").symlink_to(target)
    assert sources(context).dockerfile.stages[0].name == "found"
    assert sources(context, file="Dockerfile").dockerfile.stages[0].name == "found"


def test_a_directory_that_is_a_link_out_of_the_context_is_not_gone_through(context: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(SECRET)
    (context / "out").symlink_to("..")
    assert "out is a link to .., which is not in the context" in refused(context, file="out/Dockerfile").message


def spellings(context: Path) -> dict[str, Any]:
    """How a user may name context/Dockerfile, from the directory above."""
    (context.parent / "other").symlink_to("context")
    return {
        "relative": {"context": "context", "file": "context/Dockerfile"},
        "absolute": {"context": "context", "file": str(context / "Dockerfile")},
        "dots": {"context": "context", "file": "context/sub/../Dockerfile"},
        "in the context": {"context": "context", "file": "Dockerfile"},
        "both through a link": {"context": "other", "file": "other/Dockerfile"},
        "the context through a link": {"context": "other", "file": "context/Dockerfile"},
        "the file through a link": {"context": "context", "file": "other/Dockerfile"},
    }


@pytest.mark.parametrize("how", [
    "relative", "absolute", "dots", "in the context", "both through a link", "the context through a link",
    "the file through a link",
])  # fmt: skip
def test_where_a_dockerfile_lies_does_not_depend_on_how_it_is_named(context: Path, how: str) -> None:
    (context / "Dockerfile").symlink_to("../secret")
    assert "is a link to ../secret" in refused(context.parent, **spellings(context)[how]).message


def test_a_dockerfile_outside_of_the_context_is_the_users_word(context: Path) -> None:
    """Links are followed, and its own ignore file lies beside it."""
    above = context.parent
    (above / "real").write_text("FROM scratch AS outside\n")
    (above / "named").symlink_to("real")
    (context / "a").touch()
    (above / "patterns").write_text("a\n")
    (above / "named.dockerignore").symlink_to("patterns")
    for file in ("named", str(above / "named"), "context/../named"):
        found = sources(above, context="context", file=file)
        assert found.dockerfile.stages[0].name == "outside"
        assert found.names[""] == ["sub"]


def test_a_dockerfile_in_a_pipe_of_the_shell(context: Path) -> None:
    """`-f <(…)`"""
    reading, writing = os.pipe()
    os.write(writing, b"FROM scratch AS piped\n")
    os.close(writing)
    try:
        assert sources(context, file=f"/proc/self/fd/{reading}").dockerfile.stages[0].name == "piped"
    finally:
        os.close(reading)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.mkdir()


def _large(path: Path) -> None:
    with open(path, "wb") as out:
        out.truncate(MAX_DOCKERFILE + 1)


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"])
@pytest.mark.parametrize(
    ("make", "message"),
    [(_pipe, "it is a named pipe"), (_directory, "it is a directory"), (_large, "it is larger than 16 MiB")],
)
def test_only_regular_files_are_read_and_nothing_is_waited_for(
    context: Path, name: str, make: Callable[[Path], None], message: str
) -> None:
    if name != "Dockerfile":
        (context / "Dockerfile").write_text("FROM scratch\n")
    make(context / name)
    error = refused(context)
    assert message in error.message
    assert name in error.message


@needs_root
@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore"])
def test_a_device_is_no_dockerfile(context: Path, name: str) -> None:
    (context / "Dockerfile").write_text("FROM scratch\n")
    (context / name).unlink(missing_ok=True)
    make_device(context / name)
    assert "it is a device" in refused(context).message


@pytest.mark.parametrize("name", [".dockerignore", "Dockerfile.dockerignore"])
def test_an_ignore_file_that_is_a_link_out_of_the_context_is_refused(context: Path, name: str) -> None:
    """A bad pattern is shown with its line; and without the patterns secrets would come into the image."""
    (context.parent / "secret").write_text(f"[{SECRET}\n")
    (context / "Dockerfile").write_text("FROM scratch\n")
    (context / name).symlink_to("../secret")
    error = refused(context)
    assert error.message == f"cannot read {name}: {name} is a link to ../secret, which is not in the context"


def test_an_ignore_file_that_is_a_link_inside_the_context_is_read(context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\n")
    (context / "patterns").write_text("Dockerfile\nsub\n")
    (context / ".dockerignore").symlink_to("patterns")
    assert sources(context).names[""] == [".dockerignore", "patterns"]


def test_the_ignore_file_of_a_named_context_stays_in_it(context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\n")
    named = context.parent / "named"
    named.mkdir()
    (named / "a").touch()
    (named / ".dockerignore").symlink_to("../secret")
    error = refused(context, build_contexts=(("lib", str(named)),))
    assert ".dockerignore of --build-context lib" in error.message
    assert "is a link to ../secret" in error.message

    (named / ".dockerignore").unlink()
    (named / ".dockerignore").write_text("a\n")
    assert sources(context, build_contexts=(("lib", str(named)),)).names["lib"] == [".dockerignore"]
