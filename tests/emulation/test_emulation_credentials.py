"""credentials.py: what becomes of ids and capabilities, by rules of Linux that hold whatever the call."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.emulation import credentials as c
from kpy.emulation.credentials import BOUND, NOBODY, Credentials, of_user

IDS = st.sampled_from([0, 1, 2, 1000, 65534])
GIVEN = st.sampled_from([0, 1, 2, 1000, 65534, NOBODY])
USER_CALLS = st.one_of(
    st.tuples(st.just(c.setuid), st.tuples(IDS)),
    st.tuples(st.just(c.setreuid), st.tuples(GIVEN, GIVEN)),
    st.tuples(st.just(c.setresuid), st.tuples(GIVEN, GIVEN, GIVEN)),
    st.tuples(st.just(c.setfsuid), st.tuples(GIVEN)),
)
GROUP_CALLS = st.one_of(
    st.tuples(st.just(c.setgid), st.tuples(IDS)),
    st.tuples(st.just(c.setregid), st.tuples(GIVEN, GIVEN)),
    st.tuples(st.just(c.setresgid), st.tuples(GIVEN, GIVEN, GIVEN)),
    st.tuples(st.just(c.setfsgid), st.tuples(GIVEN)),
    st.tuples(st.just(c.setgroups), st.tuples(st.lists(IDS, max_size=3).map(tuple))),
)
CALLS = st.lists(st.one_of(USER_CALLS, GROUP_CALLS), max_size=6)


def after(who: Credentials, calls: list) -> Credentials:
    """The calls, one after the other; those that are refused change nothing."""
    for call, arguments in calls:
        try:
            who = call(who, *arguments)
        except PermissionError:
            pass
    return who


def test_those_of_a_container() -> None:
    root = of_user(0, 0, (3, 1))
    assert root.groups == (1, 3)
    assert root.effective == root.permitted == BOUND
    assert of_user(1000, 0).effective == 0


@given(CALLS)
def test_who_has_no_capability_gets_no_new_ids(calls: list) -> None:
    who = of_user(1000, 2, (1,))
    end = after(who, calls)
    assert {end.ruid, end.euid, end.suid, end.fsuid} == {1000}
    assert {end.rgid, end.egid, end.sgid, end.fsgid} == {2}
    assert end.groups == (1,)
    assert end.permitted == 0


@given(CALLS)
def test_effective_capabilities_are_permitted_and_no_more_than_the_bound(calls: list) -> None:
    end = after(of_user(0, 0), calls)
    assert end.effective & ~end.permitted == 0
    assert end.permitted & ~BOUND == 0


@given(CALLS)
def test_root_has_capabilities_as_long_as_one_of_its_ids_is_root(calls: list) -> None:
    end = after(of_user(0, 0), calls)
    assert bool(end.permitted) == (0 in (end.ruid, end.euid, end.suid))
    if end.euid == 0 and not any(call is c.setfsuid for call, _ in calls):  # what that took, only it gives back
        assert end.effective == BOUND


@given(st.lists(USER_CALLS, max_size=6), USER_CALLS)
def test_the_new_ids_of_the_unprivileged_were_theirs(before: list, call: tuple) -> None:
    who = after(of_user(0, 0), before)
    end = after(who, [call])
    if not who.may(c.CAP_SETUID):
        assert {end.ruid, end.euid, end.suid, end.fsuid} <= {who.ruid, who.euid, who.suid, who.fsuid}


@given(CALLS)
def test_the_same_call_of_another_thread_succeeds_too(calls: list) -> None:
    """The C library makes it in each thread, and ours share one set of credentials: what one did must be no bar to
    the next, or the library ends the program."""
    who = of_user(0, 0)
    for call, arguments in calls:
        if call is c.setgroups:
            continue  # programs give up groups first
        try:
            who = call(who, *arguments)
        except PermissionError:
            continue
        call(who, *arguments)


def test_dropping_for_good_and_for_a_while() -> None:
    daemon = c.setresuid(of_user(0, 0), NOBODY, 33, NOBODY)
    assert (daemon.ruid, daemon.euid, daemon.suid, daemon.fsuid) == (0, 33, 0, 33)
    assert daemon.effective == 0
    assert c.setresuid(daemon, NOBODY, 0, NOBODY).effective == BOUND
    gone = c.setuid(of_user(0, 0), 33)
    with pytest.raises(PermissionError):
        c.setuid(gone, 0)


def test_setreuid_saves_the_effective_id() -> None:
    who = c.setreuid(of_user(0, 0), 5, 6)
    assert (who.ruid, who.euid, who.suid) == (5, 6, 6)
    assert c.setreuid(who, NOBODY, 5)[:3] == (5, 5, 6), "the effective id is the real one: nothing is saved"
    swapped = c.setreuid(who, 6, 5)
    assert swapped[:3] == (6, 5, 5)


def test_capabilities_kept_over_a_change_of_user() -> None:
    keeping = of_user(0, 0)._replace(keep=True)
    who = c.setresuid(keeping, 33, 33, 33)
    assert (who.permitted, who.effective) == (BOUND, 0)
    raised = c.capset(who, c.CAP_CHOWN, c.CAP_CHOWN, 0)
    assert raised.may(c.CAP_CHOWN)
    assert not raised.may(c.CAP_SETUID)


def test_capset_gives_nothing_away() -> None:
    with pytest.raises(PermissionError):
        c.capset(of_user(1000, 1000), 1, 1, 0)
    with pytest.raises(PermissionError):
        c.capset(of_user(0, 0), 1, 0, 0)
    with pytest.raises(PermissionError):
        c.capset(of_user(0, 0), 0, 1 << 21, 0)


def test_a_file_system_id_takes_capabilities_of_files_along() -> None:
    who = c.setfsuid(of_user(0, 0), 33)
    assert not who.may(c.CAP_DAC_OVERRIDE)
    assert who.may(c.CAP_SETUID)
    assert c.setfsuid(who, 0) == of_user(0, 0)
    assert c.setfsuid(of_user(33, 33), 0).fsuid == 33


def test_programs_of_root() -> None:
    user = of_user(1000, 1000)
    became = c.execve(user, 0, None, 0, 0, file_effective=False)
    assert became[:4] == (1000, 0, 0, 0)
    assert became.effective == BOUND
    other = c.execve(user, 33, 44, 0, 0, file_effective=False)
    assert (other.euid, other.egid, other.effective) == (33, 44, 0)
    assert c.execve(of_user(0, 0), None, None, 0, 0, file_effective=False) == of_user(0, 0)


def test_capabilities_of_a_file() -> None:
    user = of_user(1000, 1000)
    assert c.execve(user, None, None, 1 << 10 | 1 << 21, 0, file_effective=True).effective == 1 << 10
    assert c.execve(user, None, None, 1 << 10, 0, file_effective=False).effective == 0


def test_invalid_ids() -> None:
    for call in (c.setuid, c.setgid):
        with pytest.raises(OSError, match="Invalid"):
            call(of_user(0, 0), NOBODY)
    with pytest.raises(OSError, match="Invalid"):
        c.setgroups(of_user(0, 0), (NOBODY,))


def test_access_asks_with_the_real_ids() -> None:
    became = c.execve(of_user(1000, 1000), 0, 0, 0, 0, file_effective=False)
    assert (c.for_access(became).fsuid, c.for_access(became).effective) == (1000, 0)
    lowered = c.setresuid(of_user(0, 0), NOBODY, 33, NOBODY)
    assert c.for_access(lowered).effective == BOUND
