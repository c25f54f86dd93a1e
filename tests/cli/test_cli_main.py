"""The program from outside: exit codes, what goes where, how fast it says its version."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kpy
from kpy.cli.main import VERBS, main
from kpy.dockerfile.forms import FormError
from kpy.errors import DockerfileError, KpyError

ROOT = Path(__file__).resolve().parents[2]


def run(*argv: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kpy", *argv], cwd=ROOT, capture_output=True, text=True, timeout=60, **more
    )  # type: ignore[call-overload,no-any-return]


def test_the_version_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['kpy', '--version']; from kpy.__main__ import main; main(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    version, modules = done.stdout.split("\n")[:2]
    assert version == f"kpy {kpy.__version__}"
    heavy = {
        "requests",
        "rich",
        "cryptography",
        "zstandard",
        "argparse",
        "json",
        "subprocess",
        "typing",
        "dataclasses",
        "kpy.app.options",
    }
    ours_or_heavy = heavy & set(modules.split())
    # What a site's .pth files import before us is not ours to answer for.
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert ours_or_heavy - set(bare.stdout.split()) == set()


def test_help_lists_the_verbs_and_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    overview = capsys.readouterr().out
    for verb in VERBS:
        assert f"  {verb}" in overview
        assert main([verb, "--help"]) == 0
        by_flag = capsys.readouterr().out
        assert main(["help", verb]) == 0
        assert capsys.readouterr().out == by_flag
        assert by_flag.startswith(f"usage: kpy {verb} ")


@pytest.mark.parametrize(
    ("argv", "code", "error"),
    [
        (["bild"], 2, "error: unknown verb 'bild'\nhint: did you mean \"build\"?\n"),
        (
            ["--push", "."],
            2,
            "error: unknown flag: --push\nhint: a verb comes first, such as `kpy build .`\n",
        ),
        (["build", "--tga", "x", "."], 2, 'error: unknown flag: --tga\nhint: did you mean "--tag"?\n'),
        (["build", "--compress", "."], 2, "error: --compress is not supported yet\n"),
    ],
)
def test_mistakes(argv: list[str], code: int, error: str) -> None:
    done = run(*argv)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", error)


def test_no_verb_shows_help_as_a_mistake() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: kpy VERB")


def planted(tmp_path: Path, body: str) -> list[str]:
    """A kpy whose `images` is `body`."""
    script = tmp_path / "planted.py"
    script.write_text(
        "import sys, types\n"
        "from kpy.cli import main\n"
        "module = types.ModuleType('planted_verb')\n"
        "def run(argv, terminal):\n" + "".join(f"    {line}\n" for line in body.splitlines()) +
        "module.run = run\n"
        "sys.modules['planted_verb'] = module\n"
        "main.VERBS = {'planted': ('planted_verb', '')}\n"
        "sys.exit(main.main(['planted']))\n"
    )  # fmt: skip
    return [sys.executable, str(script)]


def call(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_a_bug_is_one_line_and_70(tmp_path: Path) -> None:
    command = planted(tmp_path, "raise ZeroDivisionError('by\\nzero')")
    done = call(command)
    assert done.returncode == 70
    assert done.stderr == (
        "error: internal error: ZeroDivisionError: by zero\nhint: please report this; KPY_DEBUG=1 shows where it happened\n"
    )
    assert "Traceback" in call(command, KPY_DEBUG="1").stderr


def test_a_bug_repeats_no_control_sequence(tmp_path: Path) -> None:
    done = call(planted(tmp_path, "raise ZeroDivisionError('by\\x1b[2J\\x9b\\u202e zero')"), KPY_DEBUG="1")
    assert "ZeroDivisionError: by zero\nhint" in done.stderr
    assert not {"\x1b", "\x9b", "\u202e"} & set(done.stderr)


KINDS = [kind for kind in KpyError.__subclasses__() if kind is not FormError]


@pytest.mark.parametrize("kind", sorted(KINDS, key=lambda kind: kind.__name__))
def test_each_error_has_its_exit_code(tmp_path: Path, kind: type[KpyError]) -> None:
    extra = ", step='s'" if kind.__name__ == "StepFailedError" else ""
    done = call(
        planted(tmp_path, f"from kpy import errors\nraise errors.{kind.__name__}('facts', hint='do'{extra})")
    )
    assert done.returncode == kind.exit_code
    assert done.stderr.endswith("error: facts\nhint: do\n")


def test_exit_codes_are_distinct() -> None:
    """A FormError, which has no place yet, is a mistake in a Dockerfile like that with one."""
    codes = [kind.exit_code for kind in KINDS]
    assert len(codes) == len(set(codes))
    assert FormError.exit_code == DockerfileError.exit_code


def test_ctrl_c_in_a_quick_verb(tmp_path: Path) -> None:
    done = call(
        planted(
            tmp_path, "import signal, os\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(5)"
        )
    )
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_a_closed_pipe_is_no_crash(tmp_path: Path) -> None:
    command = planted(tmp_path, "for _ in range(100000): terminal.out('x' * 100)\nreturn 0")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_second_ctrl_c_exits_at_once(tmp_path: Path) -> None:
    body = (
        "from kpy.cli.interrupt import caught\n"
        "import time\n"
        "with caught(terminal=False) as interrupt:\n"
        "    print('ready', flush=True)\n"
        "    while not interrupt.cancel.is_set: time.sleep(0.01)\n"
        "    print('cancelled', flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    with subprocess.Popen(
        planted(tmp_path, body), stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cancelled\n"
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("words", ["help build", "help", "--version"])
@pytest.mark.parametrize(
    ("redirect", "code", "error"),
    [
        ("> /dev/full", 1, "error: cannot write to standard output: no space left on device\n"),
        ("2> /dev/full", 0, ""),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&-", 0, ""),
    ],
)
def test_streams_that_are_full_or_closed(redirect: str, code: int, error: str, words: str) -> None:
    command = ["sh", "-c", f'"$0" -m kpy {words} {redirect}', sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, error)


def test_what_an_error_needs_is_there_before_a_build() -> None:
    """At the end of a build in a live root, the files of kpy may be what a RUN made of them."""
    code = "import sys; from kpy.cli.main import main; main(['help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"kpy.cli.failure", "kpy.cli.terminal"} <= set(done.stderr.split())
