"""kaniko's flags: what becomes of each. The golden table shows it; KPY_UPDATE_GOLDEN=1 writes it anew, for review."""

import base64
import io
import json
import os
import shlex
import tarfile
from collections.abc import Callable
from dataclasses import fields
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from kpy.app.options import BuildOptions, Environment
from kpy.cli import executor
from kpy.cli.kaniko import DigestFiles, environment, read
from kpy.cli.kaniko_flags import FLAGS
from kpy.cli.main import main
from kpy.cli.terminal import Terminal
from kpy.errors import ContextError, UsageError
from kpy.events import Reporter
from kpy.oci.digest import Digest
from kpy.util.cancel import Cancel

MakeTerminal = Callable[..., Terminal]
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "executor.txt"
DIGEST = Digest.of(b"image")


def shown(line: str, make_terminal: MakeTerminal) -> str:
    """What a line of the table asks for, as far as it differs from `--destination r.example/a`."""
    words = shlex.split(line)
    variables = dict(word.split("=", 1) for word in takewhile(lambda word: not word.startswith("-"), words))
    terminal = make_terminal(variables=variables)
    argv = words[len(variables) :]
    try:
        request = read([*argv, *([] if "-d" in argv else ["-d", "r.example/a"])], terminal)
    except (UsageError, ContextError) as error:
        return f"  error {error.exit_code}: {error.message}" + (f"\n    hint: {error.hint}" if error.hint else "")
    plain = read(["-d", "r.example/a"], make_terminal())
    rows = [f"  note: {note}" for note in request.notes]
    for item in fields(BuildOptions):
        value = getattr(request.options, item.name)
        if value != getattr(plain.options, item.name):
            rows.append(f"  {item.name} = {value!r}")
    rows += [f"  mode = {request.mode}"] if request.mode != plain.mode else []
    rows += [f"  stdin = {request.tar}"] if request.tar else []
    rows += [f"  {request.files}"] if request.files != DigestFiles() else []
    return "\n".join(rows) or "  as without it"


def lines() -> list[str]:
    return [line for line in GOLDEN.read_text().splitlines() if line and not line.startswith((" ", "#"))]


def test_what_becomes_of_every_flag(make_terminal: MakeTerminal, tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("x")
    (tmp_path / "c.tar.gz").write_bytes(b"")
    head = [line for line in GOLDEN.read_text().splitlines() if line.startswith("#")]
    made = "\n".join(head) + "\n" + "".join(f"\n{line}\n{shown(line, make_terminal)}\n" for line in lines())
    made = made.replace(str(tmp_path), "/where")
    if os.environ.get("KPY_UPDATE_GOLDEN"):
        GOLDEN.write_text(made)
    assert GOLDEN.read_text() == made


def test_the_table_has_every_flag() -> None:
    given = {word.lstrip("-").partition("=")[0] for line in lines() for word in shlex.split(line) if word.startswith("-")}
    assert {flag.name for flag in FLAGS} <= given


def test_no_other_flag_is_taken(terminal: Terminal) -> None:
    with pytest.raises(UsageError, match="unknown flag: --destinations"):
        read(["--destinations", "a"], terminal)
    with pytest.raises(UsageError, match="takes flags only, got 'true'"):
        read(["--cache", "true", "-d", "a"], terminal)


@pytest.mark.parametrize("form", [["--{0}={1}"], ["--{0}", "{1}"]])
@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("build-arg", "A=1", "build_args", (("A", "1"),)),
        ("context", "dir:///src", "context", "/src"),
        ("label", "a=b", "labels", (("a", "b"),)),
    ],
)
def test_both_forms_of_a_value(
    terminal: Terminal, form: list[str], name: str, value: str, field: str, expected: Any
) -> None:
    argv = [word.format(name, value) for word in form]
    assert getattr(read([*argv, "-d", "a"], terminal).options, field) == expected


def build_that_says(digest: Digest | None, seen: list[Any]) -> Any:
    class Built:
        def __init__(self) -> None:
            self.digest = digest

    def build(options: BuildOptions, world: Environment, report: Reporter, cancel: Cancel, done: Callable[[Built], None]) -> Built:
        seen.append((options, world, world.stdin.read()))
        done(Built())
        return Built()

    return build


def test_digests_are_written_in_kanikos_form(terminal: Terminal, tmp_path: Path) -> None:
    argv = ["-d", "r.example/a:1", "-d", "r.example/b", "--digest-file=out/digest", "--image-name-with-digest-file", "names"]
    assert executor.run([*argv, "--image-name-tag-with-digest-file=tagged"], terminal, build_that_says(DIGEST, [])) == 0
    assert (tmp_path / "out" / "digest").read_text() == str(DIGEST)
    assert (tmp_path / "names").read_text() == f"r.example/a@{DIGEST}\nr.example/b@{DIGEST}\n"
    assert (tmp_path / "tagged").read_text() == f"r.example/a:1@{DIGEST}\nr.example/b:latest@{DIGEST}\n"
    assert terminal.stdout.getvalue() == f"{DIGEST}\n".encode()  # type: ignore[attr-defined]


def test_digests_are_written_before_the_build_is_over(terminal: Terminal, tmp_path: Path) -> None:
    """Until then it has the root: another one would find the files in its own, or empty their directory."""

    def build(*given: object) -> Any:
        built = build_that_says(DIGEST, [])(*given)
        assert (tmp_path / "digest").read_text() == str(DIGEST)
        return built

    assert executor.run(["-d", "a", "--digest-file=digest"], terminal, build) == 0


def test_a_digest_file_may_be_a_device(terminal: Terminal) -> None:
    assert executor.run(["-d", "a", "--digest-file=/dev/null"], terminal, build_that_says(DIGEST, [])) == 0


def test_a_digest_file_that_leads_elsewhere_after_the_build_is_not_written(terminal: Terminal, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep")
    (tmp_path / "fine").symlink_to(tmp_path / "target")

    def build(*given: object) -> Any:
        (tmp_path / "digest").symlink_to(victim)
        return build_that_says(DIGEST, [])(*given)

    assert executor.run(["-d", "a", "--digest-file=fine"], terminal, build) == 0
    assert (tmp_path / "target").read_text() == str(DIGEST)
    (tmp_path / "digest").unlink()
    with pytest.raises(ContextError, match="digest leads elsewhere now"):
        executor.run(["-d", "a", "--digest-file=digest"], terminal, build)
    assert victim.read_text() == "keep"


def test_a_digest_file_that_became_a_pipe_is_not_waited_for(terminal: Terminal, tmp_path: Path) -> None:
    def build(*given: object) -> Any:
        os.mkfifo(tmp_path / "digest")
        return build_that_says(DIGEST, [])(*given)

    with pytest.raises(ContextError, match="digest is no file any more"):
        executor.run(["-d", "a", "--digest-file=digest"], terminal, build)


def test_a_digest_file_that_cannot_be_written_says_so(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ContextError, match="the image is made, but cannot write"):
        executor.run(["-d", "a", "--digest-file=file/digest"], terminal, build_that_says(DIGEST, []))


def test_a_tar_is_standard_input(terminal: Terminal, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("Dockerfile"))
    seen: list[Any] = []
    executor.run(["-d", "a", "--context=tar://c.tar.gz"], terminal, build_that_says(DIGEST, seen))
    assert (seen[0][0].context, seen[0][2]) == ("-", (tmp_path / "c.tar.gz").read_bytes())
    assert seen[0][1].stdin.closed


def test_notes_go_to_standard_error_one_a_line(terminal: Terminal) -> None:
    executor.run(["-d", "a", "--cleanup", "--push-retry=3"], terminal, build_that_says(DIGEST, []))
    said = terminal.stderr.getvalue().decode().splitlines()  # type: ignore[attr-defined]
    assert [line for line in said if line.startswith("note: ")] == [
        "note: --cleanup: each build starts with an empty root file system",
        "note: --push-retry: kpy retries by itself what may be repeated",
    ]


def test_json_has_the_notes_as_json(terminal: Terminal) -> None:
    executor.run(["-d", "a", "--cleanup", "--log-format=json"], terminal, build_that_says(DIGEST, []))
    said = terminal.stderr.getvalue()  # type: ignore[attr-defined]
    messages = [json.loads(line) for line in said.splitlines()]
    shorts = [base64.b64decode(warning["short"]).decode() for message in messages for warning in message["warnings"]]
    assert shorts == ["--cleanup: each build starts with an empty root file system"]


def test_logins_of_kanikos_image_are_found(make_terminal: MakeTerminal, tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text("{}")
    terminal = make_terminal(variables={"KANIKO_DIR": str(tmp_path), "DOCKER_CONFIG": "/kpy/.docker"})
    world = environment(read(["-d", "a"], terminal), terminal)
    assert world.variables["REGISTRY_AUTH_FILE"] == str(tmp_path / ".docker" / "config.json")
    chosen = make_terminal(variables={"KANIKO_DIR": str(tmp_path), "REGISTRY_AUTH_FILE": "/x"})
    assert environment(read(["-d", "a"], chosen), chosen).variables["REGISTRY_AUTH_FILE"] == "/x"


def test_standard_input_of_a_terminal_is_refused(make_terminal: MakeTerminal) -> None:
    with pytest.raises(UsageError, match="standard input, but that is a terminal"):
        read(["-d", "a", "--context=tar://stdin"], make_terminal(stdin_is_terminal=True, stdin=io.BytesIO()))


@pytest.mark.parametrize("verb", ["login", "push"])
def test_kanikos_other_verbs_say_what_to_do(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert executor.main([verb, "x"]) == 2
    assert f"executor {verb} is not supported yet" in capsys.readouterr().err


def test_kanikos_arguments_need_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """The entry point of the image is kpy: a Job's arguments come to it as they are."""
    assert main(["--dockerfile=nowhere/Dockerfile", "--context=s3://b/c", "--destination=r.example/a"]) == 2
    assert "--context s3://b/c: an S3 bucket is not supported yet" in capsys.readouterr().err
    assert main(["--tag", "a", "."]) == 2
    assert "a verb comes first" in capsys.readouterr().err


def test_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert executor.main(["version"]) == 0
    assert capsys.readouterr().out.startswith("kpy ")
    assert main(["executor", "--help"]) == 0
    assert "usage: kpy executor" in capsys.readouterr().out
    assert executor.main(["--nonsense"]) == 2


@pytest.mark.parametrize("sub", ["out", "out/ssl", "../elsewhere", "inside/../../elsewhere", "chain"])
def test_a_sub_path_stays_in_the_context(terminal: Terminal, tmp_path: Path, sub: str) -> None:
    """The command line is fixed in a pipeline; the links in the context are of whoever wrote that."""
    for name in ("context/real", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    for name, link in (("inside", "real"), ("out", "/etc"), ("chain", "out")):
        (tmp_path / "context" / name).symlink_to(link)
    for form in ("dir://context", "context", f"dir://{tmp_path}/context"):
        with pytest.raises(ContextError, match="leads out of the context"):
            read(["-d", "a", f"--context={form}", f"--context-sub-path={sub}"], terminal)
        for fine in ("inside", "real", "/real", "real/.."):
            read(["-d", "a", f"--context={form}", f"--context-sub-path={fine}"], terminal)
    assert read(["-d", "a", "--context=context", "--context-sub-path=/inside"], terminal).options.context == f"{tmp_path}/context/real"


@pytest.mark.parametrize(
    "context", ["git://s3cret@g.example/a#b#c#d", "https://u:s3cret@h.example/c.tar", "ftp://u:s3cret@h.example/c.tar"]
)
def test_no_error_shows_the_login_of_a_context(terminal: Terminal, context: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(["-d", "a", f"--context={context}", "--context-sub-path=x"], terminal)
    assert "s3cret" not in caught.value.message
    assert "example" in caught.value.message


def test_no_login_of_a_repository_is_shown(make_terminal: MakeTerminal) -> None:
    """Only the context has it, as the URL of a user would."""
    terminal = make_terminal(variables={"GIT_TOKEN": "s3cret/x"})
    request = read(["-d", "a", "--context=git://g.example/p.git"], terminal)
    assert request.options.context.startswith("https://s3cret%2Fx:@g.example/p.git?")
    assert "s3cret" not in " ".join(request.notes)
