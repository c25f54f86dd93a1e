"""`kpy doctor`: which environment it looks like, what a build would do, and what to paste."""

import errno
from dataclasses import replace

import pytest
import yaml

from kpy.app.doctor import Diagnosis, Facts, Outlook, Probe, foresee, place
from kpy.app.remedies import CAPABILITIES, remedies
from kpy.app.strategy import Place
from kpy.cli.doctor import table
from kpy.errors import SandboxError
from kpy.events import Warned

FACTS = Facts(
    system="linux", uid=1000, gid=1000, named=True, container=False, mapped=False, no_new_privileges=False, seccomp=False,
    bundle=False, apparmor=False, state="/s", disk_free=1, inodes_free=1, memory_limit=0, memory_free=1,
)  # fmt: skip
NAMES = ("userns", "ids", "overlay", "proc", "mount", "chown", "listener")


def allowed(*names: str) -> dict[str, bool]:
    return {name: name in names for name in NAMES}


@pytest.mark.parametrize(
    ("changes", "works", "expected"),
    [
        ({"uid": 0, "container": True}, ("chown",), "E1"),
        ({"container": True}, ("listener",), "E2"),
        ({"uid": 0, "container": True, "mapped": True}, ("chown",), "E3"),
        ({}, ("userns", "ids", "overlay", "proc"), "E4"),
        ({"container": True}, ("userns", "ids", "overlay", "proc"), "E4"),
        ({}, ("userns", "overlay", "proc"), "E5"),
        ({"apparmor": True}, (), "E6"),
        ({"system": "gvisor", "uid": 0, "container": True}, (), "E7"),
        ({"container": True, "gid": 0, "named": False, "uid": 123456}, (), "E9"),
        ({"container": True, "gid": 0}, (), "E2"),
        ({"system": "darwin"}, (), "E12"),
        ({"container": True}, ("userns", "overlay"), "unconfined"),
        ({"uid": 0, "container": True}, ("mount", "chown"), "privileged"),
        ({"uid": 0}, ("mount", "chown"), "host"),
        ({}, (), "host"),
    ],
)
def test_environments(changes: dict[str, object], works: tuple[str, ...], expected: str) -> None:
    assert place(replace(FACTS, **changes), allowed(*works))[0] == expected


def test_what_a_build_would_choose_is_chosen_in_a_fork() -> None:
    seen = []

    def prepare() -> Place:
        seen.append(1)
        return Place("userns", overlay=False)

    assert foresee(prepare) == Outlook("userns", "layers unpacked into one directory, processes of its own")
    assert seen == []
    one = foresee(lambda: Place("userns", ids=False))
    assert one.how == "layers unpacked into one directory, processes of its own, root and other users emulated"


def test_what_a_build_would_say_before_it_begins() -> None:
    notes = (Warned("one id", "ask for more"), Warned("no owners"))
    found = foresee(lambda: Place("live", ids=False, notes=notes))
    assert found == Outlook("live", "root and other users emulated", notes=("one id (ask for more)", "no owners"))
    assert table(diagnosis(found))[1:4] == [
        "RUN works: --isolation=live, root and other users emulated.", "  one id (ask for more)", "  no owners"
    ]  # fmt: skip


def test_why_there_is_no_run() -> None:
    problem = SandboxError("no namespaces", errno=errno.EPERM, hint="allow them")
    assert foresee(lambda: Place("none", problem)) == Outlook("none", "", "no namespaces", "allow them")

    def refuse() -> Place:
        raise problem

    assert foresee(refuse) == Outlook("none", "", "no namespaces", "allow them")
    assert not foresee(refuse).possible


def test_a_choice_that_crashes_is_a_problem() -> None:
    def crash() -> Place:
        raise MemoryError

    assert not foresee(crash).possible


def diagnosis(outlook: Outlook, *works: str, **changes: object) -> Diagnosis:
    probes = tuple(Probe(name, name, 0 if name in works else errno.EPERM, "it") for name in NAMES)
    return Diagnosis(("E", "e"), replace(FACTS, **changes), probes, outlook)


NO = Outlook("none", problem="no")
YES = Outlook("live")


@pytest.mark.parametrize("target", ["kubernetes", "github"])
@pytest.mark.parametrize("outlook", [NO, YES])
@pytest.mark.parametrize("changes", [{"uid": 0, "container": True}, {"container": True}, {}])
@pytest.mark.parametrize("works", [(), ("userns", "ids", "overlay")])
def test_what_is_to_be_pasted_is_yaml(target: str, outlook: Outlook, changes: dict[str, object], works: tuple[str, ...]) -> None:
    found = remedies(diagnosis(outlook, *works, **changes), target)
    assert found
    for remedy in found:
        yaml.safe_load("\n".join(remedy.lines))


def test_kubernetes_without_run_gets_root_and_no_more() -> None:
    found = remedies(diagnosis(NO, container=True), "kubernetes")
    context = yaml.safe_load("\n".join(found[0].lines))["securityContext"]
    assert context["runAsUser"] == 0
    assert context["capabilities"] == {"drop": ["ALL"], "add": list(CAPABILITIES)}
    assert context["allowPrivilegeEscalation"] is False


def test_kubernetes_where_the_restricted_pod_is_enough() -> None:
    found = remedies(diagnosis(YES, container=True), "kubernetes")
    assert yaml.safe_load("\n".join(found[0].lines))["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 1000, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip


@pytest.mark.parametrize("program", ["docker", "podman"])
def test_containers(program: str) -> None:
    first = remedies(diagnosis(NO, container=True), program)[0]
    assert first.lines == (f"{program} run --user 0 --security-opt no-new-privileges",)
    assert remedies(diagnosis(YES, "userns", "overlay", container=True), program)[0].lines == (f"{program} run",)


def test_github_mends_what_is_missing() -> None:
    text = "\n".join(remedies(diagnosis(NO, apparmor=True), "github")[0].lines)
    assert "apparmor_restrict_unprivileged_userns=0" in text
    assert "usermod" in text
    assert remedies(diagnosis(YES, "userns", "ids"), "github")[0].lines == ()
