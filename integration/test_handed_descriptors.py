"""RUNs of several stages that work together, by a cache mount that they share: one hands the other a descriptor of its root, or
exchanges directories while mounts of the other are made."""

import os
import subprocess
from pathlib import Path

import servers
from people import Kpy, User, account

HERE = Path(__file__).resolve().parent
TAKE = """FROM scratch AS taker
COPY hand /hand
RUN --mount=type=cache,id={id},target=/c ["/hand", "take"]
"""
GIVE = """FROM scratch AS giver
COPY hand /hand
COPY tool /app/tool
RUN --mount=type=cache,id={id},target=/c ["/hand", "give", "{path}"]
FROM scratch
COPY hand /hand
COPY --from=giver /app /app
"""
ARGUMENTS = ("build", "--progress", "plain", "--no-cache", "--isolation", "userns")


def _kpy(program: str, user: User, workdir: Path) -> Kpy:
    for name in ("home", "out"):
        (workdir / name).mkdir()
        os.chown(workdir / name, user.uid, user.gid)
    return Kpy(program, user, workdir / "home")


def _context(workdir: Path, name: str, dockerfile: str) -> Path:
    path = workdir / name
    path.mkdir()
    subprocess.run([servers.tool("gcc"), "-O2", "-static", "-o", path / "hand", HERE / "hand.c"], check=True)
    (path / "tool").write_text("genuine\n")
    (path / "Dockerfile").write_text(dockerfile)
    return path


def _both(workdir: Path, path: str) -> Path:
    text = GIVE.format(id=workdir.name, path=path) + "COPY --from=taker /hand /x\n"
    return _context(workdir, "context", TAKE.format(id=workdir.name) + text)


def test_a_directory_that_was_handed_on(program: str, dev: User, workdir: Path) -> None:
    kpy = _kpy(program, dev, workdir)

    done = kpy(*ARGUMENTS, "-o", f"type=local,dest={workdir}/out/files", _both(workdir, "/app"), check=False)

    assert done.returncode == 0, done.stderr
    assert " last EROFS" in done.stderr, done.stderr
    assert (workdir / "out/files/app/tool").read_text() == "genuine\n"


def test_a_file_that_is_still_open_for_writing(program: str, dev: User, workdir: Path) -> None:
    kpy = _kpy(program, dev, workdir)

    done = kpy(*ARGUMENTS, "-o", f"type=local,dest={workdir}/out/files", _both(workdir, "/app/tool"), check=False)

    assert done.returncode == 8, done.stderr
    assert "files of this RUN are still open for writing" in done.stderr
    assert "Dockerfile:7" in done.stderr
    assert not (workdir / "out/files").exists()


def test_what_an_earlier_stage_handed_on_is_not_the_root_of_the_next(program: str, workdir: Path) -> None:
    """Of a user with one id, whose stages have one root: handed to a RUN of another build with the same store."""
    kpy = _kpy(program, account("kpy-solo"), workdir)
    taker = _context(workdir, "taker", TAKE.format(id=workdir.name))
    giver = _context(workdir, "giver", GIVE.format(id=workdir.name, path="/") + 'RUN ["/hand", "wait"]\nCOPY tool /tool\n')

    argv = [program, *ARGUMENTS, "-o", "type=cacheonly", str(taker)]
    with subprocess.Popen(argv, cwd=workdir, stderr=subprocess.PIPE, text=True, **kpy.spawn()) as other:  # type: ignore[call-overload]
        done = kpy(*ARGUMENTS, "-o", f"type=local,dest={workdir}/out/files", giver, check=False)
        _, said = other.communicate(timeout=120)

    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (workdir / "out/files").iterdir()) == ["app", "dev", "hand", "proc", "sys", "tool"], said
    assert " last ENOENT" in said, said


def test_a_read_only_mount_below_a_cache_that_another_run_changes(program: str, dev: User, workdir: Path) -> None:
    """What is made read-only is what was mounted, and not what is found at the target a second time."""
    kpy = _kpy(program, dev, workdir)
    context = workdir / "context"
    context.mkdir()
    os.chown(context, dev.uid, dev.gid)
    subprocess.run([servers.tool("gcc"), "-O2", "-static", "-o", context / "swap", HERE / "swap.c"], check=True)
    cache = f"--mount=type=cache,id={workdir.name},target=/c"
    mounts = f"{cache} --mount=type=tmpfs,target=/c/r1/m --mount=type=tmpfs,target=/c/r2/m --mount=type=bind,target=/c/z/m"
    lines = ["FROM scratch AS base", "COPY swap /swap", f'RUN {cache} ["/swap", "make"]', "FROM base AS turner"]
    lines += [f'RUN {cache} ["/swap", "turn"]', "FROM base AS writer"]
    lines += [f'RUN {mounts} ["/swap", "try", "planted-{number}"]' for number in range(40)]
    lines += ["FROM base", "COPY --from=writer /swap /a", "COPY --from=turner /swap /b"]
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")

    done = kpy(*ARGUMENTS, "-o", "type=cacheonly", context, check=False)

    assert sorted(path.name for path in context.iterdir()) == ["Dockerfile", "swap"], done.stderr
    assert done.returncode == 0, done.stderr
    assert " wrote: EROFS" in done.stderr, done.stderr
