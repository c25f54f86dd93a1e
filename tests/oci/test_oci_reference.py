"""References, digests, platforms: what parses, what does not, and round trips (F01, F15, N23)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.errors import ContentError, UsageError
from kpy.oci.digest import Digest
from kpy.oci.platform import Platform, best_match, from_machine, matches
from kpy.oci.reference import Reference

A, B = "a" * 64, "b" * 64

DIGESTS = st.binary(max_size=8).map(Digest.of)
COMPONENTS = st.from_regex(r"[a-z0-9]+((\.|_|__|-{1,3})[a-z0-9]+){0,2}", fullmatch=True).filter(lambda text: len(text) < 30)
HOSTS = st.sampled_from(["docker.io", "localhost", "localhost:5000", "ghcr.io", "r.example.com:443", "[::1]:5000", "UPPER"])
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,20}", fullmatch=True)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    host = draw(HOSTS)
    path = "/".join(draw(st.lists(COMPONENTS, min_size=2 if host == "docker.io" else 1, max_size=3)))
    digest = draw(st.none() | DIGESTS)
    return Reference(host, path, draw(TAGS) if digest is None else draw(st.just("") | TAGS), digest)


@given(references())
def test_a_reference_reads_back(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference


@pytest.mark.parametrize("text", ["a", "a/b", "library/a/b", "docker.io/a.b/c", "docker.io/localhost/c", "x.io/library/a"])
def test_familiar_names_mean_the_same(text: str) -> None:
    found = Reference.parse(text)
    assert Reference.parse(found.familiar) == found
    assert found.familiar == f"{text}:latest"


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    try:
        found = Reference.parse(text)
    except UsageError:
        return
    assert Reference.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpine", ("docker.io", "library/alpine", "latest")),
        ("alpine:3.20", ("docker.io", "library/alpine", "3.20")),
        ("a/b", ("docker.io", "a/b", "latest")),
        ("localhost/b", ("localhost", "b", "latest")),
        ("host:5000/b:t", ("host:5000", "b", "t")),
        ("h.io/a/b/c", ("h.io", "a/b/c", "latest")),
        ("index.docker.io/x", ("docker.io", "library/x", "latest")),
        ("docker.io/x", ("docker.io", "library/x", "latest")),
        ("Host/b", ("Host", "b", "latest")),
        ("[::1]:5000/b", ("[::1]:5000", "b", "latest")),
    ],
)
def test_names(text: str, expected: tuple[str, str, str]) -> None:
    found = Reference.parse(text)
    assert (found.registry, found.repository, found.tag) == expected


def test_digest_wins_and_the_tag_informs() -> None:
    """F01."""
    found = Reference.parse(f"a:1@sha256:{A}")
    assert (found.name, found.tag) == (f"sha256:{A}", "1")
    assert Reference.parse(f"a@sha256:{A}").tag == ""
    assert found.with_tag("2").name == "2"
    assert found.at(Digest("sha256", B)).name == f"sha256:{B}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "invalid repository name"),
        ("UPPER", "invalid repository name"),
        ("a b", "invalid repository name"),
        ("a:", "invalid tag ''"),
        ("a:b:c", "invalid tag"),
        ("a:" + "x" * 129, "invalid tag"),
        ("a@sha256:00", "invalid digest"),
        ("a@md5:" + A, "invalid digest"),
        ("-host.io/x", "not a registry host"),
        ("h.io/" + "a" * 256, "longer than 255"),
        ("a//b", "invalid repository name"),
        ("../a", "not a registry host"),
        ("a/../b", "invalid repository name"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Reference.parse(text)


def test_upper_case_has_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        Reference.parse("library/Alpine")
    assert caught.value.hint == "repository names are lower case"


@given(DIGESTS)
def test_a_digest_reads_back(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize("text", ["", "sha256", "sha256:", f"sha256:{A[1:]}", f"sha256:{A.upper()}", f"sha512:{A}", f"sha1:{'a' * 40}", f"sha256:{A}\n", f"sha256:{A[1:]}/"])
def test_no_digest(text: str) -> None:
    with pytest.raises(ContentError, match="invalid digest"):
        Digest.parse(text)


def test_sha512() -> None:
    digest = Digest.parse("sha512:" + "0" * 128)
    assert digest.hasher().name == "sha512"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("LINUX/ARM64", "linux/arm64"),
        ("macos/arm64", "darwin/arm64"),
        ("arm64", "linux/arm64"),
        ("riscv64", "linux/riscv64"),
        ("linux/unheard-of", "linux/unheard-of"),
    ],
)
def test_platforms_have_one_spelling(text: str, shown: str) -> None:
    """F15."""
    found = Platform.parse(text)
    assert str(found) == shown
    assert Platform.parse(shown) == found
    assert Platform.normalised(found.os, found.architecture, found.variant, found.os_version) == found


@pytest.mark.parametrize("text", ["", "/", "linux/", "a/b/c/d", "linux/amd 64", "nonsense", "linux/²"])
def test_no_platform(text: str) -> None:
    with pytest.raises(UsageError, match="invalid platform"):
        Platform.parse(text)


def test_os_version() -> None:
    found = Platform.parse("windows(10.0.17763)/amd64")
    assert (found.os, found.os_version, str(found)) == ("windows", "10.0.17763", "windows/amd64")


@pytest.mark.parametrize(
    ("machine", "shown"),
    [("x86_64", "linux/amd64"), ("armv7l", "linux/arm/v7"), ("armv6l", "linux/arm/v6"), ("aarch64", "linux/arm64"), ("ppc64le", "linux/ppc64le")],
)
def test_machines(machine: str, shown: str) -> None:
    assert str(from_machine(machine)) == shown


@pytest.mark.parametrize(
    ("wanted", "offered", "best"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v2"], None),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/amd64", ["linux/386"], 0),
        ("linux/386", ["linux/amd64"], None),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64"], 1),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm64/v9", ["linux/arm64"], 0),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], 1),
        ("linux/arm/v6", ["linux/arm/v7"], None),
        ("linux/amd64", ["windows/amd64"], None),
        ("linux/amd64", ["unknown/unknown"], None),
        ("linux/amd64", [""], 0),
        ("linux/amd64", ["", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
        ("linux/riscv64/x", ["linux/riscv64"], 0),
        ("linux/amd64", [], None),
    ],
)
def test_choice_from_an_index(wanted: str, offered: list[str], best: int | None) -> None:
    """N23: the best that runs, as containerd's platforms.Only orders them."""
    entries = [_have(text) for text in offered]
    assert best_match(Platform.parse(wanted), entries) == best


def _have(text: str) -> Platform | None:
    return Platform.normalised(*text.split("/")) if text else None


def test_windows_versions_must_fit() -> None:
    wanted = Platform.parse("windows(10.0.1)/amd64")
    assert not matches(wanted, Platform("windows", "amd64", os_version="10.0.2.7"))
    assert matches(wanted, Platform("windows", "amd64", os_version="10.0.1.7"))


@pytest.mark.parametrize("variant", ["v²", "v99999999999", "v" + "9" * 5000, "vx", "8" * 5000])
@pytest.mark.parametrize("architecture", ["arm", "arm64", "amd64"])
def test_odd_variants_are_only_odd(architecture: str, variant: str) -> None:
    """A stranger's variant must neither crash us nor fill our memory."""
    odd = Platform.normalised("linux", architecture, variant)
    assert matches(odd, odd) or architecture != "arm64"
    matches(Platform.parse("linux/amd64"), odd)
