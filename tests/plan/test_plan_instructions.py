"""What each instruction adds to steps, configuration and history (1.6, 1.7, 1.8)."""

import pytest

from kpy.errors import DockerfileError
from kpy.oci.config import Healthcheck, RuntimeConfig
from kpy.plan.model import CopyOp, HttpOp, RunOp, WorkdirOp
from tests.plan.planning import base, copies, histories, planned, runs, steps_of, target


def config(lines: str, inherited: RuntimeConfig = RuntimeConfig(env=("PATH=/bin",))) -> RuntimeConfig:
    return target(f"FROM base\n{lines}", base(inherited)).runtime


def test_i01_cmd() -> None:
    assert config('CMD ["a", "b c"]').cmd == ("a", "b c")
    assert config("CMD a  b").cmd == ("/bin/sh", "-c", "a  b")
    assert config("CMD a").args_escaped
    assert config("CMD []").cmd == ()
    assert histories('FROM base\nCMD ["a", "b\\"c"]') == ['CMD ["a" "b\\"c"]']


def test_i02_entrypoint_clears_the_cmd_of_the_base_only() -> None:
    inherited = RuntimeConfig(cmd=("base",))
    assert config('ENTRYPOINT ["e"]', inherited).cmd is None
    assert config('CMD ["own"]\nENTRYPOINT ["e"]', inherited).cmd == ("own",)
    assert config('ENTRYPOINT ["e"]\nCMD ["own"]', inherited).cmd == ("own",)
    assert target('FROM base AS a\nCMD ["a"]\nFROM a\nENTRYPOINT ["e"]').runtime.cmd is None


def test_i03_labels_the_last_wins_and_the_command_line_is_last() -> None:
    found = target("FROM base\nLABEL a=1 b=2\nLABEL a=3", base(RuntimeConfig(labels={"z": "base", "b": "base"})), labels={"b": "cli"})
    assert dict(found.runtime.labels) == {"z": "base", "b": "cli", "a": "3"}


def test_i04_expose() -> None:
    assert config("EXPOSE 80 53/UDP 8000-8002").exposed_ports == ("53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp")
    assert config('ENV p="80 81/udp"\nEXPOSE $p').exposed_ports == ("80/tcp", "81/udp"), "X13: it splits"
    assert histories("FROM base\nEXPOSE 81 80") == ["EXPOSE [80/tcp 81/tcp]"]


def test_i05_healthcheck() -> None:
    found = config("HEALTHCHECK --interval=1m30s --timeout=2s --start-period=1s --start-interval=250ms --retries=3 CMD curl x")
    second = 1_000_000_000
    assert found.healthcheck == Healthcheck(("CMD-SHELL", "curl x"), 90 * second, 2 * second, second, second // 4, 3)
    assert config('HEALTHCHECK CMD ["c"]').healthcheck == Healthcheck(("CMD", "c"))
    assert config("HEALTHCHECK NONE").healthcheck == Healthcheck(("NONE",))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("NONE", """&{["NONE"] "0s" "0s" "0s" "0s" '\\x00'}"""),
        ("--interval=5s --timeout=1m --start-period=2s --retries=3 --start-interval=1s CMD a",
         """&{["CMD-SHELL" "a"] "5s" "1m0s" "2s" "1s" '\\x03'}"""),
        ("--interval=1234567us --timeout=24h --start-period=1h0m30s --start-interval=1500us --retries=65 CMD [\"é\"]",
         """&{["CMD" "é"] "1.234567s" "24h0m0s" "1h0m30s" "1.5ms" 'A'}"""),
        ("--retries=39 CMD a", """&{["CMD-SHELL" "a"] "0s" "0s" "0s" "0s" '\\''}"""),
        ("--retries=34 CMD a", """&{["CMD-SHELL" "a"] "0s" "0s" "0s" "0s" '"'}"""),
        ("--retries=8203 CMD a", """&{["CMD-SHELL" "a"] "0s" "0s" "0s" "0s" '\\u200b'}"""),
        ("--retries=55296 CMD a", """&{["CMD-SHELL" "a"] "0s" "0s" "0s" "0s" '\ufffd'}"""),
        ("--retries=2000000 CMD a", """&{["CMD-SHELL" "a"] "0s" "0s" "0s" "0s" '\ufffd'}"""),
    ],
)  # fmt: skip
def test_i05_healthcheck_in_the_history(line: str, shown: str) -> None:
    """BuildKit prints the object, with Go's %q: what `docker history` shows of its images (seen with 0.25)."""
    assert histories(f"FROM base\nHEALTHCHECK {line}") == [f"HEALTHCHECK {shown}"]


@pytest.mark.parametrize(
    ("ports", "shown"),
    [("81 80 80/udp 81", "80/tcp 80/udp 81/tcp 81/tcp"), ("443 80/UDP", "443/tcp 80/udp"), ("99-101", "99/tcp 100/tcp 101/tcp"),
     ("1.2.3.4:80:90 70", "90/tcp 70/tcp"), ("+80", "80/tcp")],
)  # fmt: skip
def test_i04_ports_in_the_history(ports: str, shown: str) -> None:
    """In the order of the words sorted, and as often as they are written."""
    assert histories(f"FROM base\nEXPOSE {ports}") == [f"EXPOSE [{shown}]"]


def test_i01_workdir_in_the_history_is_as_it_is_written() -> None:
    text = "FROM base\nWORKDIR /a//b/../c\nWORKDIR d/../e\nWORKDIR /x/$none/"
    assert histories(text) == ["WORKDIR /a//b/../c", "WORKDIR /a/c/e", "WORKDIR /x//"]


@pytest.mark.parametrize("trigger", ["ENV a", "LABEL a", "FROM x", "ONBUILD RUN x", "MAINTAINER x"])
def test_i07_triggers_that_buildkit_refuses(trigger: str) -> None:
    with pytest.raises(DockerfileError):
        planned(f"FROM base\nONBUILD {trigger}")


def test_x10_names_that_come_out_empty() -> None:
    """Silly, and BuildKit builds it."""
    assert config("ENV $none=a").env == ("PATH=/bin", "=a")
    assert config("LABEL $none=a").labels == {"": "a"}


def test_i06_maintainer_is_the_author() -> None:
    assert target("FROM base\nMAINTAINER A <a@b.c>").author == "A <a@b.c>"


def test_i08_shell_is_for_later_shell_forms_and_inherited() -> None:
    text = 'FROM base AS a\nRUN one\nSHELL ["/bin/bash", "-c"]\nRUN two\nFROM a\nRUN three\nCMD four'
    assert [run.argv for run in runs(text)] == [("/bin/sh", "-c", "one"), ("/bin/bash", "-c", "two"), ("/bin/bash", "-c", "three")]
    assert target(text).runtime.cmd == ("/bin/bash", "-c", "four")
    (run,) = runs("FROM base\nRUN x", base(RuntimeConfig(shell=("ash",))))
    assert run.argv == ("ash", "x"), "that of the base image's configuration (R01)"


def test_i09_stop_signal() -> None:
    assert config("ENV s=SIGQUIT\nSTOPSIGNAL $s").stop_signal == "SIGQUIT"
    with pytest.raises(DockerfileError) as caught:
        config("STOPSIGNAL SIGNOPE")
    assert caught.value.first_line == 2


def test_i10_user_is_for_later_steps() -> None:
    first, second = runs("FROM base\nRUN a\nARG u=app\nUSER $u:7\nRUN b")
    assert (first.user, second.user) == ("", "app:7")


def test_i11_volumes() -> None:
    assert config('VOLUME /b /a\nVOLUME ["/c"]').volumes == ("/a", "/b", "/c")
    assert histories("FROM base\nVOLUME /b /a") == ["VOLUME [/b /a]"]
    with pytest.raises(DockerfileError, match="empty"):
        config("VOLUME $nothing")


@pytest.mark.parametrize(
    ("before", "line", "kept", "made"),
    [
        ("", "/a", "/a", "/a"),
        ("", "a", "/a", "/a"),
        ("/x", "a/b", "/x/a/b", "/x/a/b"),
        ("/x", "../../..", "/", None),
        ("/x", "./", "/x", "/x"),
        ("/x", "/a//b/", "/a//b/", "/a/b"),
        ("/x", "/", "/", None),
        ("rel", "b", "/rel/rel/b", "/rel/rel/b"),
        ("", "$where/$missing", "/srv", "/srv"),
    ],
)
def test_i12_workdir(before: str, line: str, kept: str, made: str | None) -> None:
    plan = planned(f"FROM base\nARG where=srv\nWORKDIR {line}", base(RuntimeConfig(workdir=before)))
    assert plan.targets[0].runtime.workdir == kept
    assert [step.op for step in steps_of(plan, WorkdirOp)] == ([WorkdirOp(made, "")] if made else [])
    assert plan.targets[0].history[-1].empty_layer == (made is None)


def test_i12_a_workdir_that_is_empty_stays_what_it_was() -> None:
    """As BuildKit's system.NormalizePath; UndefinedVar warns of it."""
    assert target("FROM base\nWORKDIR $x").runtime.workdir == "/"
    plan = planned("FROM base\nWORKDIR /w\nWORKDIR $x")
    assert plan.targets[0].runtime.workdir == "/w"
    assert [step.op for step in steps_of(plan, WorkdirOp)] == [WorkdirOp("/w", ""), WorkdirOp("/w", "")]


@pytest.mark.parametrize("path", ["/.", "/..", "//", "/x/.."])
def test_i12_only_the_root_as_such_makes_no_layer(path: str) -> None:
    plan = planned(f"FROM base\nWORKDIR {path}")
    assert [step.op for step in steps_of(plan, WorkdirOp)] == [WorkdirOp("/", "")]
    assert not plan.targets[0].history[-1].empty_layer


def test_i12_the_directory_is_of_the_current_user() -> None:
    (step,) = steps_of(planned("FROM base\nUSER app\nWORKDIR /w"), WorkdirOp)
    assert step.op == WorkdirOp("/w", "app")


def test_r01_r02_forms_of_run() -> None:
    shell, execution = runs('FROM base\nRUN a && b\nRUN ["a", "$x"]')
    assert (shell.argv, execution.argv) == (("/bin/sh", "-c", "a && b"), ("a", "$x"))


def test_run_sees_workdir_and_environment() -> None:
    (run,) = runs("FROM base\nWORKDIR /a\nENV x=1\nRUN y", base(RuntimeConfig(env=("PATH=/p", "odd", "y=z=w"))))
    assert (run.cwd, run.env) == ("/a", ("PATH=/p", "y=z=w", "x=1"))


def test_h07_h08_heredocs_of_run() -> None:
    script, file, piped = runs("FROM base\nRUN <<EOF\na $x\nEOF\nRUN <<EOF\n#!/x\nEOF\nRUN cat <<-EOF >f\n\tb\nEOF\n")
    assert script.argv == ("/bin/sh", "-c", "a $x\n")
    assert (file.argv, file.script) == (("/bin/sh", "-c", "/dev/pipes/EOF"), ("EOF", "#!/x\n"))
    assert piped.argv == ("/bin/sh", "-c", "cat <<-EOF >f\n\tb\nEOF")


def test_r10_network() -> None:
    found = runs("FROM base\nRUN a\nRUN --network=host b\nRUN --network=default c", network="none")
    assert [run.network for run in found] == ["none", "host", "none"]


def test_r14_binds() -> None:
    (run,) = runs("FROM base AS dep\nFROM base\nWORKDIR /w\nRUN --mount=target=a --mount=from=dep,src=/etc,dst=/b,rw x")
    a, b = run.mounts
    assert (a.kind, a.target, a.source, a.read_only) == ("bind", "/w/a", "", True)
    assert (b.target, b.source, b.read_only) == ("/b", "/etc", False)


@pytest.mark.parametrize(
    ("mount", "fields"),
    [
        ("type=cache,target=/c/../d", {"id": "/d", "sharing": "shared", "mode": 0o755, "read_only": False}),
        ("type=cache,id=$i,target=/c,sharing=LOCKED,uid=5,gid=6,mode=0700", {"id": "ident", "sharing": "locked", "uid": 5, "gid": 6, "mode": 0o700}),
        ("type=tmpfs,target=/t,size=1k", {"size": 1024}),
        ("type=secret,id=a/b", {"id": "a/b", "target": "/run/secrets/b", "mode": 0o400}),
        ("type=secret,target=/x/y", {"id": "y", "target": "/x/y"}),
        ("type=secret,id=s,env=E", {"env": "E", "target": ""}),
        ("type=ssh", {"id": "default", "mode": 0o600, "required": False}),
    ],
)
def test_r15_to_r18_mounts(mount: str, fields: dict[str, object]) -> None:
    (run,) = runs(f"FROM base\nARG i=ident\nRUN --mount={mount} x")
    found = {key: getattr(run.mounts[0], key) for key in fields}
    assert found == fields


@pytest.mark.parametrize("mount", ["target=/", "type=cache", "type=tmpfs", "target=$nothing", "type=$kind,target=/x", "type=cache,target=/a,mode=9", "target=a/../.."])
def test_r13_mounts_that_cannot_be(mount: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        planned(f"FROM base\nARG kind=odd\nRUN --mount={mount} x")
    assert caught.value.first_line in (2, 3)


def test_r22_history_of_run() -> None:
    assert histories('FROM base\nRUN --mount=type=ssh a   b \\\n  c\nRUN ["x", "y z"]') == [
        "RUN /bin/sh -c a   b   c # buildkit",
        "RUN x y z # buildkit",
    ]
    (item, _) = target("FROM base\nRUN a\nUSER b").history
    assert (item.comment, item.empty_layer) == ("buildkit.dockerfile.v0", False)


def test_l06_layers_and_history_go_together() -> None:
    text = "FROM base\nRUN a\nCOPY b /\nADD c /\nWORKDIR /d\nENV e=f\nUSER g\nLABEL h=i\nCMD j\nARG k"
    assert [item.empty_layer for item in target(text).history] == [False] * 4 + [True] * 5
    marked = [item.created_by.split()[0] for item in target(text).history if item.created_by.endswith(" # buildkit")]
    assert marked == ["RUN", "COPY", "ADD"], "a layer of WORKDIR has no mark"


@pytest.mark.parametrize(
    ("workdir", "dest", "expected"),
    [
        ("", "/x", "/x"), ("", "x/", "/x/"), ("/w", ".", "/w/"), ("/w", "./", "/w/"), ("/w", "d/.", "/w/d/"),
        ("/w", "..", "/"), ("/w", "/", "/"), ("/w", "/a/../b", "/b"), ("/w", "../../x", "/x"), ("", ".", "/"),
        ("/w", "./..//x/", "/x/"),
    ],
)  # fmt: skip
def test_c02_destinations(workdir: str, dest: str, expected: str) -> None:
    (op,) = copies(f"FROM base\nCOPY a {dest}", base(RuntimeConfig(workdir=workdir)))
    assert op.dest == expected


def test_copy_expands_words_but_not_exclude() -> None:
    (op,) = copies("FROM base\nENV d=dir u=app m=755\nCOPY --chown=$u --chmod=$m --exclude=$d $d/a $d/b /$d/")
    assert (op.sources[0].paths, op.dest, op.chown, op.chmod, op.exclude) == (("dir/a", "dir/b"), "/dir/", "app", "755", ("$d",))


def test_c09_chmod_makes_a_link_an_ordinary_copy() -> None:
    linked, plain = copies("FROM base\nCOPY --link a /\nCOPY --link --chmod=700 a /")
    assert (linked.link, plain.link) == (True, False)


@pytest.mark.parametrize("mode", ["9", "777777", "u", "u=q", "rwx", "u=rwx,", "-1", "8777"])
def test_c09_bad_modes(mode: str) -> None:
    with pytest.raises(DockerfileError, match="invalid chmod parameter"):
        planned(f"FROM base\nCOPY --chmod={mode} a /")


def test_h06_heredocs_of_copy() -> None:
    (op,) = copies('FROM base\nENV v="x y"\nCOPY <<one <<"two" f /d/\n$v "q" \\$v\none\n$v\ntwo\n')
    assert op.heredocs == (("one", 'x y "q" $v\n'), ("two", "$v\n"))
    assert op.sources[0].paths == ("f",)


def test_h06_only_a_heredoc_needs_no_context() -> None:
    plan = planned("FROM base\nCOPY <<f /\nx\nf\n")
    assert len(plan.steps) == 2


def test_add_groups_its_sources_in_their_order() -> None:
    (op,) = copies("FROM base\nADD a http://h/u b /d/")
    assert [(group.paths, group.unpack) for group in op.sources] == [(("a",), None), (("/*",), False), (("b",), None)]
    assert op.is_add


@pytest.mark.parametrize(
    ("url", "name"),
    [("http://h/a/b.txt", "b.txt"), ("https://h/a/b.txt?x=1#y", "b.txt")],
)
def test_c24_the_name_of_a_download(url: str, name: str) -> None:
    (step,) = steps_of(planned(f"FROM base\nADD {url} /"), HttpOp)
    assert isinstance(step.op, HttpOp)
    assert step.op.filename == name


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("COPY http://h/x /", "source can't be a URL"),
        ("COPY https://h/x.git /", "source can't be a URL or git"),
        ("COPY git@h:x.git /", "source can't be a URL or git"),
        ("ADD --checksum=sha256:00 http://h/x /", "invalid"),
        (f"ADD --checksum=sha512:{'0' * 128} http://h/x /", "unsupported"),
        (f"ADD --checksum=sha256:{'0' * 64} a /", "non-remote"),
        (f"ADD --checksum=sha256:{'0' * 64} http://h/x http://h/y /", "multiple"),
        ("ADD --unpack https://h/x.git /", "--unpack"),
    ],
)
def test_sources_that_cannot_be(line: str, words: str) -> None:
    with pytest.raises(DockerfileError, match=words) as caught:
        planned(f"FROM base\n{line}")
    assert caught.value.first_line == 2


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("COPY --from=base --link --exclude=*.md a b /c/", "COPY a b /c/ # buildkit"),
        ("COPY --chmod=755 --chown=1:2 a /", "COPY --chown=1:2 --chmod=755 a / # buildkit"),
        ("COPY --parents a /", "COPY --parents a / # buildkit"),
        ("ADD http://h/x /y", "ADD http://h/x /y # buildkit"),
        ("COPY <<f x /\nb\nf", "COPY x <<f / # buildkit"),
    ],
)
def test_c32_history_of_copy(line: str, shown: str) -> None:
    assert histories(f"FROM base\n{line}\n")[0] == shown


def test_names_of_steps() -> None:
    plan = planned("FROM base AS b\nRUN one\nFROM base\nUSER x\nWORKDIR /w\nCOPY --from=b / /\nRUN <<E\ntext\nE\n")
    names = [step.name for step in plan.steps if isinstance(step.op, RunOp | CopyOp | WorkdirOp)]
    assert names == ["[stage-1 2/4] WORKDIR /w", "[b 2/2] RUN one", "[stage-1 3/4] COPY --from=b / /", "[stage-1 4/4] RUN <<E"]


def test_steps_know_their_lines() -> None:
    (step,) = steps_of(planned("FROM base\nUSER x\nRUN a \\\n  b"), RunOp)
    assert step.span is not None
    assert (step.span.first, step.span.last) == (3, 4)
