"""Whole files: positions, directives, errors (P01-P16, H01-H09, I05, I07)."""

import pytest

from kpy.dockerfile import instructions as ins
from kpy.dockerfile.heredoc import HeredocFile, HeredocScript, heredoc_shell_text
from kpy.dockerfile.lines import MAX_INSTRUCTIONS, MAX_SIZE
from kpy.dockerfile.parser import parse, parse_onbuild
from kpy.dockerfile.span import Source, Span
from kpy.errors import DockerfileError


def first(text: str | bytes):
    data = text.encode() if isinstance(text, str) else text
    return parse(b"FROM a\n" + data).stages[0].instructions[0]


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("FROM a\nRUNN x", 2, "unknown instruction: RUNN", 'did you mean "RUN"?'),
        ("FROM a\n\n\nCOPY --chwon=1 a b", 4, "unknown flag: --chwon", 'did you mean "--chown"?'),
        ("FROM a\nENV a=1 \\\n b=2 \\\n # c\n c=3\n\nCOPY --x=1 a b", 7, "unknown flag: --x", "there are --from"),
        ("FROM a\nCOPY --link --link a b", 2, "duplicate flag specified: --link", ""),
        ("FROM a\nCOPY --from a b", 2, "missing a value on flag: --from", "--from=value"),
        ("FROM a\nCOPY --link=yes a b", 2, "expecting boolean value for flag --link", ""),
        ("FROM a\nCOPY --link= a b", 2, "expecting boolean value", ""),
        ("FROM a\nUSER --x y", 2, "unknown flag: --x", "takes no flags"),
        ("FROM a\nCOPY a", 2, "COPY requires at least two arguments, but only one", ""),
        ("FROM a\nADD", 2, "ADD requires at least two arguments", ""),
        ("FROM a\nADD a <<EOF\nEOF\n", 2, "ADD cannot have a heredoc as a destination", ""),
        ("FROM a\nCOPY <<../x /d\n../x\n", 2, "invalid heredoc", ""),
        ("FROM a\nRUN <<EOF\nx", 2, "unterminated heredoc: no line 'EOF' follows", ""),
        ("FROM a\nRUN [1]", 2, "array must hold strings only", ""),
        ("FROM a\nCMD " + "[" * 100000, 2, "strings only", ""),
        ("FROM a\nRUN []", 2, "RUN requires at least one argument", ""),
        ("FROM a\nRUN --network=hots x", 2, 'unsupported network mode "hots"', 'did you mean "host"?'),
        ("FROM a\nRUN --security=none x", 2, "unsupported security mode", "sandbox, insecure"),
        ("FROM a\nRUN --mount=type=tmp x", 2, 'unsupported mount type "tmp"', 'did you mean "tmpfs"?'),
        ("FROM a\nSHELL /bin/sh", 2, "SHELL arguments must be in JSON form", '["/bin/sh", "-c"]'),
        ("FROM a\nSHELL []", 2, "SHELL requires at least one argument", ""),
        ("FROM a\nENV x", 2, "ENV must have two arguments", "ENV x=value"),
        ("FROM a\nENV =x", 2, "ENV names can not be blank", ""),
        ("FROM a\nLABEL a=b # c", 2, "can't find = in '#'", "comment"),
        ("FROM a\nARG", 2, "ARG requires at least one argument", ""),
        ("FROM a\nARG a =b", 2, "ARG names can not be blank", ""),
        ("FROM a\nWORKDIR", 2, "WORKDIR requires exactly one argument", ""),
        ("FROM a\nVOLUME", 2, "VOLUME requires at least one", ""),
        ('FROM a\nVOLUME ["a", " "]', 2, "can not be an empty string", ""),
        ("FROM a\nEXPOSE", 2, "EXPOSE requires at least one", ""),
        ("FROM a\nHEALTHCHECK", 2, "HEALTHCHECK requires at least one", ""),
        ("FROM a\nHEALTHCHECK MAYBE x", 2, 'unknown type "MAYBE" in HEALTHCHECK', ""),
        ("FROM a\nHEALTHCHECK NONE x", 2, "takes no arguments", ""),
        ("FROM a\nHEALTHCHECK CMD", 2, "missing command after HEALTHCHECK CMD", ""),
        ("FROM a\nHEALTHCHECK --interval=1us CMD x", 2, "cannot be less than 1ms", ""),
        ("FROM a\nHEALTHCHECK --timeout=-5s CMD x", 2, "cannot be less than 1ms", ""),
        ("FROM a\nHEALTHCHECK --timeout=5 CMD x", 2, "invalid duration", "30s"),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD x", 2, "cannot be negative", ""),
        ("FROM a\nONBUILD", 2, "ONBUILD requires at least one", ""),
        ("FROM a\nONBUILD ONBUILD RUN x", 2, "isn't allowed", ""),
        ("FROM a\nonbuild from x", 2, "FROM isn't allowed as an ONBUILD trigger", ""),
        ("FROM", 1, "FROM requires either one or three arguments", ""),
        ("FROM a AS b c", 1, "FROM requires either one or three arguments: unexpected 'c'", ""),
        ("FROM a IS b", 1, "unexpected 'IS'", ""),
        ("FROM a AS 1b", 1, "invalid name for build stage: '1b'", "starts with a letter"),
        ("FROM a AS b/c", 1, "invalid name for build stage", ""),
        ("ARG x\nRUN y\nFROM a", 2, "no build stage in current context: RUN must be after a FROM", "only ARG"),
        ("# escape=x\nFROM a", 1, "invalid escape token 'x'", ""),
        ("# escape=`\n# escape=`\nFROM a", 2, "only one escape parser directive can be used", ""),
        ('{"syntax": "example/bake"}', 1, "unsupported syntax", ""),
        ("FROM a\nRUN \\\n# only\n", 2, "", ""),
        ("ARG x", 0, "has no build stage", "FROM"),
        ("# x\n\n", 0, "file with no instructions", ""),
        ("", 0, "is empty", ""),
        ("\ufeff", 0, "is empty", ""),
        ("FROM a\nRUN x\0y", 2, "NUL", ""),
        ('FROM a\nRUN ["\\u0000"]', 2, "NUL", ""),
    ],
)
def test_errors(text: str, line: int, message: str, hint: str) -> None:
    if not message:
        parse(text.encode())
        return
    with pytest.raises(DockerfileError) as caught:
        parse(text.encode(), "some/Dockerfile")
    error = caught.value
    assert message in error.message
    assert hint in error.hint
    assert (error.file, error.first_line) == ("some/Dockerfile", line)
    assert (">>>" in error.excerpt) is (line > 0)
    assert "\n" not in error.message


def test_an_error_looks_good() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(b"FROM a\nENV x=1\nRUNN make \\\n  all\nCMD x\nUSER y\n")
    assert caught.value.excerpt == (
        "   1 |     FROM a\n   2 |     ENV x=1\n   3 | >>> RUNN make \\\n   4 | >>>   all\n   5 |     CMD x\n   6 |     USER y"
    )
    assert (caught.value.first_line, caught.value.last_line) == (3, 4)


def test_directives() -> None:
    found = parse(b"#!/usr/bin/env docker-build\n#syntax=a/b:1 more\n# check=skip=all\n# Escape=`\nFROM a\nRUN x \\\n y")
    assert (found.directives.syntax, found.directives.check) == ("a/b:1", "skip=all")
    assert found.directives.escape == "\\"  # P05: behind #! BuildKit does not read it
    assert found.directives.spans["check"].first == 3
    assert parse(b"// syntax = a/b\nFROM a").directives.syntax == "a/b"  # P02
    assert parse(b"#  eSCape = `  \nFROM a\nRUN x `\n y").stages[0].instructions[0].command == ins.ShellForm("x  y")  # P03
    assert parse(b"\n# escape=`\nFROM a").directives.escape == "\\"  # P05
    assert parse(b"# note\n# escape=`\nFROM a").directives.escape == "\\"
    assert parse(b"# a=b\n# escape=`\nFROM a").directives.escape == "\\"


def test_bytes_that_are_not_utf8() -> None:
    found = parse(b"# caf\xe9\nFROM a\nRUN x \\\n# \xff\n  y")
    assert found.source.lines[0] == "# caf\ufffd"
    for text in (b"FROM a\nLABEL a=\xe9", b"FROM a\nCOPY <<E /x\n\xe9\nE\n"):
        with pytest.raises(DockerfileError, match="not UTF-8") as caught:
            parse(text)
        assert caught.value.first_line == 2


def test_size_limits() -> None:
    with pytest.raises(DockerfileError, match="larger than 16 MiB"):
        parse(b"#" * (MAX_SIZE + 1))
    long = parse(b"FROM a\nRUN " + b"x" * (1 << 20) + b" <<E\nE\n")  # P09: no limit for a line
    assert len(long.stages[0].instructions[0].command.text) == (1 << 20) + 4


def test_too_many_instructions() -> None:
    """A million RUNs took 50 seconds to plan, and no engine takes so many layers."""
    runs = b"RUN x\n" * MAX_INSTRUCTIONS
    assert len(parse(b"FROM a\n" + runs[6:]).stages[0].instructions) == MAX_INSTRUCTIONS - 1
    with pytest.raises(DockerfileError, match=f"more than {MAX_INSTRUCTIONS} instructions") as caught:
        parse(b"FROM a\n" + runs)
    assert caught.value.first_line == MAX_INSTRUCTIONS + 1


def test_comments_and_continuations() -> None:
    run = first("RUN a \\\n# c\n  # d\n\n   b # e\\\n   c")  # P06, P07, P08
    assert run.command == ins.ShellForm("a    b # e   c")
    assert run.original == "RUN a    b # e   c"
    assert (run.span.first, run.span.last) == (2, 7)
    assert first("RUN a \\\\\nRUN b").command == ins.ShellForm("a \\\\")
    assert first("RUN a \\ \t\n b").command == ins.ShellForm("a  b")


def test_json_and_what_only_looks_like_it() -> None:
    assert first('CMD ["a", "\\u00e9"]').command == ins.ExecForm(("a", "é"))  # P11
    assert first("CMD ['a']").command == ins.ShellForm("['a']")
    assert first('CMD ["a"] b').command == ins.ShellForm('["a"] b')
    assert first('CMD ["a", NaN]').command == ins.ShellForm('["a", NaN]')
    assert first('COPY ["a" "b"] /x').sources == ('["a"', '"b"]')
    assert first('COPY ["<<a", "b"]').sources == ("<<a",)  # H01
    assert first("CMD []").command == ins.ExecForm(())


def test_healthcheck() -> None:
    check = first("HEALTHCHECK --interval=1m --retries=0 CMD x y")
    assert (check.command, check.interval, check.retries) == (ins.ShellForm("x y"), 60 * 10**9, 0)
    assert first("HEALTHCHECK --interval=5s none").command is None


def test_heredocs_of_run() -> None:
    assert heredoc_shell_text(first("RUN <<EOF\na\nEOF")) == HeredocScript("a\n")  # H07
    assert heredoc_shell_text(first("RUN <<-EOF\n\ta\n\tEOF")) == HeredocScript("a\n")  # H04
    shebang = heredoc_shell_text(first("RUN <<-EOF\n\t#!/bin/awk -f\n\tx\n\tEOF"))
    assert shebang == HeredocFile("EOF", "#!/bin/awk -f\nx\n")
    assert isinstance(shebang, HeredocFile) and shebang.path == "/dev/pipes/EOF"
    assert heredoc_shell_text(first("RUN cat <<-A 3<<'B' > x\n\ta\n\tA\n$b\nB")) == ins.ShellForm(
        "cat <<-A 3<<'B' > x\n\ta\nA\n$b\nB"
    )  # H02, H03, H08
    assert heredoc_shell_text(first("RUN --mount=type=ssh <<EOF\na\nEOF")) == HeredocScript("a\n")  # H09
    assert heredoc_shell_text(first('RUN ["a", "<<b"]')) == ins.ExecForm(("a", "<<b"))
    assert heredoc_shell_text(first("RUN echo 1 << 2")) == ins.ShellForm("echo 1 << 2")
    assert heredoc_shell_text(first("RUN it's <<EOF")) == ins.ShellForm("it's <<EOF")
    with pytest.raises(DockerfileError, match="cannot be the name of a file"):
        heredoc_shell_text(first("RUN <<a/b\n#!x\na/b"))


def test_heredocs_of_copy() -> None:
    copy = first("COPY a <<x <<'y' 3<<z /d/\n$1\nx\n$2\ny\nz\n")
    assert copy.sources == ("a",)
    assert [(h.name, h.content, h.expand, h.fd) for h in copy.heredocs] == [
        ("x", "$1\n", True, 0), ("y", "$2\n", False, 0), ("z", "", True, 3),
    ]  # fmt: skip
    assert first("COPY <<E /x\r\nbody\r\nE\r\n").heredocs[0].content == "body\r\n"  # P16
    assert [h.content for h in first("COPY <<a <<a /d\n1\na\n2\na").heredocs] == ["2\n", "2\n"]


def test_onbuild_triggers_of_a_base() -> None:
    trigger = parse_onbuild("COPY <<E /x\nhi\nE", name="ONBUILD of base/x")
    assert isinstance(trigger, ins.Copy) and trigger.heredocs[0].content == "hi\n"
    assert (trigger.span.source.name, trigger.span.first, trigger.span.last) == ("ONBUILD of base/x", 1, 3)
    start = Span(Source("Dockerfile", ("", "FROM base/x")), 2, 2)
    for text, message in (
        ("FROM b", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD RUN x", "isn't allowed"),
        ("FOO", "unknown instruction: FOO"),
        ("RUN a\nRUN b", "single instruction"),
        ("", "is empty"),
        ("RUN \udcff", ""),
    ):
        if not message:
            parse_onbuild(text, start)
            continue
        with pytest.raises(DockerfileError, match=message) as caught:
            parse_onbuild(text, start)
        assert (caught.value.file, caught.value.first_line) == ("Dockerfile", 2)
        with pytest.raises(DockerfileError, match=message):
            parse_onbuild(text)
    # Whoever wrote the trigger had no directives: a first line that looks like one is a comment.
    assert isinstance(parse_onbuild("# escape=`\nRUN x \\\n y"), ins.Run)


def test_onbuild_is_kept_as_text() -> None:
    assert first("ONBUILD   RUN <<-E cat\n\tx\n\tE").expression == "RUN <<-E cat\n\tx\nE"  # I07
