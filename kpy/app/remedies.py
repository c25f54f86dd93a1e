"""What to change so that RUN works, or works better, in the words of who starts the container. Text only: knows nothing
of this machine but the diagnosis."""

from dataclasses import dataclass

from kpy.app.doctor import Diagnosis

# What the packages of distributions need of root: those of docker's default set without NET_RAW.
CAPABILITIES = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP",
    "SETUID", "SYS_CHROOT",
)  # fmt: skip
STATE = "/kpy/state"


@dataclass(frozen=True, slots=True)
class Remedy:
    """Lines to paste, and why."""

    why: str
    lines: tuple[str, ...]


def remedies(diagnosis: Diagnosis, target: str) -> tuple[Remedy, ...]:
    """What to paste for `kubernetes`, `docker`, `podman` or `github`; first what is enough, then what would be better."""
    match target:
        case "kubernetes":
            return _kubernetes(diagnosis)
        case "docker" | "podman":
            return _container(diagnosis, target)
        case _:
            return _github(diagnosis)


def _kubernetes(diagnosis: Diagnosis) -> tuple[Remedy, ...]:
    found = []
    if diagnosis.outlook.possible and diagnosis.facts.uid:
        found.append(
            Remedy(
                "RUN works as it is. This is enough for it (Pod Security restricted):",
                (
                    "securityContext:",
                    "  runAsNonRoot: true",
                    f"  runAsUser: {diagnosis.facts.uid}",
                    "  allowPrivilegeEscalation: false",
                    "  capabilities: {drop: [ALL]}",
                    "  seccompProfile: {type: " + ("RuntimeDefault" if not diagnosis.works("userns") else "Unconfined") + "}",
                ),
            )
        )
    else:
        why = "RUN needs root in kpy's own image, without more rights than a container has anyway:"
        why = "RUN works as it is. This is enough for it, in kpy's own image:" if diagnosis.outlook.possible else why
        found.append(
            Remedy(
                why,
                (
                    "securityContext:                # of the container",
                    "  runAsUser: 0",
                    "  runAsNonRoot: false",
                    "  allowPrivilegeEscalation: false",
                    "  capabilities:",
                    "    drop: [ALL]",
                    f"    add: [{', '.join(CAPABILITIES)}]",
                    "  seccompProfile: {type: RuntimeDefault}",
                ),
            )
        )
        found.append(
            Remedy(
                "Better: that root is nobody on the node (Kubernetes 1.33, or 1.30 with UserNamespacesSupport):",
                ("hostUsers: false                # of the pod",),
            )
        )
    if not diagnosis.works("userns"):
        found.append(
            Remedy(
                "Quicker, where the cluster allows it: user namespaces, and a volume for what overlayfs cannot put on its own kind:",
                (
                    "securityContext:                # of the container",
                    "  seccompProfile: {type: Unconfined}",
                    f"env: [{{name: KPY_HOME, value: {STATE}}}]",
                    f"volumeMounts: [{{name: kpy-state, mountPath: {STATE}}}]",
                    "volumes: [{name: kpy-state, emptyDir: {}}]    # of the pod",
                ),
            )
        )
    return tuple(found)


def _container(diagnosis: Diagnosis, program: str) -> tuple[Remedy, ...]:
    found = []
    if not diagnosis.outlook.possible:
        found.append(
            Remedy(
                "RUN needs root in kpy's own image; the default capabilities and seccomp profile are enough:",
                (f"{program} run --user 0 --security-opt no-new-privileges",),
            )
        )
    else:
        found.append(Remedy("RUN works as it is: no flag is needed.", (f"{program} run",)))
    if not diagnosis.works("userns"):
        found.append(
            Remedy(
                "Quicker: root that may make user namespaces, and a volume for what overlayfs cannot put on its own kind:",
                (f"{program} run --user 0 --security-opt seccomp=unconfined --volume kpy-state:{STATE} --env KPY_HOME={STATE}",),
            )
        )
    elif not diagnosis.works("overlay"):
        found.append(
            Remedy(
                "Quicker: a volume for what overlayfs cannot put on its own kind:",
                (f"{program} run --security-opt seccomp=unconfined --volume kpy-state:{STATE} --env KPY_HOME={STATE}",),
            )
        )
    return tuple(found)


def _github(diagnosis: Diagnosis) -> tuple[Remedy, ...]:
    if diagnosis.facts.container:
        if diagnosis.outlook.possible:
            return (Remedy("RUN works as it is: no step is needed.", ()),)
        return (
            Remedy(
                "A job without `container:`, and kpy's own image in a step of it: a RUN needs no rights there. (As the image of the job it would "
                "need git and more for actions/checkout.) Your flags come before the context; a login is in a config.json in /kpy/.docker:",
                (
                    "runs-on: ubuntu-24.04",
                    "steps:",
                    "  - uses: actions/checkout@v4",
                    "  - run: |",
                    "      # The image is yours: kpy build -f Containerfile",
                    "      docker run --rm --user 1000 --cap-drop ALL --security-opt no-new-privileges \\",
                    '        --env GITHUB_ACTIONS --volume "$GITHUB_WORKSPACE:/kpy/workspace:ro" \\',
                    "        registry.example/kpy:0.1.0 build /kpy/workspace",
                ),
            ),
        )
    steps = []
    if not diagnosis.works("userns"):
        steps.append("    sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 kernel.unprivileged_userns_clone=1 || true")
    if not diagnosis.works("ids"):
        steps += [
            "    command -v newuidmap || sudo apt-get install --yes uidmap",
            '    grep -q "^$USER:" /etc/subuid || sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$USER"',
        ]
    if not steps:
        return (Remedy("RUN works as it is: no step is needed.", ()),)
    return (Remedy("A step before the build, on a runner with sudo (ubuntu-22.04, ubuntu-24.04):", ("- run: |", *steps)),)
