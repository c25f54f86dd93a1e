"""Expansion (X01-X13, H06)."""

import pytest

from kpy.dockerfile.words import WordError, expand, expand_heredoc, expand_words

ENV = {"PWD": "/home", "SHELL": "bash", "KOREAN": "한국어", "NULL": "", "FOO": "xxyy", "STAR": "xx**"}


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("$PWD/${SHELL}", "/home/bash"),  # X01
        ("$nope.", "."),
        ("$1x$999y$@@", "xy@"),
        ("$.", "$."),
        ("$", "$"),
        ("${nope-w}${NULL-w}${NULL:-e}", "we"),  # X02
        ("${nope+w}[${NULL:+w}]${NULL+s}", "[]s"),  # X03
        ("${PWD:?}${NULL?}", "/home"),  # X04
        ("${SHELL#b*s}|${SHELL##b*s}|${SHELL##*}|${SHELL#*}", "h|h||bash"),  # X05
        ("${FOO#*x*y}|${FOO##*x}|${FOO#}|${FOO#$NULL}", "y|yy|xxyy|xxyy"),
        ("${SHELL%s*}|${SHELL%%s*}|${SHELL%%[as]*}|${SHELL%?}", "ba|ba|bash|bas"),  # X06, X08: no brackets
        ("${STAR%%\\**}|${STAR%\\*}", "xx|xx*"),
        ("${PWD/o/0}|${PWD//\\//-}|${PWD/\\/h/-}|${SHELL//?/z}", "/h0me|-home|-ome|zzzz"),  # X07
        ("${SHELL/*/all}|${SHELL//*/all}|${SHELL/$NULL/w}|${SHELL//$NULL/-}", "all|all|wbash|-b-a-s-h-"),
        ("${KOREAN#?}${KOREAN%?}", "국어한국"),
        ("${nope:-${nope2:-$PWD}}", "/home"),  # X09
        ("\\$PWD|'$PWD'|\"$PWD\"|\"'$PWD'\"|'\"'", "$PWD|$PWD|/home|'/home'|\""),
        ("a\\tb|\"a\\tb\"|'a\\tb'|\"\\\\\"|\"\\\"\"", 'atb|a\\tb|a\\tb|\\|"'),
        ("${nope:-\\$PWD:}x", "$PWD:x"),
        ("${aaa:-bbb}}", "bbb}"),
        ("end\\", "end"),
        ("  blanks  stay ", "  blanks  stay "),
    ],
)
def test_expand(word: str, text: str) -> None:
    assert expand(word, ENV).text == text


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("${b:=c}", r"unsupported modifier \(:=\) in substitution"),
        ("${b=c}", "unsupported modifier"),
        ("${b\nc}", r"unsupported modifier \('\\n'\) in substitution"),  # found by fuzzing: an error of two lines
        ("${b:#c}", "unsupported modifier"),
        ("${b", "missing '}'"),
        ("${", "missing '}'"),
        ("${b:", "missing '}'"),
        ("${b:-c", "missing '}'"),
        ("${FOO//ww}", "missing '/'"),
        ("${}", "bad substitution"),
        ("${{a}}", "bad substitution"),
        ("'a", "single-quote"),
        ('"a', "double-quote"),
        ('"a\\', "double-quote"),
        ('${nope:?"custom message"}', "required variable nope is not set: custom message"),
        ("${NULL:?}", "required variable NULL is empty"),
        ("${FOO#\\x}", "invalid pattern"),
        ("${a:-" * 200 + "}" * 200, "within each other"),
    ],
)
def test_bad_words(word: str, message: str) -> None:
    with pytest.raises(WordError, match=message):
        expand(word, ENV)


def test_unset_names_those_without_a_default() -> None:
    found = expand("$a ${b} ${c:-x} ${d+x} ${e#x} $PWD", ENV)
    assert found.unset == {"a", "b", "e"}


def test_escape_backtick() -> None:
    assert expand('c:\\dir` x`$PWD"d`"q\\"', ENV, escape="`").text == 'c:\\dir x$PWDd"q\\'


def test_words_split_after_expansion_unless_quoted() -> None:
    env = {"PORTS": "3000 4000/udp"}
    assert expand_words("$PORTS", env) == ["3000", "4000/udp"]  # X13
    assert expand_words('"$PORTS" a\\ b\'\'', env) == ["3000 4000/udp", "a b"]
    assert expand_words("  $nope ", env) == []


def test_raw_forms_keep_the_marks() -> None:
    assert expand("'a' \"b\" \\c", {}, raw_quotes=True, raw_escapes=True).text == "'a' \"b\" \\c"
    assert expand("$a ${b:-c} $PWD", ENV, skip_unset=True).text == "$a ${b:-c} /home"


def test_heredoc_bodies_keep_quotes() -> None:
    body = "'$PWD' \"$PWD\" \\$PWD \\\\ \\\nit's\n"
    assert expand_heredoc(body, ENV).text == "'/home' \"/home\" $PWD \\ \nit's\n"  # H06


def test_patterns_are_never_slow() -> None:
    env = {"v": "a" * 20000}
    assert expand("${v##*a*a*a*a*a*a*a*b}", env).text == env["v"]
    assert expand("${v//a*a*a*b/x}", env).text == env["v"]
