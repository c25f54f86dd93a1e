"""Configurations of hostile images, through the planner and the solver: an image comes out, or an error that is ours."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kpy.errors import ContentError, DockerfileError, KpyError
from kpy.oci.config import RuntimeConfig, parse
from kpy.oci.platform import Platform
from kpy.plan.model import LINUX_AMD64
from tests.fakes import KnownImages, file_item
from tests.plan.planning import runs
from tests.solver.building import Builder

text = st.one_of(
    st.sampled_from(["", "/", ".", "..", "a", "/a/../..", "=x", "A", "A=", "A=$A", "a\0b", "\0", "=\0", "/a\0", "0:0", ":", "1:\0", "99999999999999", "\ud800",
                     "\udcff", "A=\ud800", "x" * 300, "/" + "d/" * 3000, "RUN a\0b", "COPY a /\0", "WORKDIR \0", "\x1b[2J", "-1", "root"]),
    st.text(max_size=8),
)  # fmt: skip
texts = st.lists(text, max_size=4)
keys = st.dictionaries(text, st.just({}), max_size=3)
configs = st.fixed_dictionaries(
    {},
    optional={
        "Env": texts, "Cmd": texts, "Entrypoint": texts, "User": text, "WorkingDir": text, "Labels": st.dictionaries(text, text, max_size=3),
        "ExposedPorts": keys, "Volumes": keys, "StopSignal": text, "Shell": texts, "OnBuild": texts, "Other": text,
        "Healthcheck": st.fixed_dictionaries({"Test": texts, "Interval": st.integers()}),
    },
)  # fmt: skip
DOCKERFILES = (
    "FROM base\nRUN a\n",
    "FROM base\nWORKDIR sub\nCOPY a b\nRUN [\"x\"]\nENV B=$A$PATH\nUSER $A\nRUN c\n",
    "FROM base AS s\nFROM scratch\nCOPY --from=s /etc /\nADD --chown=app a /d/\n",
)


def _image(config: dict[str, Any]) -> KnownImages | None:
    raw = json.dumps({"os": "linux", "architecture": "amd64", "config": config}).encode()
    try:
        runtime = parse(raw).runtime
    except ContentError:
        return None
    images = KnownImages()
    images.add("base", runtime, [file_item("etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:7:8::/app:/bin/sh\n")])
    return images


@settings(max_examples=150, deadline=None)
@given(configs, st.sampled_from(DOCKERFILES))
@example({"WorkingDir": "/a\0b"}, DOCKERFILES[0])
@example({"Env": ["=x"]}, DOCKERFILES[0])
@example({"User": "\0"}, DOCKERFILES[1])
def test_an_image_comes_out_or_an_error_of_ours(config: dict[str, Any], dockerfile: str) -> None:
    images = _image(config)
    if images is None:
        return
    with tempfile.TemporaryDirectory() as place:
        builder = Builder(Path(place) / "b", images)
        try:
            built = builder.build(dockerfile)
            json.loads(built.raws[0])
        except KpyError as error:
            assert error.message
        finally:
            builder.close()


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        (RuntimeConfig(env=("A=x\0y",)), r"a variable has a NUL character: 'A=x\\x00y'"),
        (RuntimeConfig(env=("=x",)), "a variable has no name: '=x'"),
        (RuntimeConfig(workdir="/a\0b"), "the working directory has a NUL character"),
        (RuntimeConfig(user="a\0b"), "the user has a NUL character"),
        (RuntimeConfig(shell=("/bin/\0sh", "-c")), "the command has a NUL character"),
        (RuntimeConfig(onbuild=("RUN a\0b",)), "a NUL character"),
        (RuntimeConfig(env=("A=\ud800",)), "a variable is no text"),
    ],
)
def test_the_error_says_what_and_where(runtime: RuntimeConfig, message: str) -> None:
    images = KnownImages()
    images.add("base", runtime, platform=LINUX_AMD64)
    with pytest.raises(DockerfileError, match=message) as caught:
        runs("FROM base\nRUN true\n", images)
    assert caught.value.first_line
    assert runtime.onbuild or "base image" in caught.value.hint


@pytest.mark.parametrize("line", ["COPY a\0b /", "COPY a /b\0", "COPY --chown=\0 a b", "WORKDIR /\0", "RUN a\0b", 'RUN ["a", "\0"]', "ADD http://a/\0 /"])
def test_lines_of_a_dockerfile_too(line: str) -> None:
    with pytest.raises(DockerfileError, match="NUL|invalid") as caught:
        runs(f"FROM base\n{line}\n")
    assert caught.value.first_line == 2


@pytest.mark.parametrize("field", ["os", "architecture", "variant", "os.version"])
@pytest.mark.parametrize("value", ["a\0b", "../x", "a b", "\x1b[2J", "\ud800"])
def test_a_platform_is_a_few_plain_words(field: str, value: str) -> None:
    data = {"os": "linux", "architecture": "amd64", field: value}
    with pytest.raises(ContentError, match=f"the image configuration's {field} is"):
        parse(json.dumps(data).encode())
    assert parse(b'{"os":"windows","architecture":"amd64","os.version":"10.0.17763.1"}').platform == Platform("windows", "amd64", "", "10.0.17763.1")
