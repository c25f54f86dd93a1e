"""The same images in every environment; and containers that allow more than the default profile (EXECUTION 0, row 4)."""

from pathlib import Path

import builder as builders
import matrix
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
