"""kpy as a user of a host who has no subordinate ids: one id in the namespace, and all others emulated (E5)."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import servers
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


def _programs(builder: Kpy, workdir: Path, make: Callable[[Path], object]) -> Kpy:
    """With a newuidmap and newgidmap of one's own, found before those of the machine."""
    directory = workdir / "bin"
    directory.mkdir(mode=0o755)
    for name in ("newuidmap", "newgidmap"):
        make(directory / name)
        (directory / name).chmod(0o755)
    return builder.with_env(PATH=f"{directory}:/usr/bin:/bin:/usr/sbin:/sbin")


def _without_rights(builder: Kpy, workdir: Path) -> Kpy:
    """As image builders often leave them: copied, and the set-id bit lost."""
    return _programs(builder, workdir, lambda path: shutil.copyfile(servers.tool(path.name), path))


def _of_another_kind(builder: Kpy, workdir: Path) -> Kpy:
    return _programs(builder, workdir, lambda path: path.write_text("#!/bin/sh\n"))


def _no_new_privileges(builder: Kpy, workdir: Path) -> Kpy:
    wrapper = workdir / "kpy"
    wrapper.write_text(f'#!/bin/sh\nexec setpriv --no-new-privs {builder.program} "$@"\n')
    wrapper.chmod(0o755)
    return replace(builder, program=str(wrapper))


def _told(name: str, *ids: str) -> Callable[[Kpy, Path], Kpy]:
    """As a user of whom /etc/subuid and /etc/subgid say this; OWN is his own id."""

    def change(builder: Kpy, _: Path) -> Kpy:
        user = account(name)
        with servers.turn("accounts"):
            for file, own in ((Path("/etc/subuid"), user.uid), (Path("/etc/subgid"), user.gid)):
                others = [line for line in file.read_text().splitlines() if not line.startswith(f"{name}:")]
                lines = [*others, *(f"{name}:{line.replace('OWN', str(own))}" for line in ids)]
                file.write_text("".join(f"{line}\n" for line in lines))
        os.chown(builder.home, user.uid, user.gid)
        return replace(builder, user=user)

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(_without_rights, "has no rights: as root, chmod u+s", id="not setuid"),
        pytest.param(_of_another_kind, "gave none, and said nothing", id="another program"),
        pytest.param(_no_new_privileges, "started with no_new_privs", id="no_new_privs"),
        pytest.param(_told("kpy-solo"), "/etc/subuid gives kpy-solo no ids", id="no ids"),
        pytest.param(_told("kpy-few", "700000:10"), "gives kpy-few 10 of the 65534 ids", id="few ids"),
    ],
)
def test_who_cannot_have_other_ids_builds_all_the_same(
    kpy: Kpy, busybox_base: str, workdir: Path, change: Callable[[Kpy, Path], Kpy], why: str
) -> None:
    """And is told why it takes longer, once; `kpy doctor` says the same."""
    builder = change(kpy, workdir)
    run = "RUN touch /f && chown 5:60000 /f && test $(stat -c %u:%g /f) = 5:60000\n"
    context = _context(workdir / "c", f"FROM {busybox_base}\n{run}USER 7\nRUN test $(id -u) = 7\n")

    done = builder("build", context)

    (line,) = (line for line in done.stderr.splitlines() if "root and all other users are emulated" in line)
    assert why in done.stderr
    assert "emulated in part" not in done.stderr
    if change is not _without_rights:
        return  # that takes a second
    found = json.loads(builder("doctor", "--format=json").stdout)
    (note,) = found["run"]["notes"]
    assert why in note
    assert line.partition("root and all")[2] in note
    assert found["run"]["how"].endswith("root and other users emulated")


def test_where_another_listens_already(solo: Kpy, busybox_base: str, workdir: Path) -> None:
    """There can be one listener to a process: what is lost without is said once, before the first step."""
    wrapper = workdir / "kpy"
    wrapper.write_text(
        f"#!{sys.executable}\nimport os, sys\nfrom kpy.linux import seccomp, syscalls\narch = syscalls.native()\nseccomp.no_new_privs()\n"
        "os.set_inheritable(seccomp.install_with_listener(seccomp.assemble(arch, {}), arch), True)\n"
        f"os.execv({solo.program!r}, [{solo.program!r}, *sys.argv[1:]])\n"
    )
    wrapper.chmod(0o755)
    run = "RUN touch /f && chown 5:6 /f && test $(id -u) = 0\n"
    context = _context(workdir / "c", f"FROM {busybox_base}\nCOPY key /\n{run}{run}")

    done = replace(solo, program=str(wrapper))("build", context)

    lines = done.stderr.splitlines()
    (said,) = (number for number, line in enumerate(lines) if "emulated in part only (another program watches" in line)
    assert said < next(number for number, line in enumerate(lines) if "COPY" in line)


def test_owners_in_mounts(solo: Kpy, busybox_base: str, workdir: Path) -> None:
    """Of another stage's files, and of what a RUN left in a cache, for later ones and later builds."""
    first = f"""FROM {busybox_base} AS made
RUN mkdir -p /m/d && touch /m/f && chown -R 5:6 /m/d && chown 7:8 /m/f && chmod 600 /m/f
FROM {busybox_base}
RUN --mount=from=made,source=/m,target=/ro --mount=from=made,source=/m,target=/rw,rw \\
    test "$(stat -c %u:%g:%a /ro/d /ro/f /rw/d /rw/f | xargs)" = "5:6:755 7:8:600 5:6:755 7:8:600" && \\
    echo > /rw/f && touch /rw/d/new && chown 1:2 /rw/d && test "$(stat -c %u:%g /rw/d /rw/f | xargs)" = "1:2 7:8"
RUN --mount=from=made,source=/m/f,target=/f,rw test "$(stat -c %u:%g /f)" = 7:8 && echo > /f
RUN --mount=type=cache,target=/c,uid=9,mode=700 --mount=type=cache,target=/seeded,from=made,source=/m \\
    test "$(stat -c %u:%g:%a /c /seeded/d | xargs)" = "9:0:700 5:6:755" && touch /c/a /c/b && chown 3:4 /c /c/a && mkdir -m 0 /c/d && chown 1:1 /seeded/d
RUN --mount=type=cache,target=/c,uid=9,mode=700 rm /c/b && mv /c/a /c/a2
"""
    check = """RUN --mount=type=cache,target=/c,uid=9,mode=700 --mount=type=cache,target=/seeded,from=made,source=/m \\
    test "$(stat -c %u:%g:%a /c /c/a2 /c/d /seeded/d /seeded/f | xargs)" = "3:4:700 3:4:644 0:0:0 1:1:755 7:8:600" && test "$(ls /c | xargs)" = "a2 d"
"""
    context = _context(workdir / "c", first)
    solo("build", context)
    (context / "Dockerfile").write_text(first + check)

    solo("build", context)


def test_ids_that_are_given_twice(kpy: Kpy, busybox_base: str, workdir: Path) -> None:
    """Lines of /etc/subuid that overlap, have the user's own id, or make no sense: what is left is used, and is enough."""
    builder = _told("kpy-twice", "800000:65536", "OWN:1", "nonsense:7", "830000:65536")(kpy, workdir)
    context = _context(workdir / "c", f"FROM {busybox_base}\nRUN touch /f && chown 5:60000 /f && test $(stat -c %u:%g /f) = 5:60000\n")

    done = builder("build", context)

    assert "emulated" not in done.stderr


def _command(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
