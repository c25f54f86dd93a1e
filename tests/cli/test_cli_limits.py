"""--ssh, --allow, --ulimit: read as buildx reads them, and refused with what to do instead (R10-R12, R18, R19)."""

import pytest

from kpy.app.options import BuildOptions, SshSpec
from kpy.cli import limits
from kpy.cli.flags import parse
from kpy.cli.options import BUILD_FLAGS
from kpy.errors import UsageError
from kpy.plan.squash import Squash


def test_agents() -> None:
    assert limits.agents(["default", "git=/run/agent.sock", "keys=~/.ssh/a,b"]) == (
        SshSpec("default"), SshSpec("git", ("/run/agent.sock",)), SshSpec("keys", ("~/.ssh/a", "b")),
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "=x", "default=", "default=a,,b"])
def test_agents_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="invalid --ssh"):
        limits.agents([text])


def test_an_agent_is_given_once() -> None:
    with pytest.raises(UsageError, match="--ssh default is given twice"):
        limits.agents(["default", "default=x"])


def test_the_network_of_the_host_is_allowed_by_either_flag() -> None:
    assert limits.entitlements(["network.host", "network.host"]) == ("network.host",)
    assert BuildOptions(".", allow=("network.host",)).entitlements == {"network.host"}
    assert BuildOptions(".", network="host").entitlements == {"network.host"}
    assert BuildOptions(".").entitlements == frozenset()


@pytest.mark.parametrize(("text", "message"), [
    ("security.insecure", "--allow security.insecure is not supported: a RUN of kpy never has more rights"),
    ("device", "--allow device is not supported"),
    ("device=vendor/gpu", "--allow device=vendor/gpu is not supported"),
    ("network", "invalid entitlement 'network'"),
    ("", "invalid entitlement ''"),
])  # fmt: skip
def test_other_entitlements(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        limits.entitlements([text])


def test_limits_are_sorted_and_the_last_wins() -> None:
    assert limits.ulimits(["nproc=5:-1", "nofile=1", "core=0", "nofile=1024:4096", "stack=-1"]) == (
        ("core", 0, 0), ("nofile", 1024, 4096), ("nproc", 5, -1), ("stack", -1, -1),
    )  # fmt: skip


@pytest.mark.parametrize(("text", "message"), [
    ("nofile", "invalid --ulimit 'nofile'"),
    ("nofile=", "invalid --ulimit"),
    ("nofile=1:2:3", "invalid --ulimit"),
    ("nofile=-2", "invalid --ulimit"),
    ("nofile=5:4", "the soft limit is above the hard limit"),
    ("nofile=-1:4", "the soft limit is above the hard limit"),
    ("locks=4", "there is no limit 'locks'"),
    ("nofile=99999999999999999999", "too large"),
])  # fmt: skip
def test_limits_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        limits.ulimits([text])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), None),
        (("--squash=false",), None),
        (("--squash",), Squash()),
        (("--squash=true",), Squash()),
        (("--squash=build",), Squash()),
        (("--squash=all",), Squash(base=True)),
        (("--squash=3..9",), Squash(3, 9)),
        (("--squash=3..",), Squash(3)),
        (("--squash=..9",), Squash(1, 9)),
        (("--squash=all", "--squash=false"), None),
    ],
)
def test_squash(words: tuple[str, ...], expected: Squash | None) -> None:
    """L10. Without `=` it takes no value: what follows is the context."""
    assert limits.squash(parse(BUILD_FLAGS, [*words, "."], "build").one("squash")) == expected
    assert parse(BUILD_FLAGS, [*words, "."], "build").arguments == (".",)


@pytest.mark.parametrize("text", ["..", "9..3", "0..3", "3", "3-9", "base", "3...9", "..9999999999"])
def test_what_cannot_be_squashed(text: str) -> None:
    with pytest.raises(UsageError, match="invalid --squash="):
        limits.squash(text)
