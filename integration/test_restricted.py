"""kpy where nothing is allowed: any uid, no capabilities, no new privileges, docker's seccomp profile (E2; EXECUTION B)."""

import io
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import builder as builders
import pytest
import servers
import trees
from builder import LiveKpy
from servers import Docker, Registry

RESTRICTED = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
VOLUMES = (
    "kroot", "etc", "usr", "var", "run", "tmp", "opt", "root", "home", "srv", "mnt", "media", "boot", "app", "work", "src", "go",
    "kpy/tmp", "kpy/state",
)  # fmt: skip
PLACES = {
    "1000:1000": ["--user", "1000:1000", *RESTRICTED],
    "random uid": ["--user", "123456:0", *RESTRICTED],
    "read-only": [
        "--user", "123456:0", *RESTRICTED, "--read-only",
        *(part for name in VOLUMES for part in ("--tmpfs", f"/{name}:exec,mode=777")),
    ],
}  # fmt: skip

DOCKERFILE = """FROM {busybox} AS small
RUN ls -la / && test "$(find / -maxdepth 1 -name app)" = "" && test -d /bin && ! test -L /bin && ! test -e /lib && ! test -e /app
RUN mkdir -m 750 /app /lib && cd /lib && test "$(/bin/pwd)" = /lib && echo lib > /lib/file && chown 3:4 /lib /app
RUN rm -r /lib && ! ls -d /lib && rmdir /app && ! stat /app && mkdir /app && echo a > /app/a && chown -h 5:6 /app/a
RUN --mount=target=/src --mount=type=cache,target=/go test -f /src/Dockerfile && touch /go/x
RUN ! test -e /src && mkdir -p /opt/one && mv /opt/one /opt/two && chmod 2711 /opt/two && mkfifo /opt/p && ln -s nowhere /opt/l && chown -h 7:8 /opt/l
RUN mknod /opt/null c 1 3 && test -c /opt/null && chmod 0 /opt/null && echo secret > /opt/s && ln /opt/s /opt/s2 && chmod 400 /opt/s
USER 9:10
RUN id -u > /tmp/mine && ! cat /opt/s && ! rm /app/a && mkdir /tmp/dir
FROM {debian}
RUN useradd --create-home bob && echo bob:pw | chpasswd && install -d -o bob -g www-data -m 3770 /srv/shared
COPY --from=small /app /opt /work/
COPY --from=small --chown=bob:mail /tmp /work/tmp
RUN test "$(readlink /bin)" = usr/bin && test "$(stat -c %F /lib)" = 'symbolic link' && test "$(readlink -f /bin/sh)" = /usr/bin/dash
RUN --mount=type=secret,id=key,uid=33,mode=440 test "$(stat -c %u:%a /run/secrets/key)" = 33:440 && chmod u+s /usr/bin/env && rm -rf /media
RUN --mount=from=small,source=/opt,target=/mnt --mount=from=small,source=/app,target=/srv/app --mount=from=small,target=/media/all \
    cd / && test "$(stat -c %u:%g:%a:%F mnt/s srv/app/a media/all/opt/two mnt/null | tr ' \\n' '_ ')" = \
    "0:0:400:regular_file 5:6:644:regular_file 0:0:2711:directory 0:0:0:character_special_file "
# Names in / that are links to /kroot: opened without following, made anew, linked, dated, packed and unpacked.
RUN ! cd /nix && ! cd /data && mkdir -p /nix/a/b/c/d/e/f && touch /nix/f && chown -R bob:mail /nix && chmod -R g+w /nix && \
    test "$(find /nix | wc -l)" = 8 && cp -a /nix /opt/nix && rm -rf /nix && ! ls -d /nix && cp /etc/passwd /entrypoint.sh && rm /entrypoint.sh && \
    cp /etc/passwd /docker-entrypoint.sh && ln /docker-entrypoint.sh /entrypoint.sh && test "$(stat -c %h /entrypoint.sh)" = 2 && \
    rm /entrypoint.sh /docker-entrypoint.sh && mkfifo /share && rm /share
RUN mknod /init c 1 3 && install -m 751 -o bob /etc/group /start.sh && ln -s start.sh /local && touch -h -d 2001-01-01 /local && \
    test "$(stat -c %Y /local)" = 978307200 && tar -C / -cf /opt/t.tar init local start.sh && rm /init /local /start.sh && tar -C / -xpf /opt/t.tar && rm /opt/t.tar && \
    test "$(stat -c %N:%Y /local)" = "'/local' -> 'start.sh':978307200" && \
    mv /start.sh /opt/start && mv /opt/start /start.sh && ln /start.sh /command && mv /start.sh /share && mv /share /start.sh
RUN <<X
#!/bin/sh
id -u > /opt/script
X
USER bob
RUN <<X
#!/bin/sh
id -u > /work/tmp/script
X
USER root
RUN su bob -c 'umask 077; touch ~/private' && chmod 0 /etc/shadow && cat /etc/shadow > /dev/null && touch /var/x
"""


@pytest.fixture
def live(docker: Docker) -> LiveKpy:
    return LiveKpy(docker, builders.make(docker))


def _context(path: Path, dockerfile: str) -> list[str]:
    """A context, and the options of `docker run` that show it to kpy."""
    path.mkdir()
    path.chmod(0o755)
    (path / "Dockerfile").write_text(dockerfile)
    (path / "key").write_text("s3")
    (path / "key").chmod(0o644)
    return ["--volume", f"{path}:/workspace:ro"]


def _built(live: LiveKpy, registry: Registry, context: list[str], place: str, workdir: Path) -> tuple[dict[str, str], int]:
    """What the image that is built there has, and how many layers."""
    name = f"{registry.host}/restricted/{place.replace(' ', '-').replace(':', '-')}:1"
    options = [*context, *PLACES.get(place, [])]
    done = live("build", "--push", "-t", name, "--secret", "id=key,src=key", ".", options=options)
    assert "emulated in part" not in done.stderr
    return trees.described(name, workdir / place.replace(":", "-")), len(trees.layers(name))


@pytest.fixture(scope="module")
def of_root(docker: Docker, registry: Registry, busybox_base: str, debian_base: str, area: Path) -> tuple[dict[str, str], int]:
    """The image of `test_images_are_those_of_real_root`, by real root."""
    place = area / "restricted-by-root"
    place.mkdir()
    context = _context(place / "c", DOCKERFILE.format(busybox=busybox_base, debian=debian_base))
    return _built(LiveKpy(docker, builders.make(docker)), registry, context, "root", place)


@pytest.mark.parametrize("place", PLACES)
def test_images_are_those_of_real_root(
    live: LiveKpy, registry: Registry, busybox_base: str, debian_base: str, workdir: Path, place: str,
    of_root: tuple[dict[str, str], int],
) -> None:  # fmt: skip
    """File by file: types, modes, owners, devices, links, contents. Two bases of different shapes."""
    context = _context(workdir / "c", DOCKERFILE.format(busybox=busybox_base, debian=debian_base))
    found, layers = _built(live, registry, context, place, workdir)

    assert trees.differences(of_root[0], found) == {}
    assert found["work/null"].startswith("c--------- 0:0 259")
    assert found["opt/nix/f"].startswith("-rw-rw-r-- 1000:8")
    assert found["start.sh"].startswith("-rwxr-x--x 1000:0")
    assert found["home/bob/private"].startswith("-rw------- 1000:1000")
    assert layers == of_root[1]


def test_a_name_that_the_root_lacks_is_one_error(
    live: LiveKpy, registry: Registry, busybox_base: str, workdir: Path
) -> None:
    """Before the first RUN, and a volume is all that it takes."""
    context = _context(workdir / "c", f"FROM {busybox_base}\nCOPY key /custom/key\nRUN cat /custom/key; touch /custom/new; cd /; ! touch new && touch /start.sh && ! sed -i s/a/b/ /start.sh\n")
    options = [*context, *PLACES["1000:1000"]]

    done = live("build", ".", options=options, check=False)

    assert done.returncode == 8, done.stderr
    assert "the image has /custom, which uid 1000 cannot have in this container" in done.stderr
    assert "mount an emptyDir" in done.stderr
    assert "Traceback" not in done.stderr

    name = f"{registry.host}/restricted/custom:1"
    done = live("build", "--push", "-t", name, ".", options=[*options, "--tmpfs", "/custom:exec"])

    assert "RUN could not make /new: nothing new can be made in / of this container as uid 1000" in done.stderr
    assert trees.described(name, workdir / "tree")["custom/new"].startswith("-rw-r--r-- 0:0")


def test_read_only_without_volumes_says_what_to_mount(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    context = _context(workdir / "c", f"FROM {busybox_base}\nRUN true\n")
    options = [*context, "--user", "123456:0", *RESTRICTED, "--read-only", "--tmpfs", "/kpy/state", "--tmpfs", "/kpy/tmp"]

    done = live("build", ".", options=options, check=False)

    assert done.returncode == 8, done.stderr
    assert "mount an emptyDir at /kroot" in done.stderr


def test_a_name_of_a_read_only_root_that_the_image_lacks(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    """It is the builder image's, and no volume is there: not to be seen, nor to be made."""
    run = '! test -e /data && ! cd /data && test -z "$(ls / | grep data)" && ! mkdir /data 2> /tmp/why && grep "Read-only" /tmp/why'
    context = _context(workdir / "c", f"FROM {busybox_base}\nRUN {run}\n")

    live("build", ".", options=[*context, *PLACES["read-only"]])


def test_a_volume_below_a_directory_of_the_image(live: LiveKpy, debian_base: str, workdir: Path) -> None:
    """The runtime has made the directories above it, as root."""
    context = _context(workdir / "c", f"FROM {debian_base}\nRUN true\n")
    (workdir / "data").mkdir()
    options = [*context, *PLACES["1000:1000"], "--volume", f"{workdir}/data:/var/tmp/deep/data"]
    done = live("build", ".", options=options, check=False)
    assert done.returncode == 8
    assert "is not uid 1000's: it was made for what is mounted at /var/tmp/deep/data" in done.stderr
    assert "hint: mount that at a directory of its own in /, or below /kpy" in done.stderr


def _refusing(path: Path, *rules: dict[str, Any]) -> list[str]:
    """A seccomp profile that has these refused, and user namespaces: options of `docker run`."""
    calls = [{"action": "SCMP_ACT_ERRNO", "errnoRet": 1, **rule} for rule in ({"names": ["unshare"]}, *rules)]
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls}))
    return ["--security-opt", f"seccomp={path}"]


def _if_argument(index: int, value: int, mask: int) -> list[dict[str, Any]]:
    return [{"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}]


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({"names": ["seccomp"], "args": _if_argument(1, 8, 8)}, id="flag"),  # SECCOMP_FILTER_FLAG_NEW_LISTENER
        pytest.param({"names": ["ioctl"], "args": _if_argument(1, 0xC0502100, 0xFFFFFFFF)}, id="ioctl"),  # SECCOMP_IOCTL_NOTIF_RECV
    ],
)
def test_what_is_lost_is_said_before_the_first_step(
    live: LiveKpy, registry: Registry, busybox_base: str, workdir: Path, rule: dict[str, Any]
) -> None:
    """Where a profile lets nobody answer system calls: once, by doctor too. What remains is a root whose chown succeeds."""
    context = _context(workdir / "c", f"FROM {busybox_base}\nCOPY --chown=3:4 key /etc/key\nRUN id -u > /etc/a && chown 5:6 /etc/a\nRUN chown 7 /etc/a\n")
    options = [*context, *PLACES["random uid"], *_refusing(workdir / "profile", rule)]
    name = f"{registry.host}/restricted/partial:1"

    done = live("build", "--push", "-t", name, ".", options=options)

    lines = done.stderr.splitlines()
    (said,) = (number for number, line in enumerate(lines) if "root is emulated in part only" in line)
    assert said < next(number for number, line in enumerate(lines) if "COPY" in line)
    tree = trees.described(name, workdir / "tree")
    assert tree["etc/a"].startswith("-rw-r--r-- 0:0")
    assert tree["etc/key"].startswith("-rw-r--r-- 3:4")
    if "ioctl" in rule["names"]:  # a second is enough
        found = json.loads(live("doctor", "--format", "json", options=options).stdout)
        assert "emulated in part" in found["run"]["notes"][0]
        assert lines[said].endswith(found["run"]["notes"][0])


def test_where_nothing_can_be_filtered_copies_are_built(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    rule = {"names": ["seccomp"]}
    context = _context(workdir / "c", f"FROM {busybox_base}\nCOPY key /key\nFROM {busybox_base}\nCOPY key /key\nRUN true\n")
    options = [*context, *PLACES["random uid"], *_refusing(workdir / "profile", rule)]

    live("build", "--target", "0", ".", options=options)
    done = live("build", ".", options=options, check=False)

    assert done.returncode == 8, done.stderr
    assert "root cannot be emulated: no filter of system calls is allowed" in done.stderr
    assert "] COPY key" not in done.stderr  # before the first step


def test_root_without_capabilities(live: LiveKpy, registry: Registry, busybox_base: str, workdir: Path) -> None:
    """It cannot give files to others, and is emulated as any user is."""
    run = "mkdir /opt && touch /opt/a && chown 5:6 /opt/a && test $(stat -c %u:%g /opt/a) = 5:6"
    mount = "RUN --mount=type=cache,target=/cache,uid=3 test $(stat -c %u /cache) = 3\n"
    # `/` is its own: names that no builder image has are made in it for a mount, and gone afterwards.
    mount += "RUN --mount=type=tmpfs,target=/none/such --mount=type=bind,target=/nor/this --mount=type=cache,target=/cache2 "
    mount += "touch /none/such/a /nor/this/b /cache2/c && test -f /nor/this/Dockerfile\nRUN ! ls -d /none && ! ls -d /nor && ! ls -d /cache2"
    context = _context(workdir / "c", f"FROM {busybox_base}\nRUN {run}\n{mount}\nUSER 9\nRUN ! touch /opt/b && touch /tmp/b\n")
    name = f"{registry.host}/restricted/root:1"

    live("build", "--push", "-t", name, ".", options=[*context, "--cap-drop", "ALL"])

    tree = trees.described(name, workdir / "tree")
    assert tree["opt/a"].startswith("-rw-r--r-- 5:6")
    assert tree["tmp/b"].startswith("-rw-r--r-- 9:0")


def test_owners_in_caches(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    """Of what a RUN left there, for later ones and later builds: below /, at a directory of /, and on a volume or not."""
    mounts = "--mount=type=cache,target=/c/x,id=a,uid=9,mode=700 --mount=type=cache,target=/go,id=b,gid=3"
    mounts = mounts.replace("/c/", "/srv/c/")
    first = f"""FROM {busybox_base}
RUN {mounts} test "$(stat -c %u:%g:%a /srv/c/x /go | xargs)" = "9:0:700 0:3:755" && cd /srv/c/x && touch a b && chown 3:4 . a && mkdir -m 0 d && \\
    chown 5 /go && touch /go/f && chown -h 6:7 /go/f
RUN {mounts} rm /srv/c/x/b && mv /srv/c/x/a /srv/c/x/a2
"""
    check = f"""RUN {mounts} cd /srv/c/x && test "$(stat -c %u:%g:%a . a2 d /go /go/f | xargs)" = "3:4:700 3:4:644 0:0:0 5:3:755 6:7:644" && test "$(ls | xargs)" = "a2 d"
"""
    context = [*_context(workdir / "c", first + check), *PLACES["1000:1000"]]
    live("build", ".", options=context)

    (workdir / "state").mkdir()
    (workdir / "state").chmod(0o777)
    context += ["--volume", f"{workdir}/state:/kpy/state"]
    (workdir / "c" / "Dockerfile").write_text(first)
    live("build", ".", options=context)
    (workdir / "c" / "Dockerfile").write_text(first + check)
    live("build", ".", options=context)


def test_a_user_namespace_can_be_asked_for_where_it_is_allowed(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    """No name in / is missing then."""
    context = _context(workdir / "c", f"FROM {busybox_base}\nRUN mkdir /anything && test $$ -lt 20 || test -d /proc/$$\n")

    options = [*context, "--user", "1000:1000", "--security-opt", "seccomp=unconfined"]
    done = live("build", "--isolation", "userns", ".", options=options)

    assert "root and all other users are emulated" in done.stderr


def test_a_mount_with_files_is_not_emptied(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    context = _context(workdir / "c", f"FROM {busybox_base}\nRUN ! test -e /data/new\n")
    (workdir / "data").mkdir()
    (workdir / "data").chmod(0o777)
    (workdir / "data" / "mine").write_text("mine")
    os.setxattr(workdir / "data", "user.kpy.root", b"1")  # whoever has the uid can say that it is kpy's

    live("build", ".", options=[*context, *PLACES["1000:1000"], "--volume", f"{workdir}/data:/data"])

    assert (workdir / "data" / "mine").read_text() == "mine"


def test_a_build_that_is_started_again_empties_what_it_left(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    """In another container of the same pod: the volumes are those of the build before."""
    context = _context(workdir / "c", f"FROM {busybox_base}\nRUN ! test -e /data && mkdir /data && touch /data/new\n")
    for name in ("data", "state"):
        (workdir / name).mkdir()
        os.chown(workdir / name, 1000, 1000)
    volumes = ["--volume", f"{workdir}/data:/data", "--volume", f"{workdir}/state:/kpy/state"]

    for _ in range(2):
        live("build", "--no-cache", ".", options=[*context, *PLACES["1000:1000"], *volumes])
        assert (workdir / "data" / "new").exists()


def test_copies_alone_need_no_root_at_all(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    context = _context(workdir / "c", f"FROM {busybox_base}\nCOPY --chown=5:6 key /custom/key\n")

    done = live("build", ".", options=[*context, *PLACES["random uid"], "--read-only", "--tmpfs", "/kpy/state"])

    assert done.stdout.startswith("sha256:")


def test_files_instead_of_an_image(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    """`-o DIRECTORY` and `-o -` (3.1): owners of emulated users are in the tar; on the disk all is ours."""
    made = "mkdir -p /opt/out/bin && cd /opt/out && echo 1 > bin/app && chmod 4755 bin/app && ln bin/app b && ln -s bin/app l && chown 5:6 bin && chown -h 7:8 l"
    stages = f"FROM {busybox_base} AS build\nRUN {made}\nFROM scratch\nCOPY --from=build /opt/out /\n"
    context = [*_context(workdir / "c", stages), *PLACES["1000:1000"]]
    (workdir / "out").mkdir()
    os.chown(workdir / "out", 1000, 1000)

    live("build", "-o", "/out/files", ".", options=[*context, "--volume", f"{workdir}/out:/out"])
    piped = _raw(live, "build", "-o", "-", ".", options=context)

    files = workdir / "out" / "files"
    assert sorted(str(path.relative_to(files)) for path in files.rglob("*")) == ["b", "bin", "bin/app", "l"]
    app = (files / "bin" / "app").stat()
    assert (stat.S_IMODE(app.st_mode), app.st_uid, app.st_nlink) == (0o755, 1000, 2)
    with tarfile.open(fileobj=io.BytesIO(piped)) as archive:
        owners = {info.name: (info.uid, info.gid) for info in archive}
    assert owners == {"b": (0, 0), "bin": (5, 6), "bin/app": (0, 0), "l": (7, 8)}


def _raw(live: LiveKpy, *argv: str, options: list[str]) -> bytes:
    command = [servers.tool("docker"), "run", "--rm", "--network", "host", *options, live.image, *argv]
    return subprocess.run(command, check=True, capture_output=True, env={**os.environ, "DOCKER_HOST": live.docker.socket}).stdout
