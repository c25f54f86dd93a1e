"""Whatever comes in: a Dockerfile or a DockerfileError; an expansion or a WordError."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.dump import dump
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.globs import Glob, PathPattern
from kpy.dockerfile.instructions import Run, ShellForm
from kpy.dockerfile.parser import parse, parse_onbuild
from kpy.dockerfile.words import WordError, expand, expand_heredoc, expand_words
from kpy.errors import DockerfileError

KEYS = "FROM ARG ENV LABEL RUN COPY ADD CMD ENTRYPOINT HEALTHCHECK WORKDIR USER EXPOSE VOLUME STOPSIGNAL SHELL ONBUILD"
soup = st.lists(
    st.one_of(
        st.sampled_from(KEYS.split()),
        st.sampled_from([" ", "\n", "\\\n", "\r\n", "\t", "<<E", "E\n", '["a"', "]", "--mount=", "type=", "# escape=`\n", "\0"]),
        st.text(max_size=6),
    ),
    max_size=25,
).map(lambda parts: "".join(parts).encode("utf-8", "surrogatepass"))
name = st.text(alphabet="abAB_1", min_size=1, max_size=3)
word = st.text(alphabet="ab$ {}:-+?#%/*\\'\"`1é\n", max_size=30)
env = st.dictionaries(name, st.text(alphabet="ab/*?\\ é\n", max_size=8), max_size=4)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(max_size=200), soup, soup.map(lambda data: b"FROM a\n" + data)))
@example(b"\xef\xbb\xbf")
@example(b"#!")
@example(b"//")
@example(b"{")
def test_parse_ends_well(data: bytes) -> None:
    try:
        found = parse(data)
    except DockerfileError as error:
        assert error.message and "\n" not in error.message
        assert 0 <= error.first_line <= error.last_line <= data.count(b"\n") + 1
        return
    dump(found).encode()
    for stage in found.stages:
        for item in stage.instructions:
            assert 1 <= item.span.first <= item.span.last <= len(found.source.lines)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_triggers_end_well(text: str) -> None:
    try:
        parse_onbuild(text)
    except DockerfileError as error:
        assert error.message


@settings(max_examples=600, deadline=None)
@given(word, env, st.sampled_from("\\`"), st.booleans(), st.booleans(), st.booleans())
def test_expansion_ends_well(text: str, env: dict[str, str], escape: str, quotes: bool, escapes: bool, unset: bool) -> None:
    for function in (
        lambda: expand(text, env, escape=escape, raw_quotes=quotes, raw_escapes=escapes, skip_unset=unset),
        lambda: expand_words(text, env, escape=escape),
        lambda: expand_heredoc(text, env),
    ):
        try:
            function()
        except WordError as error:
            assert error.message


@given(st.text(alphabet="abcé /._", max_size=20), env)
def test_plain_text_stays(text: str, env: dict[str, str]) -> None:
    assert expand(text, env).text == text
    assert expand_words(text, env) == text.split()


@given(env, st.sampled_from(["${%s}", "$%s", '"$%s"', "${%s:-}", "${%s#}", "${%s%%zz}", "${%s/zz/y}"]))
def test_a_value_arrives_as_it_is(env: dict[str, str], form: str) -> None:
    for key, value in env.items():
        if not key[0].isdecimal():
            assert expand(form % key if "%%" not in form else form.replace("%s", key).replace("%%", "%"), env).text == value


@given(st.lists(st.text(alphabet="ab c#", min_size=1, max_size=8), min_size=1, max_size=6))
def test_continuations_join(parts: list[str]) -> None:
    # Comments vanish; blanks before a continuation stay, and an empty last line has nothing to add.
    wanted = "x" + parts[0] + "".join(part for part in parts[1:] if not part.lstrip().startswith("#"))
    (run,) = parse(("FROM a\nRUN x" + "\\\n".join(parts)).encode()).stages[0].instructions
    assert isinstance(run, Run)
    assert run.command == ShellForm(wanted.strip())


@given(st.text(alphabet="ab/*?[]^-\\!. ", min_size=1, max_size=12), st.text(alphabet="ab/-", min_size=1, max_size=12))
def test_patterns_end_well(pattern: str, path: str) -> None:
    for kind in (Glob, PathPattern):
        try:
            kind.parse(pattern).matches(path)
        except FormError as error:
            assert error.message
    try:
        ignore = Ignore.parse(pattern.encode())
    except DockerfileError:
        return
    ignore.matches(path)


@given(
    st.lists(st.sampled_from(["a", "b", "*", "!a", "!b", "a/b", "!a/b", "**/b", "!**/a", "a*", "!a/*"]), max_size=5),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4),
)
def test_a_walk_that_trusts_may_include_below_misses_nothing(patterns: list[str], parts: list[str]) -> None:
    ignore = Ignore.of(patterns)
    if not ignore.matches("/".join(parts)):
        for end in range(1, len(parts)):
            directory = "/".join(parts[:end])
            assert not ignore.matches(directory) or ignore.may_include_below(directory)
