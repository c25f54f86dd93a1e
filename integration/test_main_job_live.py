"""The main job as root of an ordinary container (live), and that an image does not show how it was built."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import builder as builders
import pytest
import trees
from applications import get, make_wheel
from builder import LiveKpy
from people import Kpy
from servers import Docker, Registry, free_port

Example = Callable[[str], Path]


@pytest.fixture
def live(docker: Docker) -> LiveKpy:
    return LiveKpy(docker, builders.make(docker))


def _context(path: Path, dockerfile: str, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    path.chmod(0o755)
    (path / "Dockerfile").write_text(dockerfile)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def _at(context: Path, mode: str = "ro") -> list[str]:
    return ["--volume", f"{context}:/workspace:{mode}"]


def test_a_python_service_signed(
    live: LiveKpy, kpy: Kpy, example: Example, registry: Registry, python_base: str, docker: Docker, workdir: Path
) -> None:
    context = example("python-service")
    make_wheel(context / "wheels")
    kpy.with_env(KPY_KEY_PASSWORD="")("keygen", "--output-key-prefix", "key", cwd=workdir)
    name = f"{registry.host}/live/python-service:1"
    done = live(
        "build", "--push", "-t", name, "--build-arg", f"BASE={python_base}", "--sign-key", "/kpy/keys/key.key", ".",
        options=[*_at(context), "--volume", f"{workdir}:/kpy/keys:ro"],
    )  # fmt: skip
    digest = done.stdout.strip()

    assert kpy("verify", "--key", str(workdir / "key.pub"), name).stdout.strip() == digest
    assert trees.inspect(name)["Digest"] == digest
    assert (trees.unpack(name, workdir / "unpacked") / "app" / "app.py").read_bytes() == (
        context / "app.py"
    ).read_bytes()
    docker("pull", f"{registry.host}/live/python-service@{digest}")
    port = free_port()
    with docker.container("--publish", f"127.0.0.1:{port}:8000", "--env", "GREETING_NAME=docker", name):
        assert get(f"http://127.0.0.1:{port}/") == "hello, docker\n"
    config = json.loads(docker("image", "inspect", name))[0]["Config"]
    assert config["WorkingDir"] == "/app"
    docker("image", "rm", "--force", name)


def test_two_stages(
    live: LiveKpy, example: Example, registry: Registry, gcc_base: str, docker: Docker, workdir: Path
) -> None:
    name = f"{registry.host}/live/two-stage:1"
    live(
        "build", "--push", "-t", name, "--build-arg", f"BASE={gcc_base}", ".", options=_at(example("two-stage"))
    )
    assert docker("run", "--rm", "--pull", "always", name) == "hello from a static program"
    assert trees.inspect(name)["Layers"] == trees.layers(name)
    assert [path.name for path in trees.unpack(name, workdir / "unpacked").iterdir()] == ["hello"]
    docker("image", "rm", "--force", name)


def test_a_second_build_with_the_state_kept_runs_nothing(
    live: LiveKpy, registry: Registry, busybox_base: str, workdir: Path
) -> None:
    context = _context(
        workdir / "c", f"FROM {busybox_base}\nRUN head -c 8 /dev/urandom > /random\nCOPY Dockerfile /\n"
    )
    (workdir / "state").mkdir()
    options = [*_at(context), "--volume", f"{workdir}/state:/kpy/state"]
    command = ["build", "--push", "-t", f"{registry.host}/live/cached:1", "."]

    first, second = live(*command, options=options), live(*command, options=options)

    assert second.stdout == first.stdout
    assert "CACHED" in second.stderr
    assert live(*command, options=_at(context)).stdout != first.stdout


RUNS = """FROM {base} AS other
RUN echo other > /other
FROM {base}
RUN --mount=from=other,target=/mnt/other cp /mnt/other/other /copy
RUN mkdir -p /d/e && echo x > /d/e/f && ln /d/e/f /d/g && ln -s e/f /d/l && mkfifo /d/p && chmod 711 /d/e/f && chown 5:6 /d/e
RUN rm -r /d/e && mkdir /d/e && chmod 1777 /d/e && echo y >> /d/g && rm /etc/group && chmod 700 /root
RUN echo z > /d/z && touch -d @1 /d/z && chmod 6711 /d/z
USER 7:8
RUN id > /tmp/id && umask >> /tmp/id && pwd >> /tmp/id && echo "$HOME $PATH" >> /tmp/id
USER root
RUN test -c /dev/null && {proc} && touch /dev/shm/x
RUN --mount=type=tmpfs,target=/var/x --mount=type=cache,target=/cache touch /var/x/1 /cache/2
RUN <<EOF
#!/bin/sh
echo heredoc > /h
EOF
"""


def test_an_image_does_not_show_how_it_was_built(
    live: LiveKpy, kpy: Kpy, registry: Registry, busybox_base: str, workdir: Path
) -> None:
    """All metadata but times are equal in a user namespace and live."""
    context = _context(workdir / "c", RUNS.format(base=busybox_base, proc="test -d /proc/self"))
    names = {how: f"{registry.host}/live/same-{how}:1" for how in ("userns", "live")}
    kpy("build", "--isolation", "userns", "--push", "-t", names["userns"], context)
    live("build", "--push", "-t", names["live"], ".", options=_at(context))

    found = {how: trees.described(name, workdir / how) for how, name in names.items()}

    assert found["live"] == found["userns"]
    assert "d/g" in found["live"]
    assert len(trees.layers(names["live"])) == len(trees.layers(names["userns"]))


COPIES = """FROM {base} AS made
RUN mkdir /made && echo made > /made/file && touch -d @1000000000 /made/file /made
FROM {base}
WORKDIR /app
COPY a .
COPY --chown=3:4 --chmod=600 b sub/
ADD a /opt/fresh/
COPY --from=made /made /made
COPY <<EOF /heredoc
text
EOF
"""


def test_layers_of_copies_are_the_same_bytes(
    live: LiveKpy, kpy: Kpy, registry: Registry, busybox_base: str, workdir: Path
) -> None:
    context = _context(workdir / "c", COPIES.format(base=busybox_base), a="a", b="b")
    names = {how: f"{registry.host}/live/copies-{how}:1" for how in ("userns", "live")}
    kpy("build", "--isolation", "userns", "--push", "-t", names["userns"], context)
    live("build", "--push", "-t", names["live"], ".", options=_at(context))

    assert trees.layers(names["live"]) == trees.layers(names["userns"])


def test_the_python_service_differs_only_in_what_pip_ran(
    live: LiveKpy, kpy: Kpy, example: Example, registry: Registry, python_base: str
) -> None:
    context = example("python-service")
    make_wheel(context / "wheels")
    argument = ["--build-arg", f"BASE={python_base}"]
    names = {how: f"{registry.host}/live/service-{how}:1" for how in ("userns", "live")}
    kpy("build", "--isolation", "userns", "--push", "-t", names["userns"], *argument, context)
    live("build", "--push", "-t", names["live"], *argument, ".", options=_at(context))

    pairs = list(zip(trees.layers(names["live"]), trees.layers(names["userns"]), strict=True))

    # base ..., WORKDIR, COPY, RUN, COPY
    assert [one == other for one, other in pairs] == [True] * (len(pairs) - 2) + [False, True]


def test_a_context_in_the_root_itself_survives(
    live: LiveKpy, docker: Docker, registry: Registry, busybox_base: str, workdir: Path
) -> None:
    """Copied or checked out into the container, as in a CI job: no mount. The output goes there, too."""
    context = _context(workdir / "job", f"FROM {busybox_base}\nRUN touch /made; ! test -e /kpy/left\nCOPY Dockerfile /\n")
    (context / "file").write_text("mine")
    name = docker(
        "create", "--network", "host", "--workdir", "/builds/job", live.image,
        "build", "-o", "type=oci,dest=/builds/out/image.tar", "--iidfile", "id", ".",
    )  # fmt: skip
    try:
        (workdir / "out").mkdir()
        docker("cp", str(workdir / "out"), f"{name}:/builds/")
        docker("cp", str(context), f"{name}:/builds/")
        docker("start", "--attach", name)
        docker("cp", f"{name}:/builds", str(workdir / "after"))
    finally:
        docker("rm", "--force", name)
    assert sorted(path.name for path in (workdir / "after" / "job").iterdir()) == ["Dockerfile", "file", "id"]
    assert (workdir / "after" / "out" / "image.tar").stat().st_size > 1000


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ("FROM {base}\nWORKDIR /workspace\nRUN touch x\n", "WORKDIR /workspace: /workspace is the builder's here"),
        ("FROM {base}\nCOPY . /workspace/\nRUN true\n", "the image has files in /workspace"),
    ],
)
def test_what_would_be_lost_is_refused(
    live: LiveKpy, busybox_base: str, workdir: Path, dockerfile: str, message: str
) -> None:
    context = _context(workdir / "c", dockerfile.format(base=busybox_base))

    done = live("build", ".", options=_at(context), check=False)

    assert done.returncode == 8, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


NO_NETWORK = """
import errno, socket, subprocess
def outcome(family, address):
    try:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.connect(address)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "connected"
print(outcome(socket.AF_INET, ("127.0.0.1", {port})), outcome(socket.AF_UNIX, "\\0{name}"), flush=True)
"""


@pytest.mark.parametrize("isolation", ["live", "chroot"])
def test_network_none_is_without_network(
    live: LiveKpy, python_base: str, workdir: Path, isolation: str
) -> None:
    """R10 without a namespace: not even what listens beside the builder is reached, abstract Unix sockets included
    where the kernel can. Who asks for nothing has the network."""
    name = f"kpy-{workdir.name}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{name}")
        abstract.listen()
        script = NO_NETWORK.format(port=server.getsockname()[1], name=name)
        dockerfile = f"""FROM {python_base}
COPY try.py /
RUN python3 /try.py | sed 's/^/with: /'
RUN --network=none python3 /try.py | sed 's/^/without: /'
USER 5:5
RUN --network=none python3 /try.py | sed 's/^/as another: /'
"""
        context = _context(workdir / "c", dockerfile, **{"try.py": script})

        done = live("build", "--isolation", isolation, "--progress", "plain", ".", options=_at(context))

    assert "with: connected connected" in done.stderr
    for who in ("without", "as another"):
        (line,) = [line for line in done.stderr.splitlines() if f" {who}: " in line]
        assert line.split()[-2] == "EAFNOSUPPORT"
        assert line.split()[-1] in {"EPERM", "connected"}  # Landlock 6 or none


def test_a_write_to_a_read_only_mount_is_said(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    """R14: nothing can be mounted there, so it succeeds; it is dropped, and the user is told."""
    dockerfile = f"FROM {busybox_base}\nRUN --mount=target=/src cat /src/file && touch /src/new\nRUN --mount=target=/src ! test -e /src/new\n"
    context = _context(workdir / "c", dockerfile, file="x")

    done = live("build", "--progress", "plain", ".", options=_at(context))

    warnings = [line for line in done.stderr.splitlines() if "read-only mount" in line]
    assert len(warnings) == 1
    assert "/src/new was written, in the read-only mount /src" in warnings[0]
    assert not (context / "new").exists()


def test_the_root_as_context_is_refused(live: LiveKpy, busybox_base: str) -> None:
    dockerfile = f"FROM {busybox_base}\nRUN true\n".encode()

    done = live("build", "-f", "-", "/", check=False, stdin=dockerfile)

    assert "the build needs / itself" in done.stderr


def test_without_its_consent_the_root_is_not_emptied(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    """The bundle, copied to some machine: a chroot, and live is refused."""
    context = _context(workdir / "c", f"FROM {busybox_base}\nRUN ! test -e /kpy && ! test -e /proc/self\n")
    options = [*_at(context), "--env", "KPY_DISPOSABLE_ROOT="]

    assert live("build", ".", options=options).stdout.startswith("sha256:")
    refused = live("build", "--isolation", "live", ".", options=options, check=False)

    assert refused.returncode == 8
    assert "--isolation=live empties the root file system" in refused.stderr


def test_a_build_in_a_run_does_not_wait_for_the_root_of_the_outer_one(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    """It would wait for ever."""
    (workdir / "Dockerfile").write_text(
        f"FROM {busybox_base}\nWORKDIR /inner\nCOPY Dockerfile .\nENV KPY_DISPOSABLE_ROOT=1 KPY_HOME=/inner/state\n"
        "RUN printf 'FROM scratch\\nCOPY Dockerfile /\\nRUN [\"/x\"]\\n' > Dockerfile && ! /kpy/bin/kpy build --isolation live .\n"
    )
    done = live("build", "--progress", "plain", ".", options=["--volume", f"{workdir}:/workspace:ro"])
    assert "error: this is a RUN of a build that has the root file system, and there is but one" in done.stderr


def test_secrets_where_the_container_has_them(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    context = _context(
        workdir / "c",
        f"FROM {busybox_base}\nRUN --mount=type=secret,id=key test $(cat /run/secrets/key) = s3\nRUN ls /run/secrets > /n\n",
    )
    (workdir / "key").write_text("s3")
    done = live(
        "build", "--secret", "id=key,src=/run/secrets/key", ".",
        options=[*_at(context), "--volume", f"{workdir}/key:/run/secrets/key:ro"],
    )  # fmt: skip
    assert "s3" not in done.stderr.replace("= s3", "")


def test_chroot_of_an_installed_kpy_in_a_debian_container(
    docker: Docker, registry: Registry, python_base: str, busybox_base: str, workdir: Path, program: str
) -> None:
    """Root, no namespaces, no bundle: the kpy that pip installed, in a container with a Python."""
    context = _context(workdir / "c", RUNS.format(base=busybox_base, proc="ls /proc /sys"))
    venv = Path(program).parents[1]
    checkout = Path(__file__).resolve().parents[1]  # where an editable installation leads to
    name = f"{registry.host}/live/chroot:1"
    for isolation in ("auto", "chroot"):
        docker(
            "run", "--rm", "--network", "host", "--volume", f"{venv}:{venv}:ro", "--volume", f"{checkout}:{checkout}:ro",
            *_at(context), "--workdir", "/workspace", python_base,
            program, "build", "--isolation", isolation, "--push", "-t", name, ".",
        )  # fmt: skip
    assert trees.described(name, workdir / "unpacked")["h"].startswith("-rw-r--r-- 0:0")


def test_docker_stop_ends_a_build(live: LiveKpy, docker: Docker, busybox_base: str, workdir: Path) -> None:
    """kpy is process 1 there, which has no default for signals; nothing of the RUN keeps the container alive."""
    context = _context(workdir / "c", f"FROM {busybox_base}\nRUN trap '' TERM; echo started; sleep 300\n")
    name = docker("run", "--detach", "--network", "host", *_at(context), live.image, "build", ".")
    try:
        for _ in range(300):
            if " started" in docker.logs(name):
                break
            time.sleep(0.1)
        docker("stop", "--time", "30", name)
        state = json.loads(docker("inspect", name))[0]["State"]
    finally:
        docker("rm", "--force", name)
    assert state["ExitCode"] == 143, state
