"""The solver with a pretended machine: what runs, what is cached, what fails, and that the same gives the same."""

import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from kpy.errors import ContentError, ContextError, InterruptedBuildError, SandboxError, StepFailedError
from kpy.events import StepFinished, StepLog
from kpy.layer.entry import Entry, Kind
from kpy.layer.tree import Tree
from kpy.oci.config import RuntimeConfig
from kpy.oci.platform import Platform
from kpy.plan.model import LINUX_AMD64
from tests.fakes import T0, FakeMachine, FakeRun, MemoryFiles, RecordingReporter, dir_item, file_item
from tests.solver.building import Builder, base_images

SERVICE = "FROM base\nWORKDIR /app\nCOPY a .\nRUN make\nCOPY d /d\nENV x=1\nCMD run\n"


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    made = Builder(tmp_path / "one")
    yield made
    made.close()


def test_a_build(builder: Builder) -> None:
    built = builder.build(SERVICE)
    assert [entry.path for entry in built.tree.walk() if entry.kind is Kind.FILE] == ["app/a", "d/f", "etc/passwd", "ran"]
    assert builder.machine.texts == ["make"]
    assert built.image.manifest.layers[0] == builder.images.images["base"][Platform("linux", "amd64")].chain[0].descriptor
    assert len(built.config["history"]) == 7
    assert built.outcome_of_steps() == ["done"] * 4
    assert [layer.diff_id for layer in built.image.chain] == list(built.image.config.diff_ids)


def test_a_cached_build_runs_and_reads_nothing(builder: Builder) -> None:
    first = builder.build(SERVICE)
    builder.machine = FakeMachine()
    builder.images.content.opened.clear()
    second = builder.build(SERVICE)
    assert second.digests == first.digests
    assert second.raws == first.raws
    assert second.outcome_of_steps() == ["cached"] * 4
    assert (builder.machine.runs, builder.machine.prepared) == ([], [])
    assert builder.images.content.opened == [], "nor is the base fetched again"


def test_copies_and_metadata_never_ask_for_a_machine(builder: Builder) -> None:
    builder.build("FROM base\nWORKDIR /w\nCOPY --chown=app . .\nADD a /b\nUSER app\nCMD x")
    assert builder.machine.asked == 0


def test_a_link_needs_nothing_of_the_base(builder: Builder) -> None:
    """C19."""
    built = builder.build("FROM base\nCOPY --link d /d\nENV a=b")
    assert builder.images.content.opened == []
    assert len(built.image.chain) == 2


def test_a_link_is_found_on_any_base(builder: Builder) -> None:
    builder.images.add("other", None or base_images().images["base"][Platform("linux", "amd64")].config.runtime)
    one = builder.build("FROM base\nCOPY --link d /d")
    two = builder.build("FROM other\nCOPY --link d /d")
    assert two.outcome_of_steps() == ["cached"]
    assert one.image.chain[-1] == two.image.chain[-1]
    assert builder.build("FROM other\nCOPY d /d").outcome_of_steps() == ["done"]


def test_no_cache(builder: Builder) -> None:
    builder.build(SERVICE)
    again = builder.build(SERVICE, no_cache=True)
    assert again.outcome_of_steps() == ["done"] * 4
    assert builder.machine.texts == ["make", "make"]
    assert builder.build(SERVICE).outcome_of_steps() == ["cached"] * 4


def test_no_cache_of_some_stages(builder: Builder) -> None:
    text = "FROM base AS one\nRUN make\nFROM base AS two\nCOPY --from=one /etc/passwd /x\nRUN other"
    builder.build(text)
    again = builder.build(text, no_cache_stages=frozenset({"two"}))
    assert sorted(again.outcome_of_steps()) == ["cached", "done", "done"]
    assert builder.machine.texts == ["make", "other", "other"]


def test_two_stores_give_one_digest(builder: Builder, tmp_path: Path) -> None:
    other = Builder(tmp_path / "two", builder.images)
    assert other.build(SERVICE, jobs=1).digests == builder.build(SERVICE, jobs=4).digests
    other.close()


def rebuilt(builder: Builder, text: str, change: str) -> list[str]:
    """The outcomes of the second Dockerfile after the first."""
    builder.build(text)
    return builder.build(change).outcome_of_steps()


def test_a12_a_value_of_arg_is_in_the_key_of_run_alone(builder: Builder) -> None:
    text = "FROM base\nARG v={}\nCOPY a /\nRUN make"
    assert rebuilt(builder, text.format(1), text.format(2)) == ["cached", "done"]


@pytest.mark.parametrize("line", ["ENV a=b", "USER app", "WORKDIR /", "SHELL [\"/x\"]"])
def test_r20_what_a_run_depends_on(builder: Builder, line: str) -> None:
    expected = "cached" if line == "WORKDIR /" else "done"
    assert rebuilt(builder, "FROM base\nRUN make", f"FROM base\n{line}\nRUN make")[-1:] == [expected]


@pytest.mark.parametrize("line", ["LABEL a=b", "CMD x", "EXPOSE 80", "VOLUME /x", "MAINTAINER me", "HEALTHCHECK NONE"])
def test_r20_metadata_is_in_no_key(builder: Builder, line: str) -> None:
    assert rebuilt(builder, "FROM base\nRUN make", f"FROM base\n{line}\nRUN make") == ["cached"]


def test_a08_proxies_are_in_no_key(builder: Builder) -> None:
    builder.build("FROM base\nRUN make", plan_options={"build_args": {"http_proxy": "http://a"}})
    again = builder.build("FROM base\nRUN make", plan_options={"build_args": {"http_proxy": "http://b"}})
    assert again.outcome_of_steps() == ["cached"]
    assert "http_proxy=http://a" in builder.machine.runs[0].process.env
    assert b"http://a" not in again.raws[0]


def test_r17_secrets_are_in_no_key_and_nowhere_else(builder: Builder) -> None:
    text = "FROM base\nRUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s make"
    builder.secrets = {"s": lambda: b"hunter2"}
    built = builder.build(text)
    (run,) = builder.machine.runs
    assert "S=hunter2" in run.process.env
    assert [(mount.kind, mount.target, mount.data) for mount in run.mounts if mount.data] == [("file", "/run/secrets/s", b"hunter2")]
    builder.secrets = {"s": lambda: b"other"}
    assert builder.build(text).outcome_of_steps() == ["cached"]
    assert b"hunter2" not in built.raws[0]
    assert "hunter2" not in repr(built.reporter.events) + repr(built.services) + repr(run.mounts) + repr(run.process)


def test_r17_required(builder: Builder) -> None:
    with pytest.raises(SandboxError, match="secret s: not found"):
        builder.build("FROM base\nRUN --mount=type=secret,id=s,required make")
    builder.build("FROM base\nRUN --mount=type=secret,id=s make")


def change(builder: Builder, entry: Entry | None = None, content: bytes | None = None) -> list[str]:
    """What a second build of COPY d /d says, after d/f has changed."""
    text = "FROM base\nCOPY d /d"
    builder.build(text)
    files = MemoryFiles.of({"a": b"A", "d/f": b"F" if content is None else content})
    if entry is not None:
        files.entries["d/f"] = entry
    builder.context = files
    return builder.build(text).outcome_of_steps()


def test_c13_times_are_not_in_the_key(builder: Builder) -> None:
    assert change(builder, Entry("d/f", Kind.FILE, 0o644, size=1, mtime=T0 + 10**9)) == ["cached"]


@pytest.mark.parametrize(
    "entry",
    [
        Entry("d/f", Kind.FILE, 0o755, size=1, mtime=T0),
        Entry("d/f", Kind.SYMLINK, 0o777, link="x", mtime=T0),
        Entry("d/f", Kind.FILE, 0o644, size=1, mtime=T0, xattrs={"security.capability": b"x"}),
    ],
)
def test_c31_metadata_is_in_the_key(builder: Builder, entry: Entry) -> None:
    assert change(builder, entry) == ["done"]


def test_c31_content_is_in_the_key(builder: Builder) -> None:
    assert change(builder, content=b"G") == ["done"]


def test_c31_owner_and_parent_are_in_the_key(builder: Builder) -> None:
    assert rebuilt(builder, "FROM base\nCOPY d /d", "FROM base\nCOPY --chown=1 d /d") == ["done"]
    assert rebuilt(builder, "FROM base\nCOPY d /d", "FROM base\nWORKDIR /z\nCOPY d /d") == ["done", "done"]


def test_c31_what_is_not_copied_does_not_matter(builder: Builder) -> None:
    builder.build("FROM base\nCOPY d /d")
    builder.context = MemoryFiles.of({"a": b"other", "d/f": b"F", "new": b""})
    assert builder.build("FROM base\nCOPY d /d").outcome_of_steps() == ["cached"]


def test_c33_only_what_is_copied_is_read(builder: Builder) -> None:
    builder.build("FROM base\nCOPY d /d")
    assert isinstance(builder.context, MemoryFiles)
    assert set(builder.context.opened) == {"d/f"}


@pytest.mark.parametrize(("source", "name"), [("x[1]", "x[1]"), ("a*b", "a*b"), ("q?", "q?"), ("back\\slash", "back\\slash"), ("", "d/f")])
def test_r20_contents_of_bind_mounts_are_in_the_key(builder: Builder, source: str, name: str) -> None:
    """The source of a mount is a path, never a pattern."""
    text = f"FROM base\nRUN --mount=target=/m,source={source.replace(chr(92), chr(92) * 4)} make" if source else "FROM base\nRUN --mount=target=/m make"
    outcomes = []
    for content in (b"1", b"1", b"2"):
        builder.context = MemoryFiles.of({name: content})
        outcomes += builder.build(text).outcome_of_steps()
    assert outcomes == ["done", "cached", "done"]


def test_mounts_that_are_not_there(builder: Builder) -> None:
    with pytest.raises(ContextError, match="not found"):
        builder.build("FROM base\nRUN --mount=target=/m,source=nowhere make")


def test_r15_contents_of_caches_are_in_no_key(builder: Builder) -> None:
    text = "FROM base\nRUN --mount=type=cache,target=/c {}"
    builder.machine.commands["one"] = lambda run: _write(run.mounts[0].source, b"kept")
    builder.build(text.format("one"))
    assert builder.build(text.format("one")).outcome_of_steps() == ["cached"]
    builder.build(text.format("two"))
    assert (Path(builder.machine.runs[-1].mounts[0].source) / "kept").read_bytes() == b"kept"


def test_caches_of_another_namespace_are_others(builder: Builder) -> None:
    """A10: BUILDKIT_CACHE_MOUNT_NS keeps what trusted builds use from the others, whatever ids these choose."""

    def build(namespace: str | None, ident: str) -> str:
        arguments = () if namespace is None else (("BUILDKIT_CACHE_MOUNT_NS", namespace),)
        text = f"FROM base\nARG BUILDKIT_CACHE_MOUNT_NS=main\nRUN --mount=type=cache,target=/c,id={ident} make"
        builder.build(text, plan_options={"build_args": arguments}, no_cache=True)
        return builder.machine.runs[-1].mounts[0].source

    assert build("main", "deps") == build("main", "deps")
    plain = build(None, "deps")
    assert build("", "deps") == plain
    others = [build("pr", "deps"), build(None, "main/deps"), build("ma", "in/deps"), build("main/", "deps"), plain]
    assert build("main", "deps") not in others
    assert len(set(others)) == 5


def _write(directory: str, content: bytes) -> int:
    (Path(directory) / "kept").write_bytes(content)
    return 0


def test_copy_from_a_stage_keeps_owners_and_its_files(builder: Builder) -> None:
    def make(run: FakeRun) -> int:
        run.write("out/bin", b"binary", mode=0o755, uid=7, gid=8)
        run.written["out"] = dir_item("out", uid=7, gid=8)
        return 0

    builder.machine.commands["make"] = make
    built = builder.build("FROM base AS b\nRUN make\nFROM scratch\nCOPY --from=b /out/bin /bin\nCOPY --from=b /out /o")
    found = built.tree.lookup("bin")
    assert found is not None
    assert (found.mode, found.uid, found.gid, found.size) == (0o755, 7, 8, 6)
    assert len(built.image.chain) == 2


def test_heredocs_are_files(builder: Builder) -> None:
    """H06."""
    built = builder.build("FROM scratch\nARG who=me\nCOPY <<a <<b /d/\nhello $who\na\nsecond\nb\n")
    entries = {entry.path: entry for entry in built.tree.walk()}
    assert (entries["d/a"].size, entries["d/a"].mode, entries["d/b"].size) == (9, 0o644, 7)


def test_add_of_a_download(builder: Builder) -> None:
    built = builder.build("FROM scratch\nADD http://h/x /dl/")
    assert [entry.path for entry in built.tree.walk() if entry.kind is Kind.FILE] == ["dl/file"]


def test_i12_workdir_belongs_to_the_user(builder: Builder) -> None:
    built = builder.build("FROM base\nUSER app\nWORKDIR /w/x\nUSER root\nWORKDIR /w/x\nWORKDIR /w/y")
    owners = {path: (entry.uid, entry.gid) for path in ("w", "w/x", "w/y") if (entry := built.tree.lookup(path))}
    assert owners == {"w": (7, 8), "w/x": (7, 8), "w/y": (0, 0)}
    assert len(built.image.chain) == 4, "always a layer, if an empty one (L06)"


@pytest.mark.parametrize(
    ("line", "words"),
    [("WORKDIR /etc/passwd", "is not a directory"), ("COPY nowhere /", "not found"), ("COPY --chown=nobody a /", "unable to find user nobody"), ("COPY --chown=0:nogroup a /", "unable to find group")],
)
def test_errors_know_their_lines(builder: Builder, line: str, words: str) -> None:
    with pytest.raises((ContextError, SandboxError), match=words) as caught:
        builder.build(f"FROM base\nUSER root\n{line}")
    assert caught.value.first_line == 3
    assert f">>> {line}" in caught.value.excerpt


def test_r21_a_failing_run(builder: Builder) -> None:
    def fail(run: FakeRun) -> int:
        run.log(b"x" * 20_000 + b"\n")
        run.log(b"no rule\n")
        return 2

    builder.machine.commands["make"] = fail
    with pytest.raises(StepFailedError) as caught:
        builder.build("FROM base\nRUN first\nRUN make\nRUN last")
    error = caught.value
    assert error.message == 'process "/bin/sh -c make" did not complete successfully: exit code: 2'
    assert (error.status, error.output, error.first_line, error.step) == (2, "no rule\n", 3, "[3/4] RUN make")
    assert builder.machine.texts == ["first", "make"]
    assert builder.machine.committed[1:] == []
    assert [event.outcome for event in builder.reporter.of(StepFinished)][-1] == "failed"
    assert b"".join(event.data for event in builder.reporter.of(StepLog)).endswith(b"no rule\n")
    assert builder.build("FROM base\nRUN first").outcome_of_steps() == ["cached"], "what was done is kept"


def test_a_failing_run_leaves_nothing_in_the_cache(builder: Builder) -> None:
    builder.machine.commands["make"] = lambda run: 1
    with pytest.raises(StepFailedError):
        builder.build("FROM base\nRUN make")
    del builder.machine.commands["make"]
    assert builder.build("FROM base\nRUN make").outcome_of_steps() == ["done"]


PARALLEL = "FROM base AS a\nRUN a\nFROM base AS b\nRUN b\nFROM scratch\nCOPY --from=a /ran /a\nCOPY --from=b /ran /b\n"


def test_f11_stages_run_side_by_side(builder: Builder) -> None:
    both = threading.Barrier(2, timeout=10)

    def meet(run: FakeRun) -> int:
        both.wait()
        run.write("ran", run.text.encode())
        return 0

    builder.machine.commands |= {"a": meet, "b": meet}
    built = builder.build(PARALLEL)
    assert sorted(builder.machine.texts) == ["a", "b"]
    assert len(built.image.chain) == 2


def test_a_machine_with_one_root_runs_one_at_a_time(builder: Builder) -> None:
    busy = threading.Lock()

    def alone(run: FakeRun) -> int:
        assert busy.acquire(blocking=False)
        run.write("ran", b"")
        busy.release()
        return 0

    builder.machine = FakeMachine(capacity=1)
    builder.machine.commands |= {"a": alone, "b": alone}
    builder.build(PARALLEL)


def test_a_failure_ends_the_others_and_is_the_error(builder: Builder) -> None:
    started = threading.Event()

    def wait(run: FakeRun) -> int:
        started.set()
        assert run.cancel.wait(10)
        raise InterruptedBuildError("interrupted")

    def fail(run: FakeRun) -> int:
        assert started.wait(10)
        return 3

    builder.machine.commands |= {"a": wait, "b": fail}
    with pytest.raises(StepFailedError, match="exit code: 3"):
        builder.build(PARALLEL)


def test_a_cancelled_build_ends(builder: Builder) -> None:
    def stop(run: FakeRun) -> int:
        builder.cancel.set()
        return 0

    builder.machine.commands["a"] = stop
    with pytest.raises(InterruptedBuildError):
        builder.build("FROM base\nRUN a\nRUN b")
    assert builder.machine.texts == ["a"]


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_bug_in_a_step_is_not_swallowed(builder: Builder, jobs: int) -> None:
    def bug(run: FakeRun) -> int:
        raise ZeroDivisionError

    builder.machine.commands["a"] = bug
    with pytest.raises(ZeroDivisionError):
        builder.build(PARALLEL, jobs=jobs)


def test_what_the_machine_cannot_do_is_said_before_anything_runs(builder: Builder) -> None:
    builder.machine.refuse = SandboxError("no user namespaces here")
    with pytest.raises(SandboxError, match="no user namespaces"):
        builder.build("FROM base\nCOPY a /\nRUN x")
    assert builder.reporter.of(StepFinished) == []


def test_f13_platforms(builder: Builder) -> None:
    amd64, arm64 = Platform("linux", "amd64"), Platform("linux", "arm64")
    text = "FROM --platform=$BUILDPLATFORM base AS b\nRUN make\nFROM base\nCOPY --from=b /ran /ran\n"
    built = builder.build(text, plan_options={"platforms": (amd64, arm64)})
    assert builder.machine.texts == ["make"]
    assert [image.config.platform for image in built.images] == [amd64, arm64]
    assert built.digests[0] != built.digests[1]


ARM64, ARMV7 = Platform("linux", "arm64"), Platform("linux", "arm", "v7")


def _multi(builder: Builder) -> None:
    """An image whose /arch says which of its platforms it is."""
    for platform in (LINUX_AMD64, ARM64, ARMV7):
        builder.images.add("multi", RuntimeConfig(), [file_item("arch", str(platform).encode())], platform=platform)


def _sum(tree: Tree, path: str) -> str:
    entry = tree.lookup(path)
    assert entry is not None
    return entry.sha256


def test_each_platform_has_its_own_base(builder: Builder) -> None:
    _multi(builder)
    built = builder.build("FROM multi\nCOPY a /", plan_options={"platforms": (LINUX_AMD64, ARM64, ARMV7)})
    found = [_sum(builder.services().layers.tree(image.chain), "arch") for image in built.images]
    assert found == [sha256(text).hexdigest() for text in (b"linux/amd64", b"linux/arm64", b"linux/arm/v7")]
    assert [image.config.platform for image in built.images] == [LINUX_AMD64, ARM64, ARMV7]


def test_a_stage_of_another_platform_is_another_base(builder: Builder) -> None:
    _multi(builder)
    built = builder.build("FROM --platform=linux/arm64 multi AS a\nFROM multi\nCOPY --from=a /arch /other\nRUN --mount=from=a,target=/m x")
    tree = builder.services().layers.tree(built.image.chain)
    assert (_sum(tree, "arch"), _sum(tree, "other")) == (sha256(b"linux/amd64").hexdigest(), sha256(b"linux/arm64").hexdigest())


# --- times ----------------------------------------------------------------------


def test_l07_created_is_the_newest_time_of_what_was_added(builder: Builder) -> None:
    builder.context = MemoryFiles.of({"a": b"A"}, mtime=1_800_000_000 * 10**9)
    built = builder.build("FROM base\nCOPY a /\nENV x=y")
    assert built.config["created"] == "2027-01-15T08:00:00Z"
    assert {item["created"] for item in built.config["history"][1:]} == {"2027-01-15T08:00:00Z"}
    assert built.config["history"][0]["created"] == "2024-01-01T00:00:00Z", "the base's history stays"


def test_l07_nothing_new_is_as_old_as_the_base(builder: Builder) -> None:
    assert builder.build("FROM base\nENV x=y").config["created"] == "2024-01-01T00:00:00Z"
    assert builder.build("FROM scratch\nENV x=y").config["created"] == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize("created", ["", "nonsense", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00", "2019-01-01T00:00:00.123456789Z", "2019-01-01T01:00:00+01:00", "2019-01-01T00:00:00"])
def test_l07_odd_times_of_bases(builder: Builder, created: str) -> None:
    builder.images.add("odd", created=created)
    expected = "2019-01-01T00:00:00Z" if created.startswith("2019") else "1970-01-01T00:00:00Z"
    assert builder.build("FROM odd").config["created"] == expected


def test_l07_times_beyond_all_years(builder: Builder) -> None:
    builder.context = MemoryFiles.of({"a": b"A"}, mtime=(1 << 40) * 10**9)
    assert builder.build("FROM base\nCOPY a /").config["created"] == "9999-12-31T23:59:59Z"


def test_a16_source_date_epoch(builder: Builder) -> None:
    built = builder.build("FROM base\nWORKDIR /w\nCOPY a /", epoch=1_000_000_000)
    assert built.config["created"] == "2001-09-09T01:46:40Z"
    made = built.tree.lookup("w")
    assert made is not None
    assert made.mtime == 1_000_000_000 * 10**9
    copied = built.tree.lookup("a")
    assert copied is not None
    assert copied.mtime == T0, "files keep theirs"


# --- images that do not fit --------------------------------------------------------


def test_a_base_that_is_not_what_it_says(builder: Builder) -> None:
    image = builder.images.add("broken", *[base_images().images["base"][Platform("linux", "amd64")].config.runtime], [file_item("x", b"1")])
    builder.images.content.blobs[image.chain[0].descriptor.digest] = b"other"
    with pytest.raises(ContentError):
        builder.build("FROM broken\nCOPY a /")


def test_nothing_is_left_in_the_spool(builder: Builder) -> None:
    builder.build(SERVICE + "RUN --mount=target=/m other\nADD a /z\nCOPY --from=base /etc /e")
    assert list((builder.directory / "spool").iterdir()) == []


def test_reports_are_complete(builder: Builder) -> None:
    built = builder.build(SERVICE)
    assert isinstance(built.reporter, RecordingReporter)
    assert set(built.outcomes().values()) == {"done"}
