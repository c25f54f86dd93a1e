"""What is mounted for a RUN is what the image or the context has, and never what a link in it means to the builder: in a user
namespace the builder mounts by itself, with all the user's files in sight."""

import io
import os
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import bases
import hostile
import pytest
from hostile import DIR, LINK, member
from people import Kpy, account
from servers import Registry, tool

TOKEN = "token-of-the-user-5f1c"


@pytest.fixture(params=["subordinate ids", "one id"])
def kpy(request: pytest.FixtureRequest, make_kpy: Callable[[], Kpy], program: str, area: Path, workdir: Path) -> Kpy:
    """As both kinds of users; the user has a login that no image may see."""
    if request.param == "one id":
        user, home = account("kpy-solo"), workdir / "solo"
        home.mkdir()
        os.chown(home, user.uid, user.gid)
        made = Kpy(program, user, home)
    else:
        made = make_kpy()
    login = made.home / "login"
    (login / "sub").mkdir(parents=True)
    for path in (login / "value", login / "sub" / "value"):
        path.write_text(TOKEN)
    for path in (login, *login.rglob("*")):
        os.chown(path, made.user.uid, made.user.gid)
        path.chmod(0o700 if path.is_dir() else 0o600)
    return made


def _context(workdir: Path, kpy: Kpy, dockerfile: str) -> Path:
    context = workdir / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(dockerfile)
    os.chown(context, kpy.user.uid, kpy.user.gid)
    return context


def test_a_base_whose_links_are_directories_to_who_reads_it_otherwise(
    kpy: Kpy, registry: Registry, cache: Path, area: Path, workdir: Path
) -> None:
    """A whiteout through a link that the same layer replaces: the link is gone in the listing of files, and is there on the
    disk. Its path was followed when it was mounted, to any file of the user."""
    below = [member("b", DIR), member("b/x", LINK, link=str(kpy.home / "login")), member("l", LINK, link="b")]
    above = [member("l", DIR), member("l/.wh.x"), member("b/x/sub", DIR), member("opt", DIR)]
    name = f"hostile/sources-{kpy.user.name}:1"
    packed = [bases.rootfs("base/busybox:1", cache)]
    packed += [hostile.layer(workdir / f"{number}.tar.gz", members) for number, members in enumerate((below, above))]
    base = bases.push_layers(registry.host, name, packed, {"Env": [bases.PATH]})
    for mode in ("ro", "rw"):
        mount = f"RUN --mount=type=bind,from=base,source=b/x/sub,target=/opt/m,{mode} cat /opt/m/value; true\n"
        context = _context(workdir, kpy, f"FROM {base} AS base\nFROM base\n{mount}") if mode == "ro" else workdir / "context"
        (context / "Dockerfile").write_text(f"FROM {base} AS base\nFROM base\n{mount}")

        done = kpy("build", "--progress", "plain", "--insecure-registry", registry.host, "-o", "type=cacheonly", context, check=False)

        assert TOKEN not in done.stdout + done.stderr
        assert done.returncode in (0, 5, 8), done.stderr
        assert "Traceback" not in done.stderr


def test_a_context_that_changes_while_it_is_mounted(kpy: Kpy, busybox_base: str, registry: Registry, workdir: Path) -> None:
    """Another process of the machine exchanges a directory for a link all the time."""
    context = _context(
        workdir, kpy, f"FROM {busybox_base}\nRUN --mount=type=bind,source=d,target=/opt/m cat /opt/m/value; true\n"
    )
    (context / "d").mkdir()
    (context / "d" / "value").write_text("of the context")
    (context / "e").symlink_to(kpy.home / "login")
    for path in (context / "d", context / "d" / "value"):
        os.chown(path, kpy.user.uid, kpy.user.gid)
    source = workdir / "race.c"
    source.write_text(
        "#define _GNU_SOURCE\n#include <fcntl.h>\n#include <stdio.h>\n#include <unistd.h>\n"
        "int main(int n, char **v) { for (;;) { renameat2(AT_FDCWD, v[1], AT_FDCWD, v[2], RENAME_EXCHANGE); usleep(50); } }\n"
    )
    subprocess.run([tool("gcc"), "-O2", "-o", workdir / "race", source], check=True)
    with subprocess.Popen([workdir / "race", context / "d", context / "e"]) as race:
        try:
            end = time.monotonic() + 6
            while time.monotonic() < end:
                done = kpy(
                    "build", "--progress", "plain", "--no-cache", "--insecure-registry", registry.host, "-o", "type=cacheonly",
                    context, check=False,
                )  # fmt: skip
                assert TOKEN not in done.stdout + done.stderr
                assert done.returncode in (0, 5, 8), done.stderr
        finally:
            race.kill()


def test_a_fifo_that_is_mounted_is_not_waited_for(kpy: Kpy, busybox_base: str, registry: Registry, workdir: Path) -> None:
    """Of the context and of a stage; written to or not."""
    context = _context(
        workdir, kpy,
        f"FROM {busybox_base} AS made\nRUN mkfifo -m 640 /opt-fifo\nFROM {busybox_base}\n"
        "RUN --mount=type=bind,source=fifo,target=/a,rw --mount=type=bind,source=fifo,target=/b \\\n"
        "    --mount=type=bind,from=made,source=/opt-fifo,target=/c,rw test -p /a && test -p /b && test -p /c\n",
    )  # fmt: skip
    os.mkfifo(context / "fifo")
    (context / "fifo").chmod(0o644)

    kpy("build", "--progress", "plain", "--insecure-registry", registry.host, "-o", "type=cacheonly", context, timeout=60)


def test_a_context_of_links_in_an_archive_is_mounted_from_the_archive(
    kpy: Kpy, busybox_base: str, registry: Registry, workdir: Path
) -> None:
    """Links of a tar mean what is in the tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        text = f"FROM {busybox_base}\nRUN --mount=type=bind,source=out/sub,target=/opt/m cat /opt/m/value\n".encode()
        for info, data in (member("Dockerfile", data=text), member("out", LINK, link=str(kpy.home / "login"))):
            tar.addfile(info, io.BytesIO(data))

    done = kpy(
        "build", "--progress", "plain", "--insecure-registry", registry.host, "-o", "type=cacheonly", "-", stdin=stream.getvalue(), check=False
    )

    assert done.returncode == 5, done.stderr
    assert TOKEN not in done.stdout + done.stderr
