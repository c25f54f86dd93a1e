"""`kpy build`'s flags become BuildOptions, as buildx reads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kpy.app.options import Annotation, BuildOptions, OutputSpec, SecretSpec
from kpy.cli import values
from kpy.cli.options import read
from kpy.cli.terminal import Terminal
from kpy.errors import UsageError
from kpy.layer.limits import LayerLimits
from kpy.oci.platform import Platform, host

MakeTerminal = Callable[..., Terminal]


def options(terminal: Terminal, *argv: str) -> BuildOptions:
    return read([*argv, "."], terminal)[0]


def refusal(terminal: Terminal, *argv: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read(argv, terminal)
    return caught.value


def test_nothing_asked_is_the_default(terminal: Terminal) -> None:
    assert read(["."], terminal) == (BuildOptions(context="."), "auto")


@pytest.mark.parametrize(
    ("argv", "field", "value"),
    [
        (["-f", "d/Dockerfile"], "file", "d/Dockerfile"),
        (["-t", "a", "-t", "localhost:5000/b:1", "-t", "a"], "tags", ("a", "localhost:5000/b:1")),
        (
            ["--build-arg", "A=1", "--build-arg=B=x=y", "--build-arg", "A=2"],
            "build_args",
            (("A", "2"), ("B", "x=y")),
        ),
        (["--build-arg", "EMPTY="], "build_args", (("EMPTY", ""),)),
        (["--build-arg", "HOME_OF"], "build_args", (("HOME_OF", "/root"),)),  # A05
        (["--build-arg", "NOT_SET"], "build_args", ()),  # A05
        (["--target", "t"], "target", "t"),
        (
            ["--platform", "linux/amd64,linux/arm64/v8", "--platform", "linux/arm64"],
            "platforms",
            (Platform("linux", "amd64"), Platform("linux", "arm64")),
        ),
        (["--platform", "local"], "platforms", (host(),)),
        (["--label", "a=1", "--label", "b"], "labels", (("a", "1"), ("b", ""))),
        (["--build-context", "base=docker-image://x:1"], "build_contexts", (("base", "docker-image://x:1"),)),
        (["--no-cache"], "no_cache", True),
        (["--no-cache=false"], "no_cache", False),
        (["--no-cache-filter", "a,b", "--no-cache-filter=b"], "no_cache_filter", ("a", "b")),
        (
            ["--annotation", "a=1=2", "--annotation", "index,manifest[linux/arm64]:b:c=", "--annotation=manifest-descriptor:d=x"],
            "annotations",
            (Annotation("a", "1=2"), Annotation("b:c", "", "index"), Annotation("b:c", "", "manifest", Platform("linux", "arm64")),
             Annotation("d", "x", "manifest-descriptor")),
        ),
        (["--pull"], "pull", True),
        (["--iidfile", "i"], "iidfile", "i"),
        (["--metadata-file", "m"], "metadata_file", "m"),
        (["--insecure-registry", "r:5000", "--insecure-registry=s"], "insecure_registries", ("r:5000", "s")),
        (["--isolation=chroot"], "isolation", "chroot"),
        (["--network", "none"], "network", "none"),
        (["--shm-size", "64m"], "shm_size", 64 << 20),
        (["--max-layer-size", "100g"], "layer_limits", LayerLimits(size=100 << 30)),
        (["--max-layer-ratio=0", "--max-layers", "2000"], "layer_limits", LayerLimits(ratio=0, layers=2000)),
        (
            ["--add-host", "a:10.0.0.1", "--add-host=b=::1", "--add-host", "c:[fe80::1]"],
            "add_hosts",
            (("a", "10.0.0.1"), ("b", "::1"), ("c", "fe80::1")),
        ),
        (
            [
                "--provenance=false",
                "--sbom=false",
                "--rm",
                "--force-rm",
                "--load=false",
                "--attest=type=sbom,disabled=true",
            ],
            "outputs",
            (),
        ),
    ],
)
def test_flags(make_terminal: MakeTerminal, argv: list[str], field: str, value: Any) -> None:
    given = options(make_terminal(variables={"HOME_OF": "/root"}), *argv)
    assert getattr(given, field) == value


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("type=oci,dest=a.tar", OutputSpec("oci", "a.tar")),
        ("type=docker,dest=-", OutputSpec("docker", "-")),
        ("type=docker", OutputSpec("docker")),
        ("type=tar,dest=-", OutputSpec("tar", "-")),
        ("out", OutputSpec("local", "out")),
        ("-", OutputSpec("tar", "-")),
        ("type=local,dest=out", OutputSpec("local", "out")),
        ("type=registry", OutputSpec("image", "", {"push": "true"})),
        ("type=image,push=1,name=a", OutputSpec("image", "", {"push": "true", "name": "a"})),
        ('type=oci,"dest=a,b.tar"', OutputSpec("oci", "a,b.tar")),
        (
            "TYPE=oci,Dest=x,compression=zstd,compression-level=3",
            OutputSpec("oci", "x", {"compression": "zstd", "compression-level": "3"}),
        ),
        ("type=oci,dest=d,tar=false", OutputSpec("oci", "d", {"tar": "false"})),
        ("type=cacheonly", OutputSpec("cacheonly")),
    ],
)
def test_outputs(text: str, spec: OutputSpec) -> None:
    assert values.output(text) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=nydus,dest=x", "--output type=nydus is not supported"),
        ("dest=x", "type is required"),
        ("type=oci", "--output type=oci needs dest"),
        ("type=local,dest=-", "cannot go to standard output"),
        ("type=oci,dest=x,foo=1", "--output type=oci does not support 'foo'"),
        ("type=oci,dest", "invalid field 'dest' of --output: it must be key=value"),
        ("type=oci,dest=x,tar=maybe", "invalid value 'maybe' for tar of --output"),
        ('type=oci,"dest=x', "invalid value"),
        ("type=image,dest=x", "does not support 'dest'"),
        ("type=oci,dest=x,oci-mediatypes=false", "--output type=oci does not support oci-mediatypes=false"),
        ("type=docker,dest=x,oci-mediatypes=1", "--output type=docker does not support oci-mediatypes=true"),
        ("type=oci,dest=x,push=true", "--output type=oci does not support 'push'"),
    ],
)
def test_bad_outputs(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        values.output(text)


def test_push_makes_images_push_or_adds_one(terminal: Terminal) -> None:
    pushed = OutputSpec("image", "", {"push": "true"})
    assert options(terminal, "--push", "-t", "a").outputs == (pushed,)
    assert options(terminal, "--push", "-t", "a", "-o", "type=image,compression=zstd").outputs == (
        OutputSpec("image", "", {"compression": "zstd", "push": "true"}),
    )
    assert options(terminal, "--push", "-t", "a", "-o", "out").outputs == (OutputSpec("local", "out"), pushed)
    assert options(terminal, "--push", "-t", "a").push
    assert not options(terminal, "-t", "a", "-o", "out").push


def test_secrets(make_terminal: MakeTerminal, tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("x")
    (tmp_path / "plain").write_text("x")
    terminal = make_terminal(variables={"TOKEN": "t", "tok": "u"})
    argv = [
        "id=a,src=s.txt",
        "id=b,env=TOKEN",
        "id=plain",
        "id=tok",
        "id=c,type=env,src=TOKEN",
        "type=file,id=d,source=s.txt",
    ]
    assert options(terminal, *(word for text in argv for word in ("--secret", text))).secrets == (
        SecretSpec("a", "s.txt"),
        SecretSpec("b", env="TOKEN"),
        SecretSpec("plain", "plain"),
        SecretSpec("tok", env="tok"),
        SecretSpec("c", env="TOKEN"),
        SecretSpec("d", "s.txt"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("src=x", "--secret needs an id"),
        ("id=a,src=nowhere", "--secret id=a: cannot read "),
        ("id=nowhere", "--secret id=nowhere: cannot read "),
        ("id=a,env=NOPE", "environment variable NOPE is not set"),
        ("id=a,type=vault", "unsupported secret type 'vault'"),
        ("id=a,mode=0400", "unexpected key 'mode'"),
        ("justid", "invalid field 'justid' of --secret"),
        ("id=big,src=big", "larger than 500 KiB"),
    ],
)
def test_bad_secrets(terminal: Terminal, tmp_path: Path, text: str, message: str) -> None:
    with (tmp_path / "big").open("wb") as big:
        big.truncate(500 * 1024 + 1)
    assert message in refusal(terminal, "--secret", text, ".").message


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "kpy build takes exactly one context, got none"),
        (["a", "b"], "kpy build takes exactly one context, got 2: a b"),
        ([""], "the context is an empty word"),
        (["--push", "."], "a push needs a name"),
        (["-t", "A", "."], "invalid reference 'A'"),
        (["-t", f"a@sha256:{'0' * 64}", "."], "a tag cannot have a digest"),
        (["--platform", "linux/amd64/v1/x", "."], "invalid platform"),
        (["--isolation", "default", "."], "invalid value 'default' for --isolation"),
        (["--network=bridge", "."], "invalid value 'bridge' for --network"),
        (["--progress=fancy", "."], "invalid value 'fancy' for --progress"),
        (["--shm-size=lots", "."], "invalid size 'lots' for --shm-size"),
        (["--max-layer-size=lots", "."], "invalid size 'lots' for --max-layer-size"),
        (["--max-layer-ratio=-1", "."], "invalid --max-layer-ratio '-1': it takes a number"),
        (["--max-layers=many", "."], "invalid --max-layers 'many': it takes a number"),
        (["--add-host=a:host-gateway", "."], "host-gateway is not supported"),
        (["--add-host=a", "."], "is not an IP address"),
        (["--add-host", "a b:1.2.3.4", "."], "is not a host name"),
        (["--label", "=x", "."], "invalid --label '=x'"),
        (["--build-context", "x", "."], "invalid --build-context 'x'"),
        (["--build-arg", "=x", "."], "invalid --build-arg '=x'"),
        (["--annotation", "a", "."], "invalid --annotation 'a': it must be NAME=VALUE"),
        (["--annotation", "=x", "."], "invalid --annotation '=x'"),
        (["--annotation", "index:=x", "."], "invalid --annotation 'index:=x'"),
        (["--annotation", "manifst:a=x", "."], "'manifst' is no level"),
        (["--annotation", "manifest[linux:a=x", "."], "'manifest[linux' is no level"),
        (["-o", "type=local,dest=d,mode=move", "."], "does not support mode=move"),
        (["-f", "-", "-"], "both the context and the Dockerfile are standard input"),
        (["-o", "-", "-o", "type=oci,dest=-", "."], "only one --output"),
        (["--sign-key", "k", "."], "--sign-key signs what is pushed"),
        *(
            ([flag, "x", "."], f"{flag} is not supported yet")
            for flag in ("--cache-from", "--cache-to", "--provenance", "--sbom", "--attest", "--cgroup-parent", "--builder")
        ),
        *(([flag, "."], f"{flag} is not supported yet") for flag in ("--compress",)),
    ],
)  # fmt: skip
def test_refusals_name_what_is_wrong(terminal: Terminal, argv: list[str], message: str) -> None:
    error = refusal(terminal, *argv)
    assert message in error.message
    assert error.exit_code == 2


def test_terminals_are_not_read_or_filled(make_terminal: MakeTerminal) -> None:
    assert "that is a terminal" in refusal(make_terminal(stdin_is_terminal=True), "-").message
    assert (
        "does not go to a terminal" in refusal(make_terminal(stdout_is_terminal=True), "-o", "-", ".").message
    )


@pytest.mark.parametrize(
    ("argv", "variables", "mode"),
    [
        ([], {}, "auto"),
        ([], {"BUILDKIT_PROGRESS": "plain"}, "plain"),
        ([], {"BUILDKIT_PROGRESS": ""}, "auto"),
        (["--progress=rawjson"], {"BUILDKIT_PROGRESS": "plain"}, "rawjson"),
        (["-q"], {"BUILDKIT_PROGRESS": "plain"}, "quiet"),
    ],
)
def test_progress_mode(
    make_terminal: MakeTerminal, argv: list[str], variables: dict[str, str], mode: str
) -> None:
    assert read([*argv, "."], make_terminal(variables=variables))[1] == mode


def test_a_wrong_variable_is_named(make_terminal: MakeTerminal) -> None:
    error = refusal(make_terminal(variables={"BUILDKIT_PROGRESS": "x"}), ".")
    assert error.message == "invalid value 'x' for BUILDKIT_PROGRESS"


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1024", 1024), ("1k", 1024), ("64m", 64 << 20), ("1.5GiB", 3 << 29), ("2 gb", 2 << 30)],
)
def test_sizes(text: str, size: int) -> None:
    assert values.size(text, "--x") == size


def test_no_value_of_a_secret_or_argument_is_shown(make_terminal: MakeTerminal) -> None:
    given = options(
        make_terminal(variables={"T": "hunter2"}), "--build-arg", "PASSWORD=hunter2", "--secret", "id=a,env=T"
    )
    assert "hunter2" not in repr(given)
