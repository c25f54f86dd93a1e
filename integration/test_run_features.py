"""What a RUN may ask for, built for real by an unprivileged user: every kind of mount with its options, agents, limits,
networks; and what is refused before anything runs (R10-R19)."""

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from people import Kpy, User

HEAD = "ARG BASE\nFROM $BASE AS base\n"


class Project:
    """A context, and builds of it with the store that all tests share: no cache of steps unless asked for."""

    def __init__(self, kpy: Kpy, base: str, directory: Path) -> None:
        self.kpy = kpy
        self.base = base
        self.directory = directory

    def write(self, dockerfile: str, **files: str) -> None:
        self.directory.mkdir(exist_ok=True)
        (self.directory / "Dockerfile").write_text(HEAD + dockerfile)
        for name, text in files.items():
            path = self.directory / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for directory, _, names in os.walk(self.directory):
            for path in (directory, *(os.path.join(directory, name) for name in names)):
                os.chown(path, self.kpy.user.uid, self.kpy.user.gid)

    def arguments(self, *more: str) -> list[str]:
        return [
            "build", "--isolation=userns", "--progress=plain", "--build-arg", f"BASE={self.base}", *more, str(self.directory),
        ]  # fmt: skip

    def build(self, dockerfile: str, *more: str, cached: bool = False, **files: str) -> str:
        """What the build said on standard error."""
        self.write(dockerfile, **files)
        return self.kpy(*self.arguments(*([] if cached else ["--no-cache"]), "-o", "type=cacheonly", *more)).stderr

    def fails(self, dockerfile: str, *more: str, **files: str) -> tuple[int, str]:
        """Exit code and standard error of a build that does not work."""
        self.write(dockerfile, **files)
        done = self.kpy(*self.arguments("-o", "type=cacheonly", *more), check=False)
        assert done.returncode != 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    def start(self, dockerfile: str, *more: str) -> "subprocess.Popen[str]":
        """A build that runs while the test does something else."""
        self.write(dockerfile)
        return subprocess.Popen(
            [self.kpy.program, *self.arguments("--no-cache", "-o", "type=cacheonly", *more)], stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL, text=True, **self.kpy.spawn(),
        )  # fmt: skip

    def layers(self, dockerfile: str, *more: str, **files: str) -> list[dict[str, tarfile.TarInfo]]:
        """The members of each layer that the build added."""
        self.write(dockerfile, **files)
        archive = self.directory.with_name(self.directory.name + ".tar")
        self.kpy(*self.arguments("-o", f"type=oci,dest={archive}", *more))
        return Image(archive).members[1:]


class Image:
    """An OCI archive."""

    def __init__(self, archive: Path) -> None:
        with tarfile.open(archive) as tar:

            def blob(digest: str) -> bytes:
                file = tar.extractfile(f"blobs/{digest.replace(':', '/')}")
                assert file is not None
                return file.read()

            index = tar.extractfile("index.json")
            assert index is not None
            self.manifest = json.loads(blob(json.loads(index.read())["manifests"][0]["digest"]))
            self.config = json.loads(blob(self.manifest["config"]["digest"]))
            self.members = []
            for layer in self.manifest["layers"]:
                data = blob(layer["digest"])
                if layer["mediaType"].endswith("zstd"):
                    data = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
                with tarfile.open(fileobj=io.BytesIO(data)) as inner:
                    self.members.append({item.name: item for item in inner})


@pytest.fixture
def project(shared_kpy: Kpy, busybox_base: str, workdir: Path) -> Project:
    return Project(shared_kpy, busybox_base, workdir / "context")


# --- bind (R14)


def test_a_bind_without_a_source_is_the_context(project: Project) -> None:
    project.build(
        """
        WORKDIR /w
        RUN --mount=target=. test "$(cat file)" = hello && test "$(pwd)" = /w
        RUN --mount=type=bind,target=/m,source=sub test "$(ls /m)" = inner
        RUN --mount=target=here,source=file test "$(cat /w/here)" = hello
        RUN test ! -e /w/here && test ! -e /m && test ! -e /w/file
        """,
        file="hello", sub__inner="x", skipped="no", _dot_dockerignore="skipped\n",
    )  # fmt: skip


def test_the_context_of_a_bind_has_no_ignored_files(project: Project) -> None:
    project.build("RUN --mount=target=/m test ! -e /m/skipped && test -e /m/file", file="x", skipped="no", _dot_dockerignore="skipped\n")


def test_a_bind_is_read_only_unless_asked_and_its_writes_are_dropped(project: Project) -> None:
    project.build(
        """
        RUN --mount=target=/m ! touch /m/new && ! echo x > /m/file
        RUN --mount=target=/m,rw touch /m/new && echo changed > /m/file && rm -r /m/sub && ln /m/file /m/link
        RUN --mount=target=/m,readwrite,source=file ! false && echo changed > /m && test "$(cat /m)" = changed
        RUN --mount=target=/m test "$(cat /m/file)" = hello && test -e /m/sub/inner && test ! -e /m/new
        """,
        file="hello", sub__inner="x",
    )  # fmt: skip
    assert (project.directory / "file").read_text() == "hello"


def test_a_bind_from_a_stage_from_an_image_and_from_a_named_context(project: Project, workdir: Path) -> None:
    other = workdir / "other"
    other.mkdir()
    (other / "named").write_text("named")
    project.build(
        f"""
        RUN mkdir /made && echo stage > /made/file && ln -s made /link
        FROM base
        RUN --mount=from=BASE,target=/m test "$(cat /m/made/file)" = stage && test -x /m/bin/busybox
        RUN --mount=from=base,source=/link,target=/m test "$(cat /m/file)" = stage
        RUN --mount=type=bind,from={project.base},target=/m test -x /m/bin/busybox && test ! -e /m/made
        RUN --mount=from=other,target=/m test "$(cat /m/named)" = named
        RUN --mount=from=base,target=/m,rw echo changed > /m/made/file
        RUN --mount=from=base,target=/m test "$(cat /m/made/file)" = stage
        """,
        "--build-context", f"other={other}",
    )  # fmt: skip


def test_what_is_not_in_the_source_is_an_error_with_its_line(project: Project) -> None:
    code, said = project.fails("RUN true\nRUN --mount=target=/m,source=missing true\n")
    assert code == 5
    assert "missing" in said
    assert "Dockerfile:4" in said


def test_mounts_below_mounts_and_targets_with_links(project: Project) -> None:
    project.build(
        """
        RUN mkdir -p /real/deep && ln -s real /to && ln -s /../../real/deep /up
        RUN --mount=target=/m --mount=type=tmpfs,target=/m/sub test -e /m/file && test -z "$(ls /m/sub)" && touch /m/sub/x
        RUN --mount=type=tmpfs,target=/m/sub --mount=target=/m test -e /m/file && test -z "$(ls /m/sub)"
        RUN --mount=type=tmpfs,target=/t --mount=target=/t/a/b,source=file --mount=type=cache,target=/t/c,id=nested \
            test "$(cat /t/a/b)" = hello && touch /t/c/kept
        RUN --mount=target=/to/m,source=file test "$(cat /real/m)" = hello
        RUN --mount=type=tmpfs,target=/up touch /real/deep/x && test -h /up
        RUN test -z "$(ls /real/deep)" && test ! -e /real/m && test ! -e /t
        """,
        file="hello", sub__inner="x",
    )  # fmt: skip


def test_what_mounts_needed_is_not_in_the_layer(project: Project) -> None:
    layers = project.layers(
        "RUN --mount=target=/a/b/c --mount=type=cache,target=/var/cache/x --mount=type=secret,id=s --mount=type=tmpfs,target=/tmp/t "
        "--mount=type=ssh touch /root/made",
        "--secret", f"id=s,src={project.directory}/Dockerfile", "--no-cache", file="x",
    )  # fmt: skip
    assert sorted(layers[-1]) == ["root", "root/made"]


# --- cache (R15)


def test_a_cache_outlives_builds_with_its_owner_and_mode(project: Project) -> None:
    ident = project.directory.parent.name
    text = f"RUN --mount=type=cache,target=/c,id={ident},uid=7,gid=8,mode=1770"
    project.build(f'{text} test "$(stat -c %a:%u:%g /c)" = 1770:7:8 && test ! -e /c/kept && echo 1 > /c/kept && chmod 755 /c')
    project.build(f'{text} test "$(cat /c/kept)" = 1 && test "$(stat -c %a /c)" = 755')
    project.build(f"RUN --mount=type=cache,target=/c,id={ident} test ! -e /c/kept")  # another owner: another cache
    project.build(f"{text},ro test -e /c/kept && ! touch /c/new")


def test_the_id_of_a_cache_is_its_target(project: Project) -> None:
    name = project.directory.parent.name
    project.build(f"WORKDIR /w\nRUN --mount=type=cache,target={name} touch {name}/kept && test -z $(ls -A | grep -v {name})")
    project.build(f"RUN --mount=type=cache,target=/x,id=/w/{name} test -e /x/kept")
    project.build(f"RUN --mount=type=cache,target=/./w//{name}/ test -e /w/{name}/kept")


def test_a_cache_starts_from_a_stage_and_again_when_that_changed(project: Project) -> None:
    ident = project.directory.parent.name
    text = """
        RUN mkdir -p /seed/sub && echo VERSION > /seed/sub/file && chown -R 5:6 /seed && chmod 700 /seed/sub
        FROM base
        RUN --mount=type=cache,target=/c,id=ID,from=base,source=/seed/sub TEST
    """.replace("ID", ident)
    first = 'test "$(stat -c %a:%u:%g /c)" = 700:5:6 && test "$(cat /c/file)" = one && echo more > /c/more'
    project.build(text.replace("VERSION", "one").replace("TEST", first))
    project.build(text.replace("VERSION", "one").replace("TEST", "test -e /c/more"))
    project.build(text.replace("VERSION", "two").replace("TEST", 'test "$(cat /c/file)" = two && test ! -e /c/more'))
    code, said = project.fails(text.replace("/seed/sub TEST", "/seed/sub/file true"))
    assert (code, "no directory" in said) == (5, True), said
    code, said = project.fails(f"RUN --mount=type=cache,target=/c,id={ident},source=/x true")
    assert (code, "it has a source, but no from" in said) == (3, True), said


def test_one_cache_twice_in_one_run(project: Project) -> None:
    ident = project.directory.parent.name
    project.build(
        f"""
        RUN --mount=type=cache,target=/a,id={ident},sharing=locked --mount=type=cache,target=/b,id={ident},sharing=locked \
            touch /a/x && test -e /b/x
        RUN --mount=type=cache,target=/a,id={ident},sharing=private --mount=type=cache,target=/b,id={ident},sharing=private \
            test -e /a/x -o -e /b/x && test ! -e /a/x -o ! -e /b/x
        """
    )


def _wait(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)


@pytest.fixture
def gate(project: Project, workdir: Path) -> Iterator[Callable[[str, str], "subprocess.Popen[str]"]]:
    """Starts a build that has the cache at /c, and ends when it finds a file `go` there or in its own /gate cache."""
    running: list[subprocess.Popen[str]] = []

    def start(sharing: str, ident: str) -> "subprocess.Popen[str]":
        running.append(
            project.start(
                f"RUN --mount=type=cache,target=/gate,id={ident}-gate --mount=type=cache,target=/c,id={ident},sharing={sharing} "
                "touch /c/mine /gate/started; for i in $(seq 600); do test -e /gate/go && exit 0; sleep 0.1; done; exit 1"
            )
        )
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(30)
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.parametrize("sharing", ["shared", "private", "locked"])
def test_two_builds_and_one_cache(
    project: Project, gate: Callable[[str, str], "subprocess.Popen[str]"], workdir: Path, sharing: str
) -> None:
    """Shared: both have it at once. Private: the second has its own. Locked: the second waits for the first."""
    ident = workdir.name
    first = gate(sharing, ident)
    # The gate is a cache too, and shared: a second project looks through it.
    look = Project(project.kpy, project.base, workdir / "look")
    look.build(f"RUN --mount=type=cache,target=/gate,id={ident}-gate for i in $(seq 600); do test -e /gate/started && exit 0; sleep 0.1; done; exit 1")
    go = f"--mount=type=cache,target=/gate,id={ident}-gate"
    mount = f"--mount=type=cache,target=/c,id={ident},sharing={sharing}"
    if sharing == "locked":
        waiting = Project(project.kpy, project.base, workdir / "second").start(f"RUN {mount} test -e /c/mine")
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(4)
        look.build(f"RUN {go} touch /gate/go")
        assert (first.wait(30), waiting.wait(60)) == (0, 0)
        assert waiting.stderr is not None
        waiting.stderr.close()
        return
    look.build(f"RUN {mount} test {'!' if sharing == 'private' else ''} -e /c/mine")
    assert first.poll() is None
    look.build(f"RUN {go} touch /gate/go")
    assert first.wait(30) == 0


def test_builds_that_lock_two_caches_in_either_order_both_end(project: Project, workdir: Path) -> None:
    ident = workdir.name
    mounts = [f"--mount=type=cache,target=/{name},id={ident}-{name},sharing=locked" for name in ("a", "b")]
    builds = [
        Project(project.kpy, project.base, workdir / f"p{number}").start(
            "\n".join(f"RUN {' '.join(order)} sleep 0.2; echo {step}" for step in range(5))
        )
        for number, order in enumerate((mounts, mounts[::-1]))
    ]
    for build in builds:
        assert build.wait(120) == 0
        assert build.stderr is not None
        build.stderr.close()


# --- tmpfs (R16)


def test_a_tmpfs_has_its_size_and_the_mode_of_what_it_hides(project: Project) -> None:
    project.build(
        """
        RUN --mount=type=tmpfs,target=/t,size=1m ! dd if=/dev/zero of=/t/x bs=1M count=3 2> /dev/null
        RUN --mount=type=tmpfs,target=/t test "$(stat -c %a /t)" = 1777 && dd if=/dev/zero of=/t/x bs=1M count=3
        RUN mkdir -m 750 /m && touch /m/hidden
        RUN --mount=type=tmpfs,target=/m test "$(stat -c %a /m)" = 750 && test -z "$(ls /m)" && touch /m/gone
        RUN test "$(ls /m)" = hidden
        """
    )


# --- secrets (R17)


def test_secrets_as_files_and_variables(project: Project, workdir: Path) -> None:
    kpy = project.kpy.with_env(TOKEN="from the environment")
    project = Project(kpy, project.base, project.directory)
    (workdir / "token").write_text("s3cret-of-a-file")
    project.build(
        """
        RUN --mount=type=secret,id=file test "$(cat /run/secrets/file)" = s3cret-of-a-file && \
            test "$(stat -c %a:%u:%g /run/secrets/file)" = 400:0:0 && ! echo x > /run/secrets/file
        RUN --mount=type=secret,id=file,target=/etc/token,mode=0440,uid=3,gid=4 test "$(stat -c %a:%u:%g /etc/token)" = 440:3:4
        RUN --mount=type=secret,id=TOKEN,env=IT test "$IT" = "from the environment" && test ! -e /run/secrets/TOKEN
        RUN --mount=type=secret,id=TOKEN,env=IT,target=/it test "$IT" = "$(cat /it)"
        RUN --mount=type=secret,id=missing --mount=type=secret,id=missing,env=NONE test ! -e /run/secrets/missing && test -z "$NONE"
        RUN test ! -e /run/secrets && test ! -e /etc/token && test ! -e /it
        """,
        "--secret", f"id=file,src={workdir}/token", "--secret", "id=TOKEN",
    )  # fmt: skip
    code, said = project.fails("RUN --mount=type=secret,id=missing,required true")
    assert (code, "secret missing: not found" in said) == (8, True), said


def test_another_value_of_a_secret_is_no_other_step(project: Project, workdir: Path) -> None:
    text = f"RUN --mount=type=secret,id=s,env=S echo {workdir.name}"
    for value in ("one", "two"):
        (workdir / "s").write_text(value)
        said = project.build(text, "--secret", f"id=s,src={workdir}/s", cached=True)
    assert "CACHED" in said


def test_a_secret_is_in_no_argument_or_environment_but_that_of_the_command(project: Project, workdir: Path) -> None:
    secret = "v3ry-s3cret-value"
    (workdir / "s").write_text(secret)
    project.write(
        "RUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s --mount=type=cache,target=/g,id=argv touch /g/on; sleep 77.5"
    )
    build = subprocess.Popen(
        [project.kpy.program, *project.arguments("--no-cache", "--secret", f"id=s,src={workdir}/s", "-o", "type=cacheonly")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **project.kpy.spawn(),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (found := _holders("sleep\x0077.5", secret)):
            assert time.monotonic() < deadline
            assert build.poll() is None
            time.sleep(0.05)
    finally:
        build.send_signal(signal.SIGINT)
        _, said = build.communicate(timeout=30)
    assert secret.encode() not in said
    assert all(line.startswith(("/bin/sh -c touch", "sleep 77.5")) for line in found), found


def _holders(wanted: str, secret: str) -> list[str]:
    """The command lines of all processes whose arguments or environment have the secret; none until `wanted` runs."""
    running, holders = False, []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        running = running or line.startswith(wanted.encode())
        if secret.encode() in line + variables:
            holders.append(line.replace(b"\0", b" ").decode())
    return holders if running else []


# --- what every RUN finds (R04-R08, R21, R24)


def test_names_and_addresses(project: Project) -> None:
    """R06: hosts, resolver and hostname are the RUN's own, and in no layer."""
    layers = project.layers(
        """
        RUN grep -q "^10.1.2.3[[:space:]]db$" /etc/hosts && grep -q "::7[[:space:]]six" /etc/hosts && \
            grep -q "localhost here" /etc/hosts && test "$(hostname)" = here && grep -q nameserver /etc/resolv.conf
        RUN echo 10.0.0.9 mine >> /etc/hosts; echo x >> /etc/resolv.conf; hostname other; touch /made
        RUN ! grep mine /etc/hosts && ! grep -qx x /etc/resolv.conf && test "$(hostname)" = here
        """,
        "--add-host=db:10.1.2.3", "--add-host", "six=::7", "--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=here", "--no-cache",
    )  # fmt: skip
    assert not {"etc/hosts", "etc/resolv.conf", "etc/hostname"} & {name for layer in layers for name in layer}
    assert "made" in layers[-2]


def test_shared_memory_is_each_run_s_own(project: Project) -> None:  # R08
    project.build(
        """
        RUN test "$(stat -c %a /dev/shm)" = 1777 && dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2> /dev/null
        RUN test -z "$(ls -A /dev/shm)" && ! dd if=/dev/zero of=/dev/shm/x bs=1M count=65 2> /dev/null
        """
    )


def test_an_empty_store_and_a_closed_umask(project: Project, make_kpy: Callable[[], Kpy]) -> None:
    """R05: what the builder's umask closes is not closed in the image: its root, and what a mount brings."""
    fresh = Project(make_kpy(), project.base, project.directory)
    fresh.write(
        """
        FROM scratch AS empty
        FROM base AS made
        RUN mkdir /made && echo x > /made/file
        FROM base
        USER 7
        RUN --mount=from=made,source=/made,target=/m cat /m/file && ls /bin > /dev/null && test "$(stat -c %a /)" = 755
        RUN --mount=from=empty,target=/m ls /m
        COPY --from=made /made /made
        RUN cat /made/file
        """
    )
    command = [fresh.kpy.program, *fresh.arguments("-o", "type=cacheonly")]
    done = subprocess.run(command, capture_output=True, check=False, **{**fresh.kpy.spawn(), "umask": 0o077})
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def test_home_umask_standard_input_and_signals(project: Project) -> None:  # R04, R05, R24
    """Whatever the builder's are: this one has another umask and home, and ignores signals."""
    project.write(
        """
        RUN echo "app:x:7:7::/home/app:/bin/sh" >> /etc/passwd
        RUN test "$HOME" = /root && test "$(umask)" = 0022 && touch /file && test "$(stat -c %a /file)" = 644
        RUN test "$(readlink /proc/self/fd/0)" = /dev/null && test -z "$(cat)"
        RUN grep -q "SigIgn:[[:space:]]*0*$" /proc/self/status && grep -q "SigBlk:[[:space:]]*0*$" /proc/self/status
        RUN sh -c 'kill -HUP $$'; test $? = 129
        USER app
        RUN test "$HOME" = /home/app && test "$(id -u)" = 7
        USER 4711
        RUN test "$HOME" = /
        ENV HOME=/elsewhere
        RUN test "$HOME" = /elsewhere
        """
    )
    spawn = {**project.kpy.spawn(), "umask": 0o077}
    command = [project.kpy.program, *project.arguments("--no-cache", "-o", "type=cacheonly")]
    done = subprocess.run(["nohup", *command], input=b"not for a RUN", capture_output=True, check=False, **spawn)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def test_output_is_shown_as_it_comes_in_order_and_byte_for_byte(project: Project) -> None:
    project.write(
        "RUN printf 'first\\n'; printf 'second \\377\\000\\303' >&2; printf '\\244\\n'; sleep 3; echo third >&2; echo fourth\n"
    )
    build = subprocess.Popen(
        [project.kpy.program, *project.arguments("--no-cache", "-o", "type=cacheonly")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **project.kpy.spawn(),
    )  # fmt: skip
    assert build.stderr is not None
    said, came = [], {}
    for line in build.stderr:
        text = line.rstrip(b"\n").split(b" ", 2)[-1]
        if text in (b"first", b"third", b"fourth") or text.startswith(b"second"):
            said.append(text)
            came[text.split(b" ")[0]] = time.monotonic()
    assert build.wait(60) == 0
    build.stderr.close()
    assert said == [b"first", b"second \xff\x00\xc3\xa4", b"third", b"fourth"]
    assert came[b"third"] - came[b"second"] > 2


# --- ssh (R18)

AGENT = """
RUN --mount=type=ssh test "$SSH_AUTH_SOCK" = /run/buildkit/ssh_agent.0 && test -S "$SSH_AUTH_SOCK" && \
    test "$(stat -c %a:%u:%g $SSH_AUTH_SOCK)" = 600:0:0 && ssh-add -L | cut -d' ' -f1 > /listed
RUN --mount=type=ssh ssh-add -L | head -1 > /key.pub && echo data > /data && ssh-keygen -Y sign -n kpy -f /key.pub /data && \
    echo "me $(cat /key.pub)" > /allowed && ssh-keygen -Y verify -n kpy -f /allowed -I me -s /data.sig < /data
RUN --mount=type=ssh ! ssh-add -D && ssh-add -l
RUN --mount=type=ssh,id=none test -z "$(ls /run/buildkit 2> /dev/null)"
RUN --mount=type=ssh,target=/sock,uid=1,gid=2,mode=0666 test "$SSH_AUTH_SOCK" = /sock && test "$(stat -c %a:%u:%g /sock)" = 666:1:2
RUN --mount=type=ssh,id=none --mount=type=ssh test -S /run/buildkit/ssh_agent.1 && SSH_AUTH_SOCK=/run/buildkit/ssh_agent.1 ssh-add -l
USER nobody
RUN --mount=type=ssh ! ssh-add -l
RUN --mount=type=ssh,uid=65534 ssh-add -l
USER root
RUN test -z "$SSH_AUTH_SOCK" && test ! -e /run/buildkit && test ! -e /sock
"""


@pytest.fixture
def keys(workdir: Path, dev: User) -> Path:
    """Key files of all kinds."""
    for kind, *more in (("ed25519",), ("ecdsa", "-b", "384"), ("rsa", "-b", "2048")):
        path = workdir / f"id_{kind}"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, *more, "-N", "", "-C", f"{kind} key", "-f", path], check=True)
        os.chown(path, dev.uid, dev.gid)
    return workdir


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_key_files_are_an_agent(shared_kpy: Kpy, ssh_base: str, workdir: Path, keys: Path, kind: str) -> None:
    project = Project(shared_kpy, ssh_base, workdir / "context")
    project.build(AGENT, "--ssh", f"default={keys}/id_{kind}")


def test_the_users_agent(shared_kpy: Kpy, ssh_base: str, workdir: Path, keys: Path) -> None:
    socket = keys / "agent.sock"
    variables = shared_kpy.spawn()
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL, **variables)  # type: ignore[call-overload]
    try:
        _wait(socket)
        kpy = shared_kpy.with_env(SSH_AUTH_SOCK=str(socket))
        for kind in ("ed25519", "rsa"):
            subprocess.run(["ssh-add", "-q", keys / f"id_{kind}"], check=True, **kpy.spawn())  # type: ignore[call-overload]
        project = Project(kpy, ssh_base, workdir / "context")
        project.build(AGENT, "--ssh", "default")
        project.build(AGENT, "--ssh", f"default={socket}")
        listed = subprocess.run(["ssh-add", "-L"], capture_output=True, check=True, **kpy.spawn())  # type: ignore[call-overload]
        assert listed.stdout.count(b"\n") == 2  # a RUN cannot remove them
    finally:
        agent.terminate()
        agent.wait(10)


def test_keys_are_in_no_cache_key_and_need_not_be_there_for_cached_steps(
    shared_kpy: Kpy, ssh_base: str, workdir: Path, keys: Path
) -> None:
    project = Project(shared_kpy, ssh_base, workdir / "context")
    text = f"RUN --mount=type=ssh,required ssh-add -l && echo {workdir.name}"
    project.build(text, "--ssh", f"default={keys}/id_rsa", cached=True)
    assert "CACHED" in project.build(text, "--ssh", f"default={keys}/id_ed25519", cached=True)
    assert "CACHED" in project.build(text, cached=True)
    code, said = project.fails(text + "-changed")
    assert (code, "ssh agent default: not given to this build" in said) == (8, True), said
    code, said = project.fails("RUN --mount=type=ssh,source=/x true")
    assert (code, "does not support source" in said) == (3, True), said
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "locked", "-f", keys / "id_rsa"], check=True)
    os.chown(keys / "id_rsa", shared_kpy.user.uid, shared_kpy.user.gid)
    code, said = project.fails(text, "--ssh", f"default={keys}/id_rsa")
    assert (code, "is protected by a passphrase" in said) == (2, True), said


# --- what a RUN may be and have (R10-R12, R19)


def test_limits_and_sizes(project: Project) -> None:
    project.build(
        """
        RUN test "$(ulimit -Sn):$(ulimit -Hn)" = 100:200 && test "$(ulimit -c)" = 0
        RUN test "$(df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2)" = 1024
        USER nobody
        RUN test "$(ulimit -Sn):$(ulimit -Hn)" = 100:200
        """,
        "--ulimit", "nofile=100:200", "--ulimit", "core=0", "--shm-size", "1m",
    )  # fmt: skip


def test_other_limits_are_another_step(project: Project, workdir: Path) -> None:
    text = f"RUN echo {workdir.name}"
    project.build(text, "--ulimit", "nofile=100", cached=True)
    assert "CACHED" not in project.build(text, "--ulimit", "nofile=200", cached=True)
    assert "CACHED" in project.build(text, "--ulimit", "nofile=100", cached=True)


def test_a_limit_above_the_users_own_is_refused_before_anything_runs(project: Project) -> None:
    code, said = project.fails("RUN echo first ran\nRUN true\n", "--ulimit", "memlock=-1")
    assert code == 8
    assert "--ulimit memlock: no limit is above the hard limit" in said
    assert "Dockerfile:3" in said
    assert not [line for line in said.splitlines() if line.startswith("#") and "RUN" in line]


def test_the_network_of_the_host_must_be_allowed(project: Project) -> None:
    text = "RUN --network=host test -n \"$(ip -o link show up | grep -v ' lo:')\" || true"
    code, said = project.fails(f"RUN echo first ran\n{text}")
    assert code == 2
    assert "RUN --network=host is not allowed" in said
    assert "--allow network.host" in said
    assert "Dockerfile:4" in said
    project.build(text, "--allow", "network.host")
    project.build(text, "--network", "host")
    project.build("RUN --network=default true\nRUN --network=none test \"$(ls /sys/class/net)\" = lo")


@pytest.mark.parametrize(("flag", "text"), [
    ("--security=insecure", "RUN --security=insecure is not supported"),
    ("--device=vendor.com/gpu=all", "RUN --device=vendor.com/gpu=all is not supported"),
    ("--device=vendor.com/gpu,required", "RUN --device=vendor.com/gpu,required is not supported"),
])  # fmt: skip
def test_rights_that_nobody_has_are_refused_before_anything_runs(project: Project, flag: str, text: str) -> None:
    """R11, R12"""
    code, said = project.fails(f"RUN echo first\nRUN {flag} true")
    assert code == 8
    assert text in said
    assert "Dockerfile:4" in said
    assert f"4 | >>> RUN {flag} true" in said
    assert "] RUN echo first" not in said


def test_the_sandbox_by_name(project: Project) -> None:
    project.build("RUN --security=sandbox true")


def test_cgroups_are_not_kpys(project: Project) -> None:
    code, said = project.fails("RUN true", "--cgroup-parent", "x")
    assert (code, "--cgroup-parent is not supported" in said) == (2, True), said


def test_a_path_deeper_than_the_kernel_takes_at_once(kpy: Kpy, workdir: Path, busybox_base: str) -> None:
    """It is in the layer, and there for who builds on the image."""
    half = "/".join(["n" * 200] * 12)
    first = f"FROM {busybox_base}\nRUN mkdir -p /a/{half} /b/{half} && echo deep > /b/{half}/f && mv /b /a/{half}/b\n"
    (workdir / "Dockerfile").write_text(first)
    kpy("build", "-t", "deep:1", "-o", f"type=oci,tar=false,dest={workdir}/out", workdir)
    (workdir / "Dockerfile").write_text(f"FROM base\nRUN cd /a/{half} && cat b/{half}/f && echo x > b/{half}/f\n")
    done = kpy("build", "--no-cache", "--build-context", f"base=oci-layout://{workdir}/out:1", workdir)
    assert " deep\n" in done.stderr
    (layer,) = [found for found in layers_of(workdir / "out") if any(name.endswith("/f") for name in found)]
    assert max(map(len, layer)) == len(f"a/{half}/b/{half}/f") > 4096


def layers_of(layout: Path) -> list[list[str]]:
    """The names in each layer of the one image."""

    def blob(descriptor: dict[str, str]) -> bytes:
        return (layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()

    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    found = []
    for layer in json.loads(blob(entry))["layers"]:
        with tarfile.open(fileobj=io.BytesIO(blob(layer))) as tar:
            found.append(tar.getnames())
    return found
