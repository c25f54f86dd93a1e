"""`kpy kube job`: a manifest that Kubernetes takes, that fits Pod Security restricted, and that does what was asked."""

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from kpy.app.kube import CHECKOUT, TOP_LEVEL
from kpy.cli import kube
from kpy.cli.kube import document
from kpy.cli.main import main
from kpy.cli.options import read
from kpy.cli.terminal import Terminal
from kpy.errors import UsageError
from tests.git_server import commit, publish, serving

MakeTerminal = Callable[..., Terminal]
READY = Path(__file__).resolve().parents[2] / "integration" / "kubernetes"
PLAIN = ["--image", "r.example/kpy:1", "--push", "-t", "r.example/team/app:1"]
VERSIONS = ("1.25", "1.29", "1.33")


def made(terminal: Terminal, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(document([*PLAIN, *words], terminal))
    for version in VERSIONS:
        kubernetes_validate.validate(found, version, strict=True)
    return found


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return pod


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = pod_of(manifest)["containers"][0]
    return container


def breaches(pod: dict[str, Any]) -> list[str]:
    """What Pod Security restricted (kubernetes.io/docs/concepts/security/pod-security-standards) would refuse."""
    whole = pod.get("securityContext", {})
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    found += [volume["name"] for volume in pod["volumes"] if not (volume.keys() - {"name"}) <= kinds]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        own = container["securityContext"]
        found += ["escalation"] if own.get("allowPrivilegeEscalation") is not False else []
        found += ["capabilities"] if own["capabilities"] != {"drop": ["ALL"]} else []
        found += ["non-root"] if not (own.get("runAsNonRoot") or whole.get("runAsNonRoot")) else []
        found += ["root"] if 0 in (own.get("runAsUser"), whole.get("runAsUser")) else []
        profile = own.get("seccompProfile") or whole.get("seccompProfile") or {}
        found += ["seccomp"] if profile.get("type") not in ("RuntimeDefault", "Localhost") else []
        found += ["ports"] if any("hostPort" in port for port in container.get("ports", [])) else []
    return found


CONTEXTS = ["https://g.example/a.git#main", "https://h.example/a.tar.gz", "pvc://src/app", "-"]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("more", [[], ["--read-only-root"], ["--uid=random"], ["--cache-claim=c", "--registry-secret=r"]])
def test_restricted(terminal: Terminal, context: str, more: list[str]) -> None:
    manifest = made(terminal, *more, context)
    assert breaches(pod_of(manifest)) == []
    assert pod_of(manifest)["restartPolicy"] == "Never"


def test_restricted_with_a_checkout(terminal: Terminal) -> None:
    assert breaches(pod_of(made(terminal, "--git-image=git:1", "https://g.example/a.git"))) == []


def test_baseline_is_root_with_its_capabilities(terminal: Terminal) -> None:
    manifest = made(terminal, "--security=baseline", "--user-namespace", "-")
    pod = pod_of(manifest)
    assert (pod["securityContext"]["runAsUser"], pod["hostUsers"]) == (0, False)
    added = container_of(manifest)["securityContext"]["capabilities"]["add"]
    # all that Pod Security baseline lets a container add
    assert set(added) <= {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID",
        "SETPCAP", "SETUID", "SYS_CHROOT",
    }  # fmt: skip


def test_the_build_has_the_flags_of_the_build(make_terminal: MakeTerminal) -> None:
    terminal = make_terminal(variables={"FROM_HERE": "x y", "NOT": ""})
    words = ["--build-arg", "A=1", "--build-arg=FROM_HERE", "--build-arg", "UNSET", "-f", "d/Dockerfile", "--target", "a", "--target=b",
             "--label", "l=v w", "--platform", "linux/arm64", "--no-cache", "--add-host=db:10.0.0.1", "--pull=false"]  # fmt: skip
    arguments = container_of(made(terminal, *words, "pvc://src"))["args"]
    assert arguments[0] == "build"
    options, mode = read(arguments[1:], terminal)
    assert (options.context, options.tags, options.push, mode) == ("/kpy/workspace", ("r.example/team/app:1",), True, "plain")
    assert options.build_args == (("A", "1"), ("FROM_HERE", "x y"))
    assert (options.file, options.target, options.labels) == ("d/Dockerfile", "b", (("l", "v w"),))
    assert (options.no_cache, options.pull, options.add_hosts) == (True, False, (("db", "10.0.0.1"),))


def test_secrets_come_from_secrets(terminal: Terminal) -> None:
    manifest = made(
        terminal, "--secret-from=token=ci/npm", "--sign-key-from", "signing/kpy.key", "--registry-secret", "pull", "-"
    )
    arguments = container_of(manifest)["args"]
    assert "--secret=id=token,src=/kpy/secrets/0/value" in arguments
    assert "--sign-key=/kpy/secrets/1/value" in arguments
    volumes = {volume["name"]: volume for volume in pod_of(manifest)["volumes"]}
    assert volumes["secret-0"]["secret"] == {"secretName": "ci", "items": [{"key": "npm", "path": "value"}]}
    assert volumes["login"]["secret"]["items"] == [{"key": ".dockerconfigjson", "path": "config.json"}]
    mounts = {mount["name"]: mount for mount in container_of(manifest)["volumeMounts"]}
    assert (mounts["login"]["mountPath"], mounts["login"]["readOnly"]) == ("/kpy/.docker", True)


def test_the_token_of_a_checkout_is_not_the_builds(terminal: Terminal) -> None:
    manifest = made(terminal, "--git-image=g:1", "--secret-from=GIT_AUTH_TOKEN=git/token", "https://g.example/a.git#v1:sub")
    assert not any("GIT_AUTH_TOKEN" in word for word in container_of(manifest)["args"])
    assert container_of(manifest)["args"][-1] == "/kpy/workspace/sub"
    fetching = pod_of(manifest)["initContainers"][0]
    assert fetching["args"] == ["https://g.example/a.git", "v1", "yes"]
    assert fetching["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "git", "key": "token"}
    mounts = {mount["name"]: mount for mount in container_of(manifest)["volumeMounts"]}
    assert mounts["context"]["readOnly"] is True


def test_volumes_on_the_slots(terminal: Terminal) -> None:
    manifest = made(terminal, "--read-only-root", "--slot=work", "--slot", "/cache/", "-")
    assert container_of(manifest)["securityContext"]["readOnlyRootFilesystem"] is True
    paths = {mount["mountPath"] for mount in container_of(manifest)["volumeMounts"]}
    assert {f"/{name}" for name in (*TOP_LEVEL, "work", "cache")} | {"/kpy/state", "/kpy/tmp", "/kpy/home"} == paths


def test_the_rest(terminal: Terminal) -> None:
    manifest = made(
        terminal, "--name=n", "--namespace=ns", "--cpu=500m", "--memory=1Gi", "--storage=5Gi", "--env=SOURCE_DATE_EPOCH=0",
        "--service-account=sa", "--ttl=60", "--deadline=120", "--uid=4711", "-",
    )  # fmt: skip
    assert (manifest["metadata"]["name"], manifest["metadata"]["namespace"]) == ("n", "ns")
    assert (manifest["spec"]["ttlSecondsAfterFinished"], manifest["spec"]["activeDeadlineSeconds"]) == (60, 120)
    container = container_of(manifest)
    assert container["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "5Gi"}, "limits": {"memory": "1Gi", "ephemeral-storage": "5Gi"},
    }  # fmt: skip
    assert {"name": "SOURCE_DATE_EPOCH", "value": "0"} in container["env"]
    assert (container["stdin"], container["stdinOnce"]) == (True, True)
    assert pod_of(manifest)["serviceAccountName"] == "sa"
    assert pod_of(manifest)["securityContext"]["fsGroup"] == 4711


def test_a_name_of_its_own(terminal: Terminal) -> None:
    assert made(terminal, "-")["metadata"]["name"] == "build-app"
    text = document(["--image=i", "--push", "-t", f"r.example/{'a.b_' * 30}c", "-"], terminal)
    assert yaml.safe_load(text)["metadata"]["name"].startswith("build-a-b-a-b")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--push", "-t", "a", "-"], "kpy kube job needs --image"),
        (["--image=i", "-t", "a", "-"], "a Job must push what it builds"),
        (["--image=i", "--push", "-"], "a push needs a name"),
        ([*PLAIN], "takes exactly one context"),
        ([*PLAIN, "./src"], "a Job cannot see './src'"),
        ([*PLAIN, "pvc://"], "names no claim"),
        ([*PLAIN, "--secret=id=a,src=b", "-"], "--secret is not for a Job"),
        ([*PLAIN, "--load", "-"], "--load is not for a Job"),
        ([*PLAIN, "--secret-from=a", "-"], "invalid --secret-from 'a'"),
        ([*PLAIN, "--secret-from=a=B/c", "-"], "invalid --secret-from 'B/c'"),
        ([*PLAIN, "--name=A", "-"], "invalid job name 'A'"),
        ([*PLAIN, "--uid=0", "-"], "invalid value '0' for --uid"),
        ([*PLAIN, "--memory=lots", "-"], "invalid value 'lots' for --memory"),
        ([*PLAIN, "--security=none", "-"], "invalid value 'none' for --security"),
        ([*PLAIN, "--env=1=2", "-"], "invalid --env"),
        ([*PLAIN, "--slot=a/b", "-"], "invalid top-level directory 'a/b'"),
        ([*PLAIN, "--platform=nonsense/", "-"], "invalid platform"),
        ([*PLAIN, "--git-image=g", "-"], "--git-image is for a context that is a git repository"),
        ([*PLAIN, "--git-image=g", "https://u:p@g.example/a.git"], "a login in the URL could be read in the Job"),
        ([*PLAIN, "--git-image=g", "https://g.example/a.git?checksum=abcd"], "--git-image needs a whole commit id"),
        ([*PLAIN, "--cache-from=x", "-"], "--cache-from is not supported yet"),
    ],
)
def test_refusals(terminal: Terminal, words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        document(words, terminal)
    assert message in caught.value.message


def test_no_argument_ends_the_comment(terminal: Terminal) -> None:
    text = document([*PLAIN, "--label", "a=b\nkind: Evil", "-"], terminal)
    assert yaml.safe_load(text)["kind"] == "Job"
    assert not text.startswith("# kpy kube job")


def test_the_ready_manifests_are_up_to_date_and_restricted(terminal: Terminal) -> None:
    files = sorted(READY.glob("job-*.yaml"))
    assert len(files) == 6
    for file in files:
        text = file.read_text()
        words = shlex.split(text.partition("\n")[0].removeprefix("# kpy kube job "))
        assert document(words, terminal) == text, f"run {READY}/make"
        for version in VERSIONS:
            kubernetes_validate.validate(yaml.safe_load(text), version, strict=True)
        assert file.name == "job-root.yaml" or breaches(pod_of(yaml.safe_load(text))) == []
        assert shlex.join(words[:2]) in (READY / "make").read_text()


def test_the_checkout(tmp_path: Path) -> None:
    """The script of the init container, run: one commit, its submodules, no .git, and the token only where it belongs."""
    served = tmp_path / "served"
    served.mkdir()
    first = commit(tmp_path / "app", {"file": "one", "sub/Dockerfile": "FROM scratch\n"})
    commit(tmp_path / "app", {"file": "two"})
    publish(tmp_path / "app", served, "app.git")
    for ref, expected in (("", "two"), (first, "one")):
        place = tmp_path / f"work-{expected}"
        place.mkdir()
        with serving(served) as server:
            server.password = "x-access-token:t"
            subprocess.run(
                ["/bin/sh", "-c", CHECKOUT, "git", f"{server.url}/app.git", ref, "yes"], cwd=place, check=True,
                env={"PATH": os.environ["PATH"], "GIT_TOKEN": "t"},
            )  # fmt: skip
        assert sorted(str(path.relative_to(place)) for path in place.rglob("*")) == ["file", "sub", "sub/Dockerfile"]
        assert (place / "file").read_text() == expected


def test_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kube", "job", *PLAIN, "-"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["kind"] == "Job"
    assert main(["kube", "pod"]) == 2
    capsys.readouterr()
    assert main(["kube", "--help"]) == 0
    assert capsys.readouterr().out.rstrip("\n") == kube.HELP.rstrip("\n")
