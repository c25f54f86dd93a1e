"""The same images in every environment; and containers that allow more than the default profile (EXECUTION 0, row 4)."""

from pathlib import Path

import builder as builders
import matrix
import peers
import pytest
import trees
from builder import LiveKpy
from servers import Docker, Registry

DOCKERFILE = """ARG BASE
FROM $BASE AS made
RUN mkdir /made && echo one > /made/file && chown 7:8 /made/file
FROM $BASE
COPY --from=made /made /made
RUN rm /made/file && echo two > /made/other && test -d /proc/1
"""


def test_without_seccomp_on_the_container_s_own_overlay(
    docker: Docker, registry: Registry, busybox_base: str, workdir: Path
) -> None:
    """overlayfs takes no overlay as its upper directory, and a masked /proc lets nobody mount a new one."""
    live = LiveKpy(docker, builders.make(docker))
    context = workdir / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    context.chmod(0o755)
    name = f"{registry.host}/environments/unconfined:1"
    live(
        "build", "--isolation", "userns", "--push", "-t", name, "--build-arg", f"BASE={busybox_base}", ".",
        options=["--volume", f"{context}:/workspace:ro", "--security-opt", "seccomp=unconfined"],
    )  # fmt: skip

    root = trees.unpack(name, workdir / "unpacked")

    assert sorted(path.name for path in (root / "made").iterdir()) == ["other"]
    assert (root / "made" / "other").read_text() == "two\n"


# Without its consent the builder image is as somebody's own CI image into which kpy was installed.
_KEPT = """
import os, subprocess, sys
mine = os.access("/etc", os.W_OK)
if mine: os.mkdir("/etc/mine")
done = subprocess.run([sys.executable, "-ISXutf8", "/kpy/bin/kpy", *sys.argv[1:]])
assert not mine or os.listdir("/etc/mine") == [] and os.path.exists("/etc/hosts") and not os.path.exists("/made")
sys.exit(done.returncode)
"""


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ([], 0, ""),
        (["--user", "1000:1000"], 8, "run the container with seccomp=unconfined; or build in a container of the kpy image"),
        (["--user", "1000:1000", "--security-opt", "seccomp=unconfined"], 0, ""),
        (["--user", "1000:1000", "--security-opt", "seccomp=unconfined", "--volume", "/kpy/state"], 0, ""),
    ],
    ids=["root", "user", "user-without-seccomp", "user-without-seccomp-with-a-volume"],
)
def test_in_somebody_s_own_image_it_is_left_alone(
    docker: Docker, registry: Registry, busybox_base: str, workdir: Path, options: list[str], status: int, said: str
) -> None:
    """Never the live root there, unless asked: another way, or a refusal before the first step that says what to do."""
    context = workdir / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE.replace(" && test -d /proc/1", ""))
    context.chmod(0o755)
    python = ["--env", "KPY_DISPOSABLE_ROOT=", "--entrypoint", "/kpy/bin/python3"]
    live = LiveKpy(docker, builders.make(docker))

    done = live(
        "-ISXutf8", "-c", _KEPT, "build", "--push", "-t", f"{registry.host}/environments/own:1", "--build-arg",
        f"BASE={busybox_base}", "/workspace", options=["--volume", f"{context}:/workspace:ro", *python, *options], check=False,
    )  # fmt: skip

    assert done.returncode == status, done.stderr
    assert said in done.stderr


def test_the_same_images_in_every_environment(
    docker: Docker, registry: Registry, program: str, python_base: str, gcc_base: str, workdir: Path
) -> None:
    (workdir / "contexts").mkdir()
    contexts = matrix.contexts(workdir / "contexts")
    bases = {"python-service": python_base, "two-stage": gcc_base}
    digests: dict[tuple[str, str], str] = {}
    for place in matrix.environments(docker, builders.make(docker), program, workdir):
        for name, context in contexts.items():
            target = f"{registry.host}/environments/{place.key.lower()}-{name}:1"
            done = place.build(context, *matrix.arguments(bases[name], target))
            assert done.returncode == 0, f"{place.title}: {name}: {done.stderr}"
            digests[place.key, name] = done.stdout.strip()
    for name in contexts:
        found = {key: digest for (key, other), digest in digests.items() if other == name}
        assert len(found) >= 3
        assert len(set(found.values())) == 1, found


@pytest.mark.parametrize(
    ("output", "essence"),
    [
        ('Error during unshare: Operation not permitted\ntime="x" level=error msg="parsing PID"\n', "Error during unshare: Operation not permitted"),
        ('time="x" level=warning msg="it cannot last"\ntime="x" level=error msg="no \\"ids\\": denied"\nError: it\n', 'no "ids": denied'),
        ("cannot find a user\n[1/2] STEP 2/4: RUN x\nerror running [/bin/sh -c x | y]: denied\nError: building: exit status 1\n", "error running RUN: denied"),
        ("\x1b[1merror: \x1b[0mfailed to open /a/long/way/to/file a|b\n", "failed to open …/file a\\|b"),
        ("failed " + "x" * 200 + " end", "failed " + "x" * 68 + " … " + "x" * 71 + " end"),
        ("nothing known\n", "nothing known"),
        ("", "says nothing"),
    ],
)
def test_what_other_builders_say_in_one_line(output: str, essence: str) -> None:
    assert peers.essence(output) == essence
