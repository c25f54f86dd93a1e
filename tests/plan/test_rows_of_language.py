"""Rows of FEATURES sections 1.1 and 1.3 by what the note says, on whole Dockerfiles: P01, P10, P12, P13, P14, X11."""

import pytest

from kpy.dockerfile import instructions as ins
from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.parser import parse
from kpy.errors import DockerfileError
from kpy.oci.config import RuntimeConfig
from kpy.plan.model import CopyOp, RunOp, WorkdirOp
from tests.plan.planning import base, planned, steps_of, target


def only(line: str) -> ins.Instruction:
    return parse(f"FROM a\n{line}\n".encode()).stages[0].instructions[0]


def test_p01_a_byte_order_mark_is_no_part_of_the_first_word() -> None:
    mark = b"\xef\xbb\xbf"
    assert parse(mark + b"# escape=`\nFROM a\nRUN x `\n y").directives.escape == "`"
    assert parse(mark + b"FROM a").stages[0].start.image == "a"
    assert Ignore.parse(mark + b"a").matches("a")
    with pytest.raises(DockerfileError, match="unknown instruction"):
        parse(mark + mark + b"FROM a")  # one


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("COPY --link --chown=1:2 a b", (True, "1:2")),
        ("COPY --chown='1:2' --link=true a b", (True, "1:2")),
        ('COPY --chown="1:2" --link=false a b', (False, "1:2")),
        ("COPY --chown=1\\:2 a b", (False, "1:2")),
        ("COPY --link -- a b", (True, "")),
    ],
)
def test_p10_flags_come_first_and_may_be_quoted(line: str, flags: tuple[bool, str]) -> None:
    copy = only(line)
    assert isinstance(copy, ins.Copy)
    assert (copy.link, copy.chown, copy.sources, copy.dest) == (*flags, ("a",), "b")


def test_p10_after_an_argument_there_are_no_flags() -> None:
    copy = only("COPY a --link b")
    assert isinstance(copy, ins.Copy)
    assert (copy.link, copy.sources) == (False, ("a", "--link"))
    run = only("RUN -- --network=none")
    assert isinstance(run, ins.Run)
    assert (run.command, run.network) == (ins.ShellForm("--network=none"), "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("COPY --chown=1 --chown=2 a b", "duplicate flag specified: --chown"),
        ("COPY --link=1 a b", "expecting boolean value for flag --link"),
        ("COPY --Link a b", "unknown flag: --Link"),
        ("COPY --=x a b", "unknown flag"),
    ],
)
def test_p10_flags_that_cannot_be(line: str, words: str) -> None:
    with pytest.raises(DockerfileError, match=words):
        only(line)


def test_p10_lists_may_be_repeated() -> None:
    run = only("RUN --mount=type=tmpfs,target=/a --mount=type=tmpfs,target=/b x")
    copy = only("COPY --exclude=a --exclude=b . /")
    assert isinstance(run, ins.Run) and len(run.mounts) == 2
    assert isinstance(copy, ins.Copy) and copy.exclude == ("a", "b")


@pytest.mark.parametrize("word", ["run", "Run", "rUN", "RUN"])
def test_p12_case_of_keywords_does_not_count(word: str) -> None:
    item = parse(f"from a as B\n{word} x\n".encode()).stages[0].instructions[0]
    assert isinstance(item, ins.Run)
    assert item.command == ins.ShellForm("x")


@pytest.mark.parametrize("line", ["RSYNC a b", "INCLUDE x", "RUNN x", "#RUN"])
def test_p12_what_is_no_instruction(line: str) -> None:
    """I14, I17: also those that only other builders know."""
    if line.startswith("#"):
        assert parse(f"FROM a\n{line}\n".encode()).stages[0].instructions == ()
        return
    with pytest.raises(DockerfileError, match=f"unknown instruction: {line.split()[0]}"):
        only(line)


def test_p13_how_the_rest_of_a_line_is_cut() -> None:
    """One string, words, pairs, perhaps JSON."""
    whole = [only(line) for line in ("MAINTAINER a  b <c>", "USER a", "WORKDIR /a  b", "STOPSIGNAL SIGTERM")]
    assert [getattr(item, name) for item, name in zip(whole, ("name", "user", "path", "signal"), strict=True)] == [
        "a  b <c>", "a", "/a  b", "SIGTERM",
    ]  # fmt: skip
    expose, env, label = only("EXPOSE 1 \t 2/udp"), only('ENV a=1 b="x y" c=d\\ e'), only("LABEL a b c")
    assert isinstance(expose, ins.Expose) and expose.ports == ("1", "2/udp")
    assert isinstance(env, ins.Env)
    assert [(pair.key, pair.value) for pair in env.pairs] == [("a", "1"), ("b", '"x y"'), ("c", "d\\ e")]
    assert isinstance(label, ins.Label)
    assert [(pair.key, pair.value) for pair in label.pairs] == [("a", "b c")], "the old form: a name and the rest"
    for line in ("COPY a  b /c/", 'COPY ["a", "b", "/c/"]'):
        copy = only(line)
        assert isinstance(copy, ins.Copy)
        assert (copy.sources, copy.dest) == (("a", "b"), "/c/")
    volumes = [only(line) for line in ("VOLUME /a  /b", 'VOLUME ["/a", "/b"]')]
    assert [item.paths for item in volumes if isinstance(item, ins.Volume)] == [("/a", "/b")] * 2
    for keyword in ("RUN", "CMD", "ENTRYPOINT"):
        shell, json = only(f"{keyword} a  b"), only(f'{keyword} ["a", "b"]')
        assert isinstance(shell, ins.Run | ins.Cmd | ins.Entrypoint) and isinstance(json, ins.Run | ins.Cmd | ins.Entrypoint)
        assert (shell.command, json.command) == (ins.ShellForm("a  b"), ins.ExecForm(("a", "b")))
    with pytest.raises(DockerfileError, match="must be in JSON form"):
        only("SHELL sh -c")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("# a comment\n\n", "file with no instructions"),
        ("ARG a\n", "has no build stage"),
        ("ENV a=b\nFROM a\n", "no build stage in current context: ENV must be after a FROM"),
    ],
)
def test_p14_files_without_a_stage(text: str, words: str) -> None:
    with pytest.raises(DockerfileError, match=words):
        parse(text.encode())


# --- X11 ----------------------------------------------------------------------

EXPANDED = """ARG IMAGE=base
ARG WHERE=linux/amd64
FROM --platform=$WHERE $IMAGE
ARG V=v
ARG W=$V-w
ENV E=$W
EXPOSE 1${N:-2}
LABEL $V=$E
STOPSIGNAL ${S:-SIGINT}
USER $V
VOLUME /$V
WORKDIR /$V
COPY --chown=$V:$W --chmod=${M:-700} $V.txt /$W/
COPY <<EOF /h
$V $W
EOF
COPY <<'EOF' /raw
$V $W
EOF
RUN --mount=type=cache,target=/$V,id=$W --mount=type=secret,id=$V,env=X x $V
"""


def test_x11_what_is_expanded() -> None:
    plan = planned(EXPANDED)
    found = plan.targets[0].runtime
    assert found.exposed_ports == ("12/tcp",)
    assert found.labels == {"v": "v-w"}
    assert (found.stop_signal, found.user, found.volumes, found.workdir) == ("SIGINT", "v", ("/v",), "/v")
    assert found.getenv("E") == "v-w"
    copy, heredoc, raw = [step.op for step in steps_of(plan, CopyOp)]
    assert isinstance(copy, CopyOp) and isinstance(heredoc, CopyOp) and isinstance(raw, CopyOp)
    assert (copy.chown, copy.chmod, copy.sources[0].paths, copy.dest) == ("v:v-w", "700", ("v.txt",), "/v-w/")
    assert heredoc.heredocs == (("EOF", "v v-w\n"),)
    assert raw.heredocs == (("EOF", "$V $W\n"),)
    (run,) = [step.op for step in steps_of(plan, RunOp)]
    assert isinstance(run, RunOp)
    assert [(mount.target, mount.id) for mount in run.mounts] == [("/v", "v-w"), ("", "v")]
    assert run.argv[-1] == "x $V", "the shell does that (X12)"
    assert [step.op.path for step in steps_of(plan, WorkdirOp) if isinstance(step.op, WorkdirOp)] == ["/v"]


def test_x11_a_trigger_is_expanded_when_it_runs() -> None:
    images = base(RuntimeConfig(env=("PATH=/bin", "V=base"), onbuild=("ENV T=$V",)))
    assert target("FROM base\nONBUILD ENV T=$V\n").runtime.onbuild == ("ENV T=$V",)
    assert target("FROM base\nENV V=later\n", images).runtime.getenv("T") == "base"
