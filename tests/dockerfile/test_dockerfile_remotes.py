"""Words that mean something remote (C24-C28, section 1.10)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.dockerfile.forms import FormError
from kpy.dockerfile.remotes import GitRemote, is_git, is_http, parse_git, url_filename

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "git", "http"),
    [
        ("https://h.example/a.git", True, False),
        ("https://h.example/a.git#v1:sub", True, False),
        ("https://h.example/a.git?ref=v1", True, False),
        ("https://h.example/a.git/", False, True),
        ("https://h.example/a.tar.gz", False, True),
        ("https://h.example/a?x=.git", False, True),
        ("HTTPS://h.example/a", False, True),
        ("git://h.example/a", True, False),
        ("ssh://git@h.example/a", True, False),
        ("git@h.example:a/b", True, False),
        ("user@h.example:a/b.git#main", True, False),
        ("a/b", False, False),
        ("a@b", False, False),
        ("dir:name", False, False),
        ("ftp://h.example/a.git", False, False),
        ("git@h.example:a b", False, False),
    ],
)
def test_c26_what_is_a_repository_and_what_a_url(text: str, git: bool, http: bool) -> None:
    assert (is_git(text), is_http(text)) == (git, http)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("https://h.example/a.git", GitRemote("https://h.example/a.git")),
        ("https://h.example/a.git#", GitRemote("https://h.example/a.git")),
        ("https://h.example/a.git#v1", GitRemote("https://h.example/a.git", "v1")),
        ("https://h.example/a.git#:sub/x", GitRemote("https://h.example/a.git", "", "sub/x")),
        ("https://h.example/a.git#feat/x:sub", GitRemote("https://h.example/a.git", "feat/x", "sub")),
        ("github.com/o/r#v1", GitRemote("https://github.com/o/r", "v1")),
        ("git@h.example:o/r.git#v1", GitRemote("git@h.example:o/r.git", "v1")),
        ("https://h.example/a.git?tag=v1", GitRemote("https://h.example/a.git", "refs/tags/v1")),
        ("https://h.example/a.git?branch=refs/heads/m", GitRemote("https://h.example/a.git", "refs/heads/m")),
        ("https://h.example/a.git?ref=m&subdir=s", GitRemote("https://h.example/a.git", "m", "s")),
        ("https://h.example/a.git?subdir=s#m", GitRemote("https://h.example/a.git", "m", "s")),
        (f"https://h.example/a.git?commit={COMMIT}", GitRemote("https://h.example/a.git", COMMIT, "", COMMIT)),
        ("https://h.example/a.git?ref=m&checksum=ABCD", GitRemote("https://h.example/a.git", "m", "", "abcd")),
        (
            f"https://h.example/a.git?ref=m&commit={COMMIT}&fetch-by-commit=true",
            GitRemote("https://h.example/a.git", COMMIT, "", COMMIT),
        ),
        ("https://h.example/a.git?keep-git-dir", GitRemote("https://h.example/a.git", keep_git_dir=True)),
        (
            "https://h.example/a.git?keep-git-dir=0&submodules=false&mtime=commit",
            GitRemote("https://h.example/a.git", keep_git_dir=False, submodules=False),
        ),
        ("https://u:p%40w@h.example:8443/a.git", GitRemote("https://h.example:8443/a.git", credentials="u:p@w")),
        ("ssh://git@h.example/a", GitRemote("ssh://git@h.example/a")),
    ],
)
def test_c26_forms(text: str, meaning: GitRemote) -> None:
    assert parse_git(text) == meaning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://h.example/a.git#--upload-pack=x", "invalid git ref"),
        ("https://h.example/a.git?ref=-x", "invalid git ref"),
        ("https://h.example/a.git#a..b", "invalid git ref"),
        ("https://h.example/a.git#a*", "invalid git ref"),
        ("https://h.example/a.git#a b", "invalid git ref"),
        ("https://h.example/a.git#%2Dx", "invalid git ref"),
        ("https://h.example/a.git?branch=a&tag=b", "branch conflicts with tag"),
        ("https://h.example/a.git?ref=a#b", "ref conflicts: 'b' vs 'a'"),
        ("https://h.example/a.git?ref=a&ref=b", "multiple values"),
        ("https://h.example/a.git?ref=", "query 'ref' has no value"),
        ("https://h.example/a.git?depth=1", "unexpected query 'depth'"),
        ("https://h.example/a.git?submodules=maybe", "invalid submodules value"),
        ("https://h.example/a.git?commit=xyz", "invalid checksum"),
        ("https://h.example/a.git?mtime=now", "invalid mtime"),
        ("https://h.example/a.git?commit=abcd&fetch-by-commit", "needs a whole commit id"),
        ("https:///a.git", "needs a host and a path"),
        ("https://-oProxy/a.git", "needs a host and a path"),
        ("https://h.example:x/a.git", "invalid git URL"),
        ("-x@h.example:a", "invalid git URL"),
    ],
)
def test_c26_mistakes(text: str, message: str) -> None:
    with pytest.raises(FormError, match=message):
        parse_git(text)


def test_the_password_is_in_no_repr_and_no_name() -> None:
    remote = parse_git("https://u:secret@h.example/a.git#v1")
    assert "secret" not in repr(remote) + remote.shown + remote.url


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://h.example/a/b.tar?x=1#y", "b.tar"),
        ("https://h.example/a/", "a"),
        ("https://h.example/", ""),
        ("https://h.example", ""),
        ("https://h.example/a%20b", "a b"),
        ("https://h.example/a%2Fb", "b"),
        ("https://h.example/..", ""),
        ("https://h.example/%00", ""),
    ],
)
def test_c24_the_name_of_a_file(url: str, name: str) -> None:
    assert url_filename(url) == name


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for word in (text, "https://h.example/a.git" + text, "git@h.example:" + text):
        is_http(word)
        if is_git(word):
            try:
                remote = parse_git(word)
            except FormError:
                continue
            assert not remote.url.startswith("-")
            assert not remote.ref.startswith("-")
