"""A Kubernetes Job that runs a build: options in, manifest out. Talks to no cluster and reads no file.

By default it fits Pod Security *restricted*: an ordinary uid, no capabilities, no way to get more. `baseline` is root with
the capabilities that this level allows.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from kpy.app.remedies import CAPABILITIES
from kpy.errors import UsageError

Security: TypeAlias = Literal["restricted", "baseline"]
WORKSPACE = "/kpy/workspace"
STATE = "/kpy/state"
SECRETS = "/kpy/secrets"
LOGIN = "/kpy/.docker"
SCRATCH = {"tmp": "/kpy/tmp", "home": "/kpy/home"}
TOP_LEVEL = ("app", "boot", "data", "etc", "home", "kroot", "media", "mnt", "opt", "root", "run", "src", "srv", "tmp", "usr", "var")
"""The top-level names of the builder image that RUN writes to: a volume each, when the root file system is read-only
(EXECUTION B4; bin, lib and sbin are links into kroot)."""

# Arguments: URL, ref, yes or no for submodules. As kpy's own git does it: one commit, and no .git directory after it. The token
# is for the URL that the user named, not for those of submodules. The volume is root's: git must be told that this is meant.
CHECKOUT = """\
set -eu
export HOME=/tmp GIT_TERMINAL_PROMPT=0
git() { command git -c 'safe.directory=*' "$@"; }
git init --quiet .
git remote add origin "$1"
git -c credential.helper='!f() { echo username=x-access-token; echo "password=${GIT_TOKEN:-}"; }; f' \\
  fetch --quiet --depth 1 origin "${2:-HEAD}"
git checkout --quiet FETCH_HEAD
unset GIT_TOKEN
if [ "$3" = yes ]; then git submodule --quiet update --init --recursive --depth 1; fi
find . -name .git -prune -exec rm -rf {} +
"""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class KeyOf:
    """A key of a Secret, and the name that the build knows it by."""

    id: str
    secret: str
    key: str


@dataclass(frozen=True, slots=True)
class Checkout:
    """A repository that an image with sh and git fetches before the build; `token` of a Secret, when it is private."""

    image: str
    url: str
    ref: str = ""
    submodules: bool = True
    token: KeyOf | None = None


@dataclass(frozen=True, slots=True)
class JobOptions:
    """All about the Job but the build. `arguments` are those of `kpy`.

    `uid` None leaves it to the cluster (OpenShift). `claim`: a PersistentVolumeClaim that is the context, with the directory in
    it; `checkout`: the context is fetched. `slots` are more top-level directories that RUN may write to.
    """

    name: str
    image: str
    arguments: tuple[str, ...]
    namespace: str = ""
    security: Security = "restricted"
    uid: int | None = 1000
    claim: str = ""
    claim_path: str = ""
    checkout: Checkout | None = None
    stdin: bool = False
    login: str = ""
    cache_claim: str = ""
    secrets: tuple[KeyOf, ...] = ()
    slots: tuple[str, ...] = ()
    read_only_root: bool = False
    user_namespace: bool = False
    cpu: str = ""
    memory: str = ""
    storage: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    service_account: str = ""
    ttl: int = 3600
    deadline: int = 0


@dataclass(slots=True)
class _Volumes:
    """Volumes, and where they are mounted: grows while the pod is put together."""

    volumes: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, path: str, source: Mapping[str, Any], *, read_only: bool = False, sub: str = "") -> None:
        mount: dict[str, Any] = {"name": name, "mountPath": path}
        if sub:
            mount["subPath"] = sub
        if read_only:
            mount["readOnly"] = True
        self.volumes.append({"name": name, **source})
        self.mounts.append(mount)


def job(options: JobOptions) -> dict[str, Any]:
    """The manifest, as Kubernetes' API has it. Raises UsageError for names that it would refuse."""
    for what, name in (("job", options.name), ("namespace", options.namespace or "x")):
        if not _NAME.fullmatch(name):
            raise UsageError(f"invalid {what} name {name!r}", hint="small letters, digits and dashes, at most 63")
    labels = {"app.kubernetes.io/name": "kpy", "app.kubernetes.io/instance": options.name}
    metadata: dict[str, Any] = {"name": options.name, "labels": labels}
    if options.namespace:
        metadata["namespace"] = options.namespace
    spec: dict[str, Any] = {"backoffLimit": 0, "ttlSecondsAfterFinished": options.ttl}
    if options.deadline:
        spec["activeDeadlineSeconds"] = options.deadline
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {**spec, "template": {"metadata": {"labels": labels}, "spec": _pod(options)}},
    }


def _pod(options: JobOptions) -> dict[str, Any]:
    volumes = _volumes(options)
    container: dict[str, Any] = {"name": "kpy", "image": options.image, "args": list(options.arguments)}
    container["workingDir"] = "/kpy"  # the image's own may be missing, and a runtime cannot make it on a read-only root
    variables = [("KPY_HOME", STATE), *options.variables]
    container["env"] = [{"name": name, "value": value} for name, value in variables]
    if options.stdin:
        container |= {"stdin": True, "stdinOnce": True}
    container["securityContext"] = _container_security(options, read_only_root=options.read_only_root)
    if resources := _resources(options):
        container["resources"] = resources
    container["volumeMounts"] = volumes.mounts
    pod: dict[str, Any] = {"restartPolicy": "Never", "automountServiceAccountToken": False}
    if options.service_account:
        pod["serviceAccountName"] = options.service_account
    if options.user_namespace:
        pod["hostUsers"] = False
    if security := _pod_security(options):
        pod["securityContext"] = security
    if options.checkout:
        pod["initContainers"] = [_git(options, options.checkout)]
    return {**pod, "containers": [container], "volumes": volumes.volumes}


def _git(options: JobOptions, checkout: Checkout) -> dict[str, Any]:
    """The container that fetches the context. The token is its own: the build never has it."""
    container: dict[str, Any] = {
        "name": "git",
        "image": checkout.image,
        "command": ["/bin/sh", "-c", CHECKOUT, "git"],
        "args": [checkout.url, checkout.ref, "yes" if checkout.submodules else "no"],
        "workingDir": WORKSPACE,
    }
    if checkout.token:
        source = {"secretKeyRef": {"name": checkout.token.secret, "key": checkout.token.key}}
        container["env"] = [{"name": "GIT_TOKEN", "valueFrom": source}]
    return {
        **container,
        "securityContext": _container_security(options, read_only_root=False),
        "volumeMounts": [{"name": "context", "mountPath": WORKSPACE}],
    }


def _pod_security(options: JobOptions) -> dict[str, Any]:
    if options.security == "baseline":
        return {"runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}}
    found: dict[str, Any] = {"runAsNonRoot": True}
    if options.uid is not None:
        # The group owns the volumes: without it the uid could not write to a claim of root's.
        found |= {"runAsUser": options.uid, "runAsGroup": options.uid, "fsGroup": options.uid}
    return {**found, "seccompProfile": {"type": "RuntimeDefault"}}


def _container_security(options: JobOptions, *, read_only_root: bool) -> dict[str, Any]:
    capabilities: dict[str, Any] = {"drop": ["ALL"]}
    if options.security == "baseline":
        capabilities["add"] = list(CAPABILITIES)
    found: dict[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": capabilities}
    if read_only_root:
        found["readOnlyRootFilesystem"] = True
    return found


def _resources(options: JobOptions) -> dict[str, Any]:
    """The CPU is a request only: a limit would make builds slow while the node is idle."""
    requests = {"cpu": options.cpu, "memory": options.memory, "ephemeral-storage": options.storage}
    requests = {name: value for name, value in requests.items() if value}
    limits = {name: value for name, value in requests.items() if name != "cpu"}
    return {"requests": requests, **({"limits": limits} if limits else {})} if requests else {}


def _volumes(options: JobOptions) -> _Volumes:
    found = _Volumes()
    empty: dict[str, Any] = {"emptyDir": {}}
    state = {"persistentVolumeClaim": {"claimName": options.cache_claim}} if options.cache_claim else empty
    found.add("state", STATE, state)
    for name, path in SCRATCH.items():
        found.add(name, path, empty)
    if options.claim:
        claim = {"persistentVolumeClaim": {"claimName": options.claim, "readOnly": True}}
        found.add("context", WORKSPACE, claim, read_only=True, sub=options.claim_path)
    if options.checkout:
        found.add("context", WORKSPACE, empty, read_only=True)
    if options.login:
        found.add("login", LOGIN, _secret(options.login, ".dockerconfigjson", "config.json"), read_only=True)
    for number, secret in enumerate(options.secrets):
        found.add(f"secret-{number}", secret_directory(number), _secret(secret.secret, secret.key, "value"), read_only=True)
    for name in sorted({*(TOP_LEVEL if options.read_only_root else ()), *options.slots}):
        if not _NAME.fullmatch(name):
            raise UsageError(f"invalid top-level directory {name!r}", hint="it is one name, such as data")
        found.add(f"root-{name}", f"/{name}", empty)
    return found


def _secret(name: str, key: str, path: str) -> dict[str, Any]:
    return {"secret": {"secretName": name, "items": [{"key": key, "path": path}]}}


def secret_directory(number: int) -> str:
    """Where the secret of that number is in the container; the file in it is `value`."""
    return f"{SECRETS}/{number}"
