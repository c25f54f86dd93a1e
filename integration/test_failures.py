"""What a user sees when a build fails for a reason of its own: RUN, COPY, the context, the command line (issue 2, 7)."""

import os
import pwd
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from people import Kpy, User

EXCERPT = "--------------------"


@pytest.fixture
def fails(shared_kpy: Kpy, workdir: Path, busybox_base: str) -> Callable[..., str]:
    """Builds this Dockerfile (BASE is busybox), which must fail so, with one `error:` line; gives stderr."""

    def build(dockerfile: str, code: int, *argv: str) -> str:
        (workdir / "Dockerfile").write_text(dockerfile.replace("BASE", busybox_base))
        done = shared_kpy("build", *argv, ".", cwd=workdir, check=False, timeout=120)
        print(done.stderr)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1
        return done.stderr

    return build


def test_a_failing_run(fails: Callable[..., str]) -> None:
    """R21, P15: the step, its output, the exit code, the lines."""
    shown = fails("FROM BASE AS one\nRUN echo hi\nFROM one AS two\nRUN echo words \\\n && exit 3\nRUN never\n", 4)
    _, _, end = shown.partition("------\n")
    assert end == (
        " > [two 3/4] RUN echo words && exit 3:\n"
        " | words\n"
        "------\n"
        "Dockerfile:4\n"
        f"{EXCERPT}\n"
        "   2 |     RUN echo hi\n"
        "   3 |     FROM one AS two\n"
        "   4 | >>> RUN echo words \\\n"
        "   5 | >>>  && exit 3\n"
        "   6 |     RUN never\n"
        f"{EXCERPT}\n"
        'error: process "/bin/sh -c echo words  && exit 3" did not complete successfully: exit code: 3\n'
    ).replace("[two 3/4]", re.search(r"> (\[two \d/\d\])", end).group(1))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("RUN <<EOF\necho in a heredoc\nexit 7\nEOF", 7, "in a heredoc"),
        ("RUN kill -9 $$", 137, "hint: exit code 137 means that it was ended by SIGKILL"),
        ("RUN kill -TERM $$", 143, "SIGTERM"),
        ("RUN nosuchcommand", 127, "nosuchcommand: not found"),
        ('RUN ["nosuchcommand"]', 127, 'exec: "nosuchcommand": executable file not found in $PATH'),
        ('RUN ["/etc/passwd"]', 126, 'exec: "/etc/passwd": permission denied'),
        ('COPY --chmod=755 <<EOF /s\n#!/no/such\nEOF\nRUN ["/s"]', 127, "its interpreter /no/such is not in the image"),
        ('COPY --chmod=755 foreign /s\nRUN ["/s"]', 126, "exec format error: it is a program for"),
    ],
)
def test_how_a_command_fails(
    fails: Callable[..., str], workdir: Path, command: str, status: int, words: str
) -> None:
    foreign = 0xF3 if os.uname().machine != "riscv64" else 0xB7
    (workdir / "foreign").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\2\0" + foreign.to_bytes(2, "little") + bytes(200))
    shown = fails(f"FROM BASE\n{command}\n", 4)
    assert f"did not complete successfully: exit code: {status}\n" in shown
    assert words in shown
    assert ">>> RUN" in shown


@pytest.mark.parametrize(
    ("dockerfile", "code", "line", "error"),
    [
        ("FROM BASE\nWORKDIR /x\nCOPY nosuch /x/\n", 5, 3, '"/nosuch": not found'),
        ("FROM BASE\nCOPY fil /x/\n", 5, 2, '"/fil": not found\nhint: did you mean "file"?'),
        ("FROM BASE\nCOPY hidden /x/\n", 5, 2, '"/hidden": not found: the file is there, but .dockerignore excludes it'),
        ("FROM BASE\nCOPY rootonly /x/\n", 5, 2, "cannot read rootonly in the build context: permission denied"),
        ("FROM BASE\nCOPY loop /x/\n", 5, 2, '"/loop": too many levels of symbolic links'),
        ("FROM BASE\nCOPY --from=BASE /nosuch /x/\n", 5, 2, '"/nosuch": not found'),
        ("FROM BASE\nCOPY --chown=nosuch file /\n", 8, 2, "unable to find user nosuch: no matching entries in passwd file"),
        ("FROM BASE\nUSER nosuch\nRUN id\n", 8, 3, "unable to find user nosuch: no matching entries in passwd file"),
        ("FROM BASE\nWORKDIR /bin/sh/x\n", 5, 2, "cannot make the working directory /bin/sh/x: "),
        ("FROM BASE\nRNU x\n", 3, 2, 'unknown instruction: RNU\nhint: did you mean "RUN"?'),
        ("FROM BASE\nCOPY --chwon=1 a b\n", 3, 2, 'unknown flag: --chwon\nhint: did you mean "--chown"?'),
        ("RUN x\n", 3, 1, "no build stage in current context"),
        ("FROM BASE\nRUN --mount=type=secret,id=s,required=true x\n", 8, 2, "secret s: not found"),
    ],
)
def test_every_error_of_an_instruction_shows_its_lines(
    fails: Callable[..., str], workdir: Path, dockerfile: str, code: int, line: int, error: str
) -> None:
    for name in ("file", "hidden", "rootonly"):
        (workdir / name).write_text("x")
    (workdir / "rootonly").chmod(0o600)
    (workdir / "loop").symlink_to("loop")
    (workdir / ".dockerignore").write_text("hidden\n")
    shown = fails(dockerfile, code)
    assert f"Dockerfile:{line}\n{EXCERPT}\n" in shown
    assert f"\n{line:4d} | >>> " in shown
    assert f"error: {error}" in shown


def test_odd_files_are_no_error(shared_kpy: Kpy, workdir: Path) -> None:
    os.mkfifo(workdir / "fifo")
    os.symlink("/", workdir / "root")
    os.symlink("a", workdir / "b")
    os.symlink("b", workdir / "a")
    with socket.socket(socket.AF_UNIX) as sock:
        place = os.open(workdir, os.O_PATH)
        sock.bind(f"/proc/self/fd/{place}/socket")  # the path itself is too long
        os.close(place)
        (workdir / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
        shared_kpy("build", ".", cwd=workdir)


def test_dockerfiles_that_are_none(shared_kpy: Kpy, workdir: Path) -> None:
    (workdir / "directory").mkdir()
    (workdir / "binary").write_bytes(os.urandom(1 << 16))
    (workdir / "empty").write_bytes(b"")
    (workdir / "huge").write_bytes(b"FROM scratch\n" + b"#" * (17 << 20))
    for name, code, words in (
        ("directory", 5, "is a directory"),
        ("nosuch", 5, "no such file or directory"),
        ("binary", 3, "error: "),
        ("empty", 3, "is empty"),
        ("huge", 5, "is larger than 16 MiB"),
    ):
        done = shared_kpy("build", "-f", name, ".", cwd=workdir, check=False)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert words in done.stderr
        assert len(done.stderr) < 5000
        assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("argv", "code", "error"),
    [
        (["nosuch"], 5, "error: the build context 'nosuch' does not exist\n"),
        (["--tga", "x", "."], 2, 'error: unknown flag: --tga\nhint: did you mean "--tag"?\n'),
        (["--target", "bild", "."], 2, 'error: target stage \'bild\' could not be found\nhint: did you mean "build"?\n'),
        (["--push", "."], 2, "error: a push needs a name\n"),
        (["-t", "Bad/Name", "."], 2, "error: invalid reference 'Bad/Name': "),
        ([], 2, "error: kpy build takes exactly one context, got none\n"),
    ],
)
def test_command_lines(shared_kpy: Kpy, workdir: Path, argv: list[str], code: int, error: str) -> None:
    (workdir / "Dockerfile").write_text("FROM scratch AS build\nCOPY Dockerfile /\n")
    done = shared_kpy("build", *argv, cwd=workdir, check=False)
    assert done.returncode == code
    assert done.stderr.startswith(error)


def test_without_subordinate_ids(kpy: Kpy, workdir: Path, busybox_base: str) -> None:
    """RUN works (test_single_id.py), also for who has no home."""
    nobody = pwd.getpwnam("nobody")
    os.chown(kpy.home, nobody.pw_uid, nobody.pw_gid)
    kpy = Kpy(kpy.program, User("nobody", nobody.pw_uid, nobody.pw_gid, subordinate=False), kpy.home)
    (workdir / "Dockerfile").write_text(f"FROM {busybox_base}\nRUN true\n")
    assert kpy("build", workdir).stdout.startswith("sha256:")
    (workdir / "Dockerfile").write_text(f"FROM {busybox_base}\nWORKDIR /x\nCOPY --chown=nobody Dockerfile .\n")
    assert kpy("build", workdir).stdout.startswith("sha256:")
