"""The GitHub action, acted out as its runner does: bash as an ordinary user, the runner's variables, a stranger's checkout."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import servers
import trees
import yaml
from jobs import hostile, spawn, temporary
from people import Kpy, account
from servers import Registry
from workflows import Action, Job, StepError

HERE = Path(__file__).resolve().parent
ACTION = HERE / "github" / "action.yml"
CREDENTIALS = f"{servers.USER}:{servers.PASSWORD}"
DOCKERFILE = """\
ARG BASE
FROM $BASE AS first
ARG WORD
RUN --mount=type=secret,id=token --mount=type=secret,id=file \\
    echo "$WORD $(cat /run/secrets/token) $(cat /run/secrets/file)" > /said
FROM first
LABEL last=yes
"""
# Each would be obeyed: at the start of a line, after blanks or a carriage return, or anywhere in one.
SPOKEN = r"""\
printf '::set-output name=digest::evil\n  ::add-mask::e\n##[set-output name=digest]evil\n\r::stop-commands::evil\n'
printf 'x ##[add-mask]i\n\302\240::error::evil\n\342\200\250::warning::evil\n'
"""


@pytest.fixture
def project(workdir: Path, kpy: Kpy) -> Path:
    path = workdir / "project"
    path.mkdir()
    (path / "Dockerfile").write_text(DOCKERFILE)
    (path / "secret file").write_text("from-a-file")
    os.chown(path, kpy.user.uid, kpy.user.gid)
    return path


@pytest.fixture
def action(kpy: Kpy, workdir: Path) -> Action:
    return Action(ACTION, spawn(kpy), temporary(workdir, kpy))


def test_the_action_builds_and_pushes(action: Action, project: Path, auth_registry: Registry, busybox_base: str, workdir: Path) -> None:
    name = f"{auth_registry.host}/ci/github"
    ran = action(
        project, push="true", tags=f"{name}:1, {name}:2\n", target="first", registry=auth_registry.host, username=servers.USER,
        password=servers.PASSWORD, build_args=f"\n  BASE={busybox_base}\nWORD=a b\n\n", labels="one=1\ntwo=x y\r\n",
        secrets="token=s3cret=1\n", secret_files=f"file={project}/secret file\n", flags="--no-cache\n--shm-size 64m",
        outputs=f"type=oci,dest={workdir}/runner/app.tar",
    )  # fmt: skip
    root = trees.unpack(f"{name}:2", workdir / "tree", credentials=CREDENTIALS)
    assert (root / "said").read_text() == "a b s3cret=1 from-a-file\n"
    found = trees.inspect(f"{name}:1", "--creds", CREDENTIALS)
    assert found["Digest"] == ran.outputs["digest"]
    assert found["Labels"] == {"one": "1", "two": "x y"}
    assert json.loads(ran.outputs["metadata"])["containerimage.digest"] == ran.outputs["digest"]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", ran.outputs["imageid"])
    assert ran.outputs["imageid"] != ran.outputs["digest"]
    assert (workdir / "runner" / "app.tar").is_file()
    # Nothing secret is left behind, nor said; that of the log is hidden even if somebody says it.
    left = b"".join(path.read_bytes() for path in (workdir / "runner").rglob("*") if path.is_file() and path.suffix != ".tar")
    for text in (left.decode(errors="replace"), *ran.logs.values(), ran.summary):
        assert "s3cret" not in text
    assert {"s3cret=1", servers.PASSWORD} <= {command.text for command in ran.job.told("add-mask")}


def test_the_summary_tells_what_was_made(action: Action, project: Path, registry: Registry, busybox_base: str) -> None:
    (project / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nRUN echo '<b>|@you [x](http://evil)' && sleep 0.3\n")
    name = f"{registry.host}/ci/summary:1"
    ran = action(project, push="true", tags=name, build_args=f"BASE={busybox_base}", platforms="\n linux/amd64 \n")
    summary = re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), ran.summary)
    for text in (ran.outputs["digest"], f"| tags | {name} |", "| platforms | linux/amd64 |"):
        assert text in summary
    (row,) = [line for line in summary.splitlines() if "RUN echo" in line]
    assert re.search(r"\| (0\.[3-9]|[1-9]\.\d) s \|$", row)
    assert not re.search(r"<b>|@you|\]\(|://", ran.summary)


def test_the_action_fails_with_the_build(action: Action, project: Path) -> None:
    (project / "Dockerfile").write_text("FROM scratch\nCOPY nowhere /\n")
    with pytest.raises(StepError) as caught:
        action(project, tags="app")
    assert caught.value.code == 5
    assert "nowhere" in caught.value.log
    (error,) = caught.value.ran.job.told("error")
    assert (error.properties["file"], error.properties["line"]) == ("Dockerfile", "2")
    assert "nowhere" in error.text
    assert "the build failed" in caught.value.ran.summary


@pytest.mark.parametrize(
    ("dockerfile", "line", "text"),
    [
        ("FROM scratch\n\nRUNN x\n", "3", "RUNN"),
        ("ARG BASE\nFROM $BASE\nRUN echo first\nRUN echo '::error::evil%0A' && \\\n    exit 3\n", "4", "exit code"),
    ],
)
def test_errors_are_shown_at_their_lines(
    action: Action, project: Path, busybox_base: str, dockerfile: str, line: str, text: str
) -> None:
    (project / "app").mkdir()
    (project / "app" / "Dockerfile").write_text(dockerfile)
    with pytest.raises(StepError) as caught:
        action(project, context="app", build_args=f"BASE={busybox_base}")
    (error,) = caught.value.ran.job.told("error")
    assert (error.properties["file"], error.properties["line"]) == ("app/Dockerfile", line)
    assert text in error.text


def test_checks_are_shown_at_their_lines(action: Action, project: Path) -> None:
    (project / "Dockerfile").write_text("FROM scratch as base\nMAINTAINER ::error::x\nCOPY Dockerfile /\n")
    ran = action(project)
    lines = {(command.properties["file"], command.properties["line"]) for command in ran.job.told("warning")}
    assert lines == {("Dockerfile", "1"), ("Dockerfile", "2")}
    assert not ran.job.told("error")


def test_flags_may_ask_a_question(action: Action, project: Path) -> None:
    (project / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    ran = action(project, flags="--check")
    assert "no warnings found" in ran.logs["Build"]
    assert ran.outputs["digest"] == ""
    (project / "Dockerfile").write_text("FROM scratch as base\nCOPY Dockerfile /\n")
    with pytest.raises(StepError) as caught:
        action(project, flags="--check")
    assert caught.value.code == 1
    assert [command.properties["line"] for command in caught.value.ran.job.told("warning")] == ["1"]


def test_files_alone_are_an_output(action: Action, project: Path) -> None:
    (project / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /copied\n")
    ran = action(project, outputs="type=local,dest=out")
    assert (project / "out" / "copied").exists()
    assert ran.outputs["digest"] == ""
    with pytest.raises(StepError) as caught:
        action(project, outputs="type=local")
    assert "needs dest" in caught.value.log
    with pytest.raises(StepError) as caught:
        action(project, outputs="type=tar,dest=-")
    assert caught.value.ran.job.told("error")[-1].text == "input outputs: an action has no standard output: give dest a file"


# --- inputs

TOKEN = "ghp_S3cretS3cretS3cret"
PEM = "-----BEGIN KEY-----\nMIIBVQIBADANBg==\nbGluZS10d28=\n-----END KEY-----"


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"secrets": TOKEN}, "input secrets: item 1 is not NAME=value"),
        ({"secrets": f"a=1\n{TOKEN}"}, "input secrets: item 2 is not NAME=value"),
        ({"secrets": f"key={PEM}"}, "input secrets: item 2 has no value"),
        ({"secrets": f'"key={PEM}'}, "input secrets: a quote has no end"),
        ({"secrets": f"{TOKEN}="}, "input secrets: item 1 has no value"),
        ({"secrets": f"=={TOKEN}"}, "input secrets: item 1 is not NAME=value"),
        ({"secret_files": TOKEN}, "input secret-files: item 1 is not NAME=value"),
        ({"build_args": TOKEN}, "input build-args: item 1 is not NAME=value"),
        ({"labels": TOKEN}, "input labels: item 1 is not NAME=value"),
        ({"push": "yes"}, "input push: it is neither true nor false"),
        ({"no_cache": "1"}, "input no-cache: it is neither true nor false"),
        ({"cache": ""}, "input cache: it is empty: it must be true or false"),
        ({"username": "me"}, "input password: it is empty; in a pull request from a fork there are no secrets"),
        ({"password": TOKEN}, "input password: it needs input username, too"),
    ],
)
def test_a_wrong_input_is_an_error_that_does_not_show_it(
    action: Action, project: Path, inputs: dict[str, str], said: str
) -> None:
    with pytest.raises(StepError) as caught:
        action(project, **inputs)
    assert (caught.value.name, caught.value.code) == ("Inputs", 2)
    (error,) = caught.value.ran.job.told("error")
    assert error.text.startswith(said)
    shown = caught.value.log + "".join(command.text for command in caught.value.ran.job.commands)
    for part in (TOKEN, *PEM.splitlines()):
        assert part not in shown


def test_lists_are_those_of_build_push_action(
    action: Action, project: Path, registry: Registry, busybox_base: str, workdir: Path
) -> None:
    (project / "Dockerfile").write_text(
        "ARG BASE\nFROM $BASE\nARG ONE\nARG TWO\nRUN --mount=type=secret,id=key cat /run/secrets/key > /key && echo \"$ONE|$TWO\" > /args\n"
    )
    name = f"{registry.host}/ci/Lists/App"
    ran = action(
        project, push="True", tags=f"  {name}:V1 ,\n\n {name}:v2  ", secrets=f'"key={PEM}"', labels='"a=b,c"\nd=e,f\n"g=1 ""2"""\nh=x "y"',
        build_args=f'BASE={busybox_base}\n"ONE=1\n2"\nTWO=a,b', platforms=" linux/amd64 \n",
    )  # fmt: skip
    root = trees.unpack(f"{name.lower()}:V1", workdir / "tree")
    assert (root / "key").read_text() == PEM
    assert (root / "args").read_text() == "1\n2|a,b\n"
    found = trees.inspect(f"{name.lower()}:v2")
    assert found["Labels"] == {"a": "b,c", "d": "e,f", "g": '1 "2"', "h": 'x "y"'}
    masked = {command.text for command in ran.job.told("add-mask")}
    assert masked == set(PEM.splitlines())


# --- a stranger's checkout


def test_no_module_of_the_checkout_is_run(kpy: Kpy, project: Path, auth_registry: Registry, busybox_base: str, workdir: Path) -> None:
    """Installed by the action from the checkout of the action, with a PYTHONPATH that a job may well have."""
    stolen = hostile(project)
    own = workdir / "action"
    shutil.copytree(HERE / "github", own / "integration" / "github")
    shutil.copytree(HERE.parent / "kpy", own / "kpy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(HERE.parent / name, own / name)
    subprocess.run(["chown", "-R", f"{kpy.user.uid}:{kpy.user.gid}", str(own), str(project)], check=True)
    place = temporary(workdir, kpy)
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    arguments = {**kpy.spawn(), "env": {**kpy.spawn()["env"], **pip, "PYTHONPATH": f".:{project}", "PYTHONSTARTUP": "os.py"}}  # type: ignore[dict-item]
    name = f"{auth_registry.host}/ci/hostile:1"
    (project / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nRUN echo built > /said\n")
    ran = Action(own / "integration" / "github" / "action.yml", arguments, place)(
        project, push="true", tags=name, registry=auth_registry.host, username=servers.USER, password=servers.PASSWORD,
        secrets=f"token={TOKEN}", build_args=f"BASE={busybox_base}",
    )  # fmt: skip
    (added,) = ran.job.path
    assert os.listdir(added) == ["kpy"], "python3 and pip of later steps are the job's"
    assert not stolen.exists(), stolen.read_text()[:300]
    assert trees.inspect(name, "--creds", CREDENTIALS)["Digest"] == ran.outputs["digest"]


def test_no_package_is_installed_by_its_name(action: Action, project: Path) -> None:
    for name in ("kpy", "kpy-builder==0.1.0"):
        with pytest.raises(StepError) as caught:
            action(project, kpy=name)
        assert (caught.value.name, caught.value.code) == ("Install kpy", 2)
        assert "may be anybody's" in caught.value.ran.job.told("error")[-1].text


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_that_a_run_says_is_obeyed(action: Action, project: Path, busybox_base: str, *, fails: bool) -> None:
    tail = "exit 1\n" if fails else "true\n"
    (project / "Dockerfile").write_text(
        f"ARG BASE\nFROM $BASE\nRUN <<EOF\n::error::evil\n##[add-mask]o\nEOF\nRUN <<EOF\n{SPOKEN}{tail}EOF\n".replace("::error::evil\n##", ": ##")
    )
    try:
        ran = action(project, build_args=f"BASE={busybox_base}", secrets=f"x={TOKEN}")
    except StepError as error:
        assert fails
        ran = error.ran
        assert "::set-output" in error.log
    else:
        assert not fails
        assert "::set-output" in ran.logs["Build"]
        assert ran.outputs["digest"].startswith("sha256:")
    assert {command.name for command in ran.job.commands} <= {"add-mask", "stop-commands", "error", "warning"}
    assert {command.properties["title"] for command in (*ran.job.told("warning"), *ran.job.told("error"))} <= {"kpy"}
    assert {command.text for command in ran.job.told("add-mask")} == {TOKEN}
    assert len(ran.job.told("stop-commands")) == 1
    assert len(ran.job.told("error")) == int(fails)


@pytest.mark.parametrize("verb", ["plain", "quiet", "rawjson", "executor", "check", "json", "context", "outline", "targets"])
def test_kpy_alone_says_nothing_that_is_obeyed(kpy: Kpy, workdir: Path, busybox_base: str, verb: str) -> None:
    """In a step that somebody wrote, where nothing stops commands."""
    project = workdir / "project"
    project.mkdir()
    for name in ("::error::name", "x ##[error]name", "new\n::error::line"):
        (project / name).write_text("x")
    evil = "##[add-mask]o"
    (project / "Dockerfile").write_text(
        f"# ::error::comment {evil}\nARG BASE\nFROM $BASE as a\n# ::error::stage {evil}\nARG ::error::x={evil}\n"
        f"MAINTAINER {evil}\nLABEL x='{evil}'\nRUN <<EOF\n{SPOKEN}EOF\n"
        f"RUN --mount=type=secret,id=::error::{evil} <<EOF\n: {evil}\n{SPOKEN}exit 1\nEOF\n".replace("ARG ::error::x", "ARG X")
    )
    options = ["--build-arg", f"BASE={busybox_base}"]
    argv = {
        "executor": ["executor", "--context", f"dir://{project}", "--no-push", *options],
        "check": ["build", "--check", *options, str(project)],
        "json": ["build", "--call=check,format=json", *options, str(project)],
        "context": ["build", "--call=context", str(project)],
        "outline": ["build", "--call=outline", *options, str(project)],
        "targets": ["build", "--call=targets", *options, str(project)],
    }.get(verb, ["build", f"--progress={verb}", *options, str(project)])
    done = kpy.with_env(GITHUB_ACTIONS="true")(*argv, check=False)
    job = Job()
    shown = job.hear(done.stderr) + job.hear(done.stdout)
    assert not job.commands, job.commands
    assert shown.strip()
    if verb in ("plain", "quiet", "executor"):
        assert done.returncode == 4
        assert ": :set-output" in shown or "| ::set-output" in shown
    if verb == "json":
        assert evil in json.loads(done.stdout)["warnings"][-1]["detail"] or "warnings" in json.loads(done.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_commands_are_obeyed_again_after_a_cancellation(
    kpy: Kpy, project: Path, busybox_base: str, workdir: Path, number: signal.Signals
) -> None:
    (project / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nRUN echo begun && sleep 60\n")
    place = temporary(workdir, kpy)
    document = yaml.safe_load(ACTION.read_text())
    values = {name: str(item.get("default", "")) for name, item in document["inputs"].items()}
    values |= {"build-args": f"BASE={busybox_base}", "secrets": f"x={TOKEN}"}
    variables = {f"KPY_INPUT_{name.upper().replace('-', '_')}": value for name, value in values.items()}
    files = {name: str(place / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    step = document["runs"]["steps"][-1]["run"]
    arguments = spawn(kpy, **variables, **files, KPY_ACTION=str(HERE / "github"), RUNNER_TEMP=str(place), GITHUB_ACTIONS="true")
    log = place / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step], cwd=project, stdout=out, stderr=out, **arguments)
    end = time.monotonic() + 60
    while "begun" not in log.read_text().partition("RUN echo begun")[2].partition("\n")[2] and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(number)  # to bash alone, as the runner does
    assert process.wait(30) == 128 + number
    job = Job()
    job.hear(log.read_text())
    assert not job.stopped
    assert job.told("stop-commands")
    assert not list(place.glob("kpy-private-*"))


# --- the cache


def test_the_cache_gives_the_same_image_on_another_machine(
    kpy: Kpy, project: Path, registry: Registry, debian_base: str, workdir: Path, make_kpy: Callable[[], Kpy]
) -> None:
    """Saved with tar as actions/cache does, restored where the user has another uid and other subordinate ids."""
    (project / "Dockerfile").write_text(
        f"FROM {debian_base}\nRUN install -m 4755 /bin/true /suid && touch /owned && chown 33:44 /owned\n"
        "RUN --mount=type=cache,target=/cache touch /cache/x && chown 7:8 /cache/x\nCOPY word /\nRUN cat /word > /copy && ls -ln /suid /owned > /seen\n"
    )
    saved = workdir / "cache.tar"
    os.chmod(workdir, 0o777)
    home = workdir / "home" / "runner"

    def machine(user: Kpy, word: str) -> tuple[str, str]:
        shutil.rmtree(workdir / "home", ignore_errors=True)
        home.mkdir(parents=True)
        for path in (home, project):
            os.chown(path, user.user.uid, user.user.gid)
        (project / "word").write_text(word)
        place = temporary(workdir, user)
        ran = Action(ACTION, spawn(Kpy(user.program, user.user, home)), place, saved)(
            project, push="true", tags=f"{registry.host}/ci/cache:{word}", cache="true"
        )  # fmt: skip
        shutil.rmtree(place)
        os.chmod(saved, 0o666)
        return ran.outputs["digest"], ran.logs["Build"]

    machine(kpy, "one")
    _, first = machine(kpy, "two")
    other = Kpy(kpy.program, account("kpyother", "400000-465535"), home)
    _, second = machine(other, "three")
    for log in (first, second):
        assert "CACHED" in log
        assert "changed by a copy" not in log
    for word in ("one", "two", "three"):
        root = trees.unpack(f"{registry.host}/ci/cache:{word}", workdir / f"tree-{word}")
        assert (root / "suid").stat().st_mode & 0o7777 == 0o4755
        assert ((root / "owned").stat().st_uid, (root / "owned").stat().st_gid) == (33, 44)
        rows = [line.split() for line in (root / "seen").read_text().splitlines()]
        assert [(row[0], row[2], row[3]) for row in rows] == [("-rw-r--r--", "33", "44"), ("-rwsr-xr-x", "0", "0")]


# --- as files


def test_the_workflow_uses_what_the_action_has() -> None:
    workflow = yaml.safe_load((HERE / "github" / "workflow.yml").read_text())
    action = yaml.safe_load(ACTION.read_text())
    steps = workflow["jobs"]["image"]["steps"]
    used = next(step for step in steps if "integration/github" in step.get("uses", ""))
    assert used["with"].keys() <= action["inputs"].keys()
    assert "outputs.digest" in steps[-1]["run"]
    assert "digest" in action["outputs"]
    assert used["uses"].startswith("<OWNER>/"), "a name that nobody can have"


def test_every_input_reaches_the_program() -> None:
    document = yaml.safe_load(ACTION.read_text())
    for step in (document["runs"]["steps"][0], document["runs"]["steps"][-1]):
        given = {value for name, value in step["env"].items() if name.startswith("KPY_INPUT_")}
        assert given == {f"${{{{ inputs.{name} }}}}" for name in document["inputs"] if name != "kpy"}


