"""kpy as a user of a host who has no subordinate ids: one id in the namespace, and all others emulated (E5)."""

import os
from pathlib import Path

import pytest
import trees
from people import Kpy, account
from servers import Registry

DOCKERFILE = """FROM {busybox} AS small
RUN test "$(id -u)" = 0 && mkdir -m 750 /app && echo a > /app/a && chown 5:6 /app /app/a && test "$(stat -c %u:%g /app/a)" = 5:6
RUN --mount=target=/src,rw --mount=type=cache,target=/cache,uid=7,gid=8 \\
    test -f /src/Dockerfile && touch /src/new && test "$(stat -c %u:%g /cache)" = 7:8 && touch /cache/x && chown 3:4 /cache/x
RUN --mount=type=cache,target=/cache,uid=7,gid=8 test "$(stat -c %u:%g /cache/x)" = 3:4
RUN --mount=type=tmpfs,target=/t touch /t/x && chown 1:2 /t/x && touch /dev/shm/x && chown 1:2 /dev/shm/x && echo > /dev/null
RUN ! test -e /src && ! test -e /t && ! test -e /dev/shm/x && mkdir -p /opt/one && mv /opt/one /opt/two && chmod 2711 /opt/two \\
    && mkfifo /opt/p && ln -s nowhere /opt/l && chown -h 7:8 /opt/l && chown 9 /opt/p
RUN echo secret > /opt/s && ln /opt/s /opt/s2 && chmod 400 /opt/s && chmod 0 /opt/two && touch /opt/two/in && rm -r /bin/sync
USER 9:10
WORKDIR /made/by/workdir
RUN test "$(id -u):$(id -g)" = 9:10 && touch /tmp/mine && ! cat /opt/s && ! rm /app/a && ! touch /opt/new && ! chown 9 /opt/s
FROM {debian}
RUN useradd --create-home bob && echo bob:pw | chpasswd && install -d -o bob -g www-data -m 3770 /srv/shared
COPY --from=small /app /opt /work/
COPY --from=small --chown=bob:mail /tmp /work/tmp
RUN --mount=type=secret,id=key,uid=33,mode=440 test "$(stat -c %u:%a /run/secrets/key)" = 33:440 && chmod u+s /usr/bin/env && rm -rf /media
RUN su bob -c 'umask 077; touch ~/private' && chmod 0 /etc/shadow && cat /etc/shadow > /dev/null && touch /var/x
RUN --network=none (sleep 1000 &) && test "$$" -lt 10 && ls /proc/self/fd > /dev/null && test "$(stat -c %u /proc/1)" = 0
USER bob
RUN touch ~/shell && id -un > ~/who && ! touch /etc/new
"""


@pytest.fixture
def solo(program: str, area: Path, workdir: Path) -> Kpy:
    """kpy as a user without subordinate ids."""
    user = account("kpy-solo")
    home = workdir / "solo"
    home.mkdir()
    os.chown(home, user.uid, user.gid)
    return Kpy(program, user, home)


def _context(path: Path, dockerfile: str) -> Path:
    path.mkdir()
    path.chmod(0o755)
    (path / "Dockerfile").write_text(dockerfile)
    (path / "key").write_text("s3")
    for name in ("Dockerfile", "key"):
        (path / name).chmod(0o644)
    return path


def test_images_are_those_of_a_user_with_subordinate_ids(
    kpy: Kpy, solo: Kpy, registry: Registry, busybox_base: str, debian_base: str, workdir: Path
) -> None:
    """File by file: types, modes, owners, links, contents; and the same layers changed."""
    context = _context(workdir / "c", DOCKERFILE.format(busybox=busybox_base, debian=debian_base))
    names = {how: f"{registry.host}/single/{how}:1" for how in ("many", "one")}
    for how, builder in (("many", kpy), ("one", solo)):
        done = builder(
            "build", "--isolation=userns", "--push", "-t", names[how], "--secret", f"id=key,src={context}/key", context
        )
        assert "emulated in part" not in done.stderr

    found = {how: trees.described(name, workdir / how) for how, name in names.items()}

    assert trees.differences(found["many"], found["one"]) == {}
    assert found["one"]["home/bob/private"].startswith("-rw------- 1000:1000")
    assert found["one"]["srv/shared"].startswith("drwxrws--T 1000:33")
    assert found["one"]["work/two"].startswith("d--------- 0:0")
    assert found["one"]["work/p"].startswith("prw-r--r-- 9:0")
    assert len(trees.layers(names["many"])) == len(trees.layers(names["one"]))
    assert [path for path in solo.home.rglob("root") if path.is_dir()] == []  # the build's own root is gone


def test_devices_and_capabilities_that_real_user_namespaces_refuse(
    solo: Kpy, registry: Registry, busybox_base: str, python_base: str, workdir: Path
) -> None:
    capability = "bytes.fromhex('0100000200040000000000000000000000000000')"  # cap_net_bind_service+ep
    dockerfile = f"""FROM {python_base}
RUN mknod -m 640 /null c 1 3 && chown 5:6 /null && test -c /null
RUN cp /bin/true /able && python3 -c "import os; os.setxattr('/able', 'security.capability', {capability})"
RUN python3 -c "import os; assert os.getxattr('/able', 'security.capability') == {capability}"
"""
    name = f"{registry.host}/single/devices:1"

    solo("build", "--push", "-t", name, _context(workdir / "c", dockerfile))

    found = trees.described(name, workdir / "tree")
    assert found["null"].startswith("crw-r----- 5:6 259")
    assert "security.capability" in found["able"]


def test_what_a_run_gets_from_the_kernel(solo: Kpy, busybox_base: str, workdir: Path) -> None:
    """Nothing: it has no capabilities, and cannot look into what emulates root. What it leaves running is killed."""
    dockerfile = f"""FROM {busybox_base}
RUN grep -q 'CapPrm:.0000000000000000' /proc/self/status && grep -q 'CapBnd:.0000000000000000' /proc/self/status
RUN ! cat /proc/1/fd/0 && ! readlink /proc/1/fd/0 && ! cat /proc/1/environ && ! head -c 1 /proc/1/maps && ! readlink /proc/1/root && test "$(ls /proc | grep -c '^[0-9]')" -lt 6
RUN (sleep 4321 &) && exit 7
"""
    done = solo("build", _context(workdir / "c", dockerfile), check=False)

    assert done.returncode == 4, done.stderr
    assert "exit code: 7" in done.stderr
    assert b"sleep\x004321\0" not in [_command(path) for path in Path("/proc").glob("[0-9]*/cmdline")]


def _command(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
