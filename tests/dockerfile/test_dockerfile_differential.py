"""The `dockerfile` package wraps BuildKit's parser package (the first of BuildKit's two passes). Both must agree.

What it rejects, kpy rejects. What kpy accepts, it accepts, with the same instructions, values, flags, heredocs, lines.
What only kpy rejects must be in `LATER`: things that BuildKit's second pass, or nothing of a builder, could accept.
"""

import json
import re
from pathlib import Path

import dockerfile as reference
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kpy.dockerfile import instructions as ins
from kpy.dockerfile.forms import FormError, split_flags, split_keyword
from kpy.dockerfile.heredoc import parse_heredoc
from kpy.dockerfile.lines import read
from kpy.dockerfile.parser import parse
from kpy.errors import DockerfileError

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*/Dockerfile"))

EXAMPLES = 1000
LATER = [
    r"requires (at least|exactly|either)",  # counts of arguments
    r"unknown instruction|no build stage|has no build stage|isn't allowed|takes no arguments",
    r"unknown flag|duplicate flag|missing a value on flag|boolean value",
    r"names can not be blank|can not be an empty|must be in JSON form|heredoc as a destination",
    r"invalid name for build stage|unknown type|invalid duration|invalid value|missing command|cannot be less",
    r"unsupported (mount|sharing|network|security)|unexpected key|invalid field|invalid secret|csv|not allowed for",
    r"doesn't support variable|invalid cache sharing",
    r"invalid text",  # NUL and what is not UTF-8: BuildKit lets them through until something else fails
    r"unexpected end of file",  # BuildKit: unknown instruction ""
    r"only one check parser directive",  # the package is older than this directive; today's BuildKit refuses it
]


def flags_of(line: str) -> tuple[str, ...]:
    """The package shows no flags of the instruction behind ONBUILD."""
    return tuple(split_flags(split_keyword(line)[1])[0])


def ungarbled(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Go's parser reads flags byte by byte, and makes a character of each."""
    return tuple(flag.encode("latin-1").decode("utf-8", "replace") for flag in flags)


def value(item) -> tuple[str, ...]:
    """What the reference calls `value`."""
    match item:
        case ins.From():
            return (item.image, item.as_keyword, item.name_written) if item.name else (item.image,)
        case ins.Arg():
            return tuple(a.key if a.value is None else f"{a.key}={a.value}" for a in item.args)
        case ins.Env() | ins.Label():
            return tuple(text for pair in item.pairs for text in (pair.key, pair.value or ""))
        case ins.Run() | ins.Cmd() | ins.Entrypoint():
            return command(item.command)
        case ins.HealthcheckInstruction():
            return ("CMD", *command(item.command)) if item.command else ("NONE",)
        case ins.Copy() | ins.Add():
            return (*item.sources, item.dest)
        case ins.Expose():
            return item.ports
        case ins.Volume():
            return item.paths
        case ins.Shell():
            return item.argv
        case ins.Workdir():
            return (item.path,)
        case ins.User():
            return (item.user,)
        case ins.StopSignal():
            return (item.signal,)
        case ins.Maintainer():
            return (item.name,)
    raise AssertionError(item)


def command(form) -> tuple[str, ...]:
    return form.argv if isinstance(form, ins.ExecForm) else ((form.text,) if form.text else ())


def flat(data: bytes):
    found = parse(data)
    everything = list(found.global_args)
    for stage in found.stages:
        everything += [stage.start, *stage.instructions]
    return sorted(everything, key=lambda item: item.span.first)


def is_heredoc(word: str, names: set[str]) -> bool:
    try:
        found = parse_heredoc(word)
    except FormError:
        return False
    return found is not None and found.name in names


def arguments_of(line: str) -> str:
    keyword, rest = split_keyword(line)
    rest = split_flags(rest)[1]
    if keyword.upper() == "HEALTHCHECK":
        return split_keyword(rest)[1]
    return arguments_of(rest) if keyword.upper() == "ONBUILD" else rest


def has_text_behind_json(line: str) -> bool:
    """The package has an older parser, for which `["a"] b` is JSON. For today's BuildKit it is not (P11)."""
    rest = arguments_of(line)
    try:
        return rest.startswith("[") and bool(rest[json.JSONDecoder().raw_decode(rest)[1] :].strip())
    except ValueError:
        return False


def compare(data: bytes) -> None:
    try:
        theirs = reference.parse_string(data.decode())
    except reference.GoParseError:
        try:
            found = read(data, "Dockerfile").lines
        except DockerfileError:
            return
        if not any(has_text_behind_json(line.text) for line in found):
            with pytest.raises(DockerfileError):
                parse(data)
        return
    # A mark of continuation at the end of the file is an instruction without a name, there.
    if any(has_text_behind_json((command.original or "").split("\n")[0]) for command in theirs):
        return
    try:
        ours = flat(data)
    except DockerfileError as error:
        assert any(re.search(known, error.message) for known in LATER), (error.message, theirs)
        return
    lines = read(data, "Dockerfile").lines
    assert len(ours) == len(theirs) == len(lines)
    for mine, line, other in zip(ours, lines, theirs, strict=True):
        assert type(mine).__name__.removesuffix("Instruction").upper() == other.cmd.upper()
        assert (mine.span.first, mine.span.last) == (other.start_line, other.end_line)
        assert flags_of(line.text) == ungarbled(other.flags)
        heads = [(h.name, h.fd, h.raw) for h in line.heredocs]
        if isinstance(mine, ins.Onbuild):  # nor its heredocs
            assert mine.expression.split(None, 1)[0].upper() == other.sub_cmd.upper()
            continue
        assert heads == [(h.name, h.file_descriptor, h.content) for h in other.heredocs]
        if isinstance(mine, ins.Volume):
            assert value(mine) == tuple(path.strip() for path in other.value)
        elif isinstance(mine, ins.HealthcheckInstruction):
            assert value(mine)[1:] == other.value[1:]
        else:
            names = {h.name for h in line.heredocs} if isinstance(mine, ins.Copy | ins.Add) else set()
            assert value(mine) == tuple(w for w in other.value if not is_heredoc(w, names))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.parent.name)
def test_golden_dockerfiles(path: Path) -> None:
    compare(path.read_bytes())


KEYWORDS = "FROM ARG ENV LABEL RUN COPY ADD CMD ENTRYPOINT HEALTHCHECK WORKDIR USER EXPOSE VOLUME STOPSIGNAL SHELL ONBUILD MAINTAINER run Copy eNv RUNN".split()  # fmt: skip
PIECES = [
    "a", "b=c", "b='c d'", 'k="v w"', "x=a\\ b", "=", "'", '"', "\\", "\\\\", "`", "$V", "${V:-w}", '["a", "b"]', "[", "[]",
    '["a"', "['a']", '[1, "a"]', "[null]", "--from=x", "--link", "--chown=1:2", "--mount=type=cache,target=/c", "--",
    "--x y", "<<EOF", "<<-EOF", '<<"EOF"', "3<<B", "<<E\\ F", "<<", "as", "AS", "/dst", ".", "# no comment", "CMD", "NONE",
    "ONBUILD", "é", "\t", "  ", "-", "<<'E F'", '{"a": 1}', "--interval=5s", "COPY", "RUN",
]  # fmt: skip
ENDS = ["\n", "\n", "\n", "\r\n", " \\\n", "\\\n", "\\ \t\n", "`\n", "\n\n", "\n# note\n", " \\\n# note\n", " \\\n\n", "\\\\\n"]
BODIES = ["EOF\n", "\tEOF\n", "B\n", "body\n", "\tindented\n", "E F\n", "EOF\r\n", ""]
HEADS = ["", "", "", "# escape=`\n", "# syntax=x\n# escape=\\\n", "#!/x\n", "# note\n", "\ufeff", "\n", "# check=skip=all\n"]

words = st.lists(st.sampled_from(PIECES), max_size=5).map(" ".join)
lines = st.tuples(
    st.sampled_from(["", " ", "\t"]),
    st.sampled_from(KEYWORDS),
    st.sampled_from([" ", "\t", "  ", ""]),
    words,
    st.sampled_from(ENDS),
    st.lists(st.sampled_from(BODIES), max_size=3).map("".join),
).map("".join)
files = st.tuples(
    st.sampled_from(HEADS), st.sampled_from(["FROM a\n", "FROM a AS b\r\n", ""]), st.lists(lines, max_size=5).map("".join)
).map("".join)


@settings(max_examples=EXAMPLES, deadline=None)
@given(files)
@example("FROM a\nRUN x \\\\\nCMD b")
@example("\\\nFROM a\n")
@example("FROM a\nRUN <<A <<B cat\nA\nB\n")
@example("FROM a\nLABEL a=b \\\n      c=d \\\n")
@example('FROM a\nRUN ["a", NaN]\n')
def test_generated_dockerfiles(text: str) -> None:
    compare(text.encode())


def test_known_differences() -> None:
    """Where kpy goes its own way, and why."""
    # The flags of Go's parser are read byte by byte: what is not ASCII is garbled. kpy keeps it.
    assert reference.parse_string("COPY --chown=é a b")[0].flags == ("--chown=Ã©",)
    assert split_flags("--chown=é a b") == (["--chown=é"], "a b")
    # A `//syntax=` line names a frontend (P02); kpy reads on behind it.
    assert reference.parse_string("//syntax=x\nFROM a")[0].cmd == "//syntax=x"
    assert parse(b"//syntax=x\nFROM a").directives.syntax == "x"
    # Lines above 65535 bytes (P09).
    long = "FROM a\nLABEL x=" + "y" * 70000
    with pytest.raises((reference.GoParseError, reference.GoIOError)):
        reference.parse_string(long)
    assert len(parse(long.encode()).stages[0].instructions[0].pairs[0].value) == 70000
