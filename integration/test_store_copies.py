"""A store that somebody copied: with tar, cp or rsync, as a user or as root. Images are right all the same."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trees
from people import Kpy
from servers import Registry

DOCKERFILE = """\
ARG BASE
FROM $BASE
RUN cp /bin/busybox /suid && chmod 4755 /suid && touch /owned && chown 33:44 /owned
COPY word /
RUN --mount=type=cache,target=/cache,id=c cat /word > /copy && ls -ln /suid /owned > /seen && ls -ln /cache >> /seen; \\
    touch /cache/x && chown 7:8 /cache/x
"""
SAID = "were changed by a copy of the store: they are made again"


def _tar(store: Path, kpy: Kpy) -> None:
    """What a CI does."""
    _as_user(kpy, "tar cf ../copy.tar kpy", store.parent)
    shutil.rmtree(store)
    _as_user(kpy, "tar xf ../copy.tar", store.parent)


def _cp(store: Path, kpy: Kpy) -> None:
    _as_user(kpy, "cp -r kpy copy", store.parent)
    shutil.rmtree(store)
    (store.parent / "copy").rename(store)


def _root(store: Path, kpy: Kpy) -> None:
    """Also with all owners: the inodes, by which cache mounts know files where root is emulated, are others."""
    subprocess.run("cp -a kpy copy && rm -rf kpy && mv copy kpy", shell=True, cwd=store.parent, check=True)


def _own(store: Path, kpy: Kpy) -> None:
    """What people do when files are not theirs."""
    subprocess.run(["chown", "-R", f"{kpy.user.uid}:{kpy.user.gid}", store / "snapshots"], check=True)


def _as_user(kpy: Kpy, script: str, cwd: Path) -> None:
    done = subprocess.run(["sh", "-ec", script], cwd=cwd, capture_output=True, text=True, check=False, **kpy.spawn())  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("copy", [_tar, _cp, _root, _own])
def test_a_copied_store_gives_the_same_image(
    kpy: Kpy, registry: Registry, busybox_base: str, workdir: Path, copy: Callable[[Path, Kpy], None]
) -> None:
    store = kpy.home / ".local/share/kpy"
    project = workdir / "project"
    project.mkdir()
    (project / "Dockerfile").write_text(DOCKERFILE)

    def build(word: str) -> str:
        (project / "word").write_text(word)
        name = f"{registry.host}/copied/store{copy.__name__}:{word}"
        done = kpy("build", "--progress=plain", "--push", "-t", name, "--build-arg", f"BASE={busybox_base}", project)
        root = trees.unpack(name, workdir / f"tree-{word}")
        assert (root / "suid").stat().st_mode & 0o7777 == 0o4755
        assert ((root / "owned").stat().st_uid, (root / "owned").stat().st_gid) == (33, 44)
        rows = [line.split() for line in (root / "seen").read_text().splitlines() if not line.startswith("total")]
        assert [(row[0], row[2], row[3]) for row in rows[:2]] == [("-rw-r--r--", "33", "44"), ("-rwsr-xr-x", "0", "0")]
        for row in rows[2:]:  # of a cache that is kept
            assert (row[2], row[3]) == ("7", "8")
        shutil.rmtree(root)
        return done.stderr

    assert SAID not in build("one")
    assert SAID not in build("two")
    os.chmod(kpy.home / ".local/share", 0o755)
    copy(store, kpy)
    said = build("three")
    assert said.count("warning: the unpacked images") == 1
    assert said.count("warning: the cache mounts") == (0 if copy is _own else 1)
    assert "CACHED" in said
    assert SAID not in build("four")


def test_what_nobody_copied_is_used_again(kpy: Kpy, busybox_base: str, workdir: Path) -> None:
    """Moving the whole store is no copy: nothing in it changes."""
    (workdir / "Dockerfile").write_text(DOCKERFILE)
    (workdir / "word").write_text("one")
    kpy("build", "--build-arg", f"BASE={busybox_base}", workdir)
    store, moved = kpy.home / ".local/share/kpy", kpy.home / "moved"
    store.rename(moved)

    def chains() -> dict[str, int]:
        return {path.parent.name: path.stat().st_ino for path in (moved / "snapshots").glob("*/chains/*/fs")}

    before = chains()
    assert before
    (workdir / "word").write_text("two")
    done = kpy.with_env(KPY_HOME=str(moved))("build", "--progress=plain", "--build-arg", f"BASE={busybox_base}", workdir)
    assert SAID not in done.stderr
    assert before.items() <= chains().items()
