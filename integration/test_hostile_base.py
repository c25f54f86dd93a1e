"""A live root under hostile images and hostile RUNs: the builder stays as it is, and goes on (E1, E2, C14-C17, R17)."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import bases
import builder as builders
import hostile
import pytest
import trees
from builder import LiveKpy
from hostile import BLOCK, CHAR, DIR, FIFO, HARD, LINK, SHELL, Member, member
from people import Kpy
from servers import Docker, Registry, registry, tool
from test_restricted import RESTRICTED

PLACES = {"root": [], "restricted": ["--user", "1000:1000", *RESTRICTED]}
NAMES = "127.0.0.77"
VARIABLES = [
    "LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/opt", "LD_AUDIT=/opt/evil.so", "PYTHONPATH=/opt", "PYTHONHOME=/opt", "GCONV_PATH=/opt",
    "LOCPATH=/opt", "SSL_CERT_FILE=/opt/none", "SSL_CERT_DIR=/opt", "OPENSSL_CONF=/opt/evil.cnf", "http_proxy=http://127.0.0.1:1",
    "https_proxy=http://127.0.0.1:1", "HTTPS_PROXY=http://127.0.0.1:1", "ALL_PROXY=http://127.0.0.1:1", "KPY_HOME=/opt", "TMPDIR=/none",
    "DOCKER_CONFIG=/opt", "RES_OPTIONS=debug", "HOSTALIASES=/opt/h", "LOCALDOMAIN=evil",
]  # fmt: skip


@pytest.fixture(scope="module")
def live(docker: Docker) -> LiveKpy:
    return LiveKpy(docker, builders.make(docker))


@pytest.fixture(scope="module")
def place(area: Path, registry: Registry) -> "Place":
    path = area / "hostile"
    path.mkdir()
    return Place(path, registry)


class Place:
    """Hostile images in the registry."""

    def __init__(self, path: Path, registry: Registry) -> None:
        self._path, self._registry = path, registry
        self._programs = hostile.layer(path / "programs.tar.gz", hostile.programs())

    def push(self, name: str, *layers: Sequence[Member], variables: Sequence[str] = ()) -> str:
        """An image of programs and of these layers; its name."""
        packed = [hostile.layer(self._path / f"{name}-{number}.tar.gz", members) for number, members in enumerate(layers)]
        runtime = {"Env": ["PATH=/opt/b", *variables]}
        return bases.push_layers(self._registry.host, f"hostile/{name}:1", [self._programs, *packed], runtime)


class Owned:
    """What is the builder's, in volumes that it may write to: a context, logins, keys, a token."""

    def __init__(self, path: Path, dockerfile: str) -> None:
        self._path = path
        places = {"context": "/workspace", "docker": "/kpy/.docker", "keys": "/kpy/keys", "token": "/var/run/secrets/kubernetes.io"}
        self.options = [part for name, target in places.items() for part in ("--volume", f"{path / name}:{target}")]
        for name in places:
            (path / name).mkdir(parents=True)
        (path / "context" / "Dockerfile").write_text(dockerfile)
        (path / "docker" / "config.json").write_text('{"auths": {}}')
        (path / "keys" / "key").write_text("key")
        (path / "token" / "token").write_text("token")
        for found in (path, *path.rglob("*")):
            os.chown(found, 1000, 1000)
        self._before = self._look()

    def _look(self) -> Mapping[str, tuple[object, ...]]:
        found = {}
        for path in sorted(self._path.rglob("*")):
            status = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path.relative_to(self._path))] = (status.st_mode, status.st_uid, status.st_gid, content)
        return found

    def check(self) -> None:
        """Nothing was touched."""
        assert self._look() == self._before


@pytest.fixture(scope="module")
def secure(area: Path) -> Iterator[Registry]:
    """A registry with TLS, for the name registry.test. `ca.pem` is in its directory."""
    path = area / "certificates"
    path.mkdir()
    subprocess.run(
        [tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=registry.test", "-addext", "subjectAltName=DNS:registry.test", "-keyout", path / "key.pem", "-out", path / "ca.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    with registry(area / "secure", certificate=(path / "ca.pem", path / "key.pem")) as running, hostile.name_server(NAMES):
        yield running


def _hostile_layers(place: str) -> list[list[Member]]:
    """All at once, but for what a place refuses."""
    leads = {"bin": "/proc/self/root/kpy/bin", "sbin": "../../..", "lib": "/kpy/lib", "lib64": "/kpy/lib", "init": "/kpy/bin/python3"}
    if place == "root":
        leads |= {"usr": "/", "tmp": "/kpy/state", "srv": "/proc/1/root", "home": "kpy", "root": ".", "var": "/kpy", "work": "/workspace"}
    first = [member(name, LINK, link=link) for name, link in leads.items()]
    first += [
        member("kpy/bin/python3", data=b"evil"), member("kpy/state/evil"), member("kpy/.docker/config.json", data=b"evil"),
        member("kroot/bin/sh", data=b"evil"), member("kroot/evil"),
        member("opt/evil.so", data=b"\x7fELF"), member("opt/evil.cnf", data=b"openssl_conf = evil\n[evil]\nengines = /opt/evil.so\n"),
        member("opt/out", LINK, link="/kpy"), member("opt/python", HARD, link="opt/out"), member("opt/python", data=b"evil"),
        member("opt/type", DIR), member("opt/type/f"), member("opt/type", LINK, link="/kpy/state"), member("opt/type", FIFO), member("opt/type", DIR),
        member("opt/disk", BLOCK, device=(8, 0)), member("opt/memory", CHAR, device=(1, 1)), member("opt/" + "n" * 255),
        member("etc/ld.so.preload", data=b"/opt/evil.so\n"), member("etc/nsswitch.conf", data=b"hosts: evil\npasswd: evil\ngroup: evil\n"),
        member("etc/resolv.conf", data=b"nameserver 127.0.0.66\n"), member("etc/hosts", LINK, link="/kpy/.docker/config.json"),
        member("etc/passwd", FIFO), member("etc/group", CHAR, device=(1, 5)), member("etc/ld.so.cache", DIR), member("etc/hostname", LINK, link="/none/x"),
    ]  # fmt: skip
    second = [member("kpy/.wh..wh..opq"), member(".wh.kpy"), member("kroot/.wh..wh..opq"), member(".wh.kroot"), member("opt/.wh.out")]
    return [first, second]


@pytest.mark.parametrize("where", PLACES)
def test_the_build_goes_on_after_a_hostile_stage(
    live: LiveKpy, kpy: Kpy, place: Place, secure: Registry, registry: Registry, busybox_base: str, workdir: Path, where: str
) -> None:
    """RUN in it, RUN in another, COPY from it, DNS and TLS after it; and the image is that of a user namespace."""
    base = place.push(f"all-{where}", *_hostile_layers(where), variables=VARIABLES)
    lines = [
        f"FROM {busybox_base} AS plain", f"FROM {base} AS hostile", f'SHELL ["{SHELL}", "-c"]', *(f"ENV {text}" for text in VARIABLES),
        "RUN unset LD_PRELOAD LD_AUDIT; echo hi > /opt/hi; echo more >> /opt/python",
        "FROM plain", "RUN mkdir -p /opt && echo two > /opt/two && test ! -e /etc/nsswitch.conf",
        "COPY --from=hostile /opt/hi /opt/python /opt/type /opt/", "RUN cat /opt/hi",
    ]  # fmt: skip
    owned = Owned(workdir / "owned", "\n".join(lines) + "\n")
    ca = secure.directory.parent / "certificates" / "ca.pem"
    name = f"built/hostile-{where}:1"
    done = live(
        "build", "--push", "-t", f"registry.test:{secure.host.rpartition(':')[2]}/{name}", ".",
        options=[*PLACES[where], *owned.options, "--dns", NAMES, "--env", "SSL_CERT_FILE=/kpy/ca.pem", "--volume", f"{ca}:/kpy/ca.pem:ro"],
    )  # fmt: skip

    assert done.stdout.startswith("sha256:")
    assert "Traceback" not in done.stderr
    owned.check()
    trees.run("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", f"docker://{secure.host}/{name}", f"docker://{registry.host}/{name}")
    kpy("build", "--push", "-t", f"{registry.host}/{name}-userns", workdir / "owned" / "context")
    found = [trees.described(f"{registry.host}/{name}{how}", workdir / f"tree{how}") for how in ("", "-userns")]
    assert trees.differences(*found) == {}
    assert found[0]["opt/python"].startswith("-rwxr-xr-x 0:0")


_INVALID, _ELSEWHERE = 6, 8
BROKEN: dict[str, tuple[list[list[Member]], int, str]] = {
    "above the root": ([[member("../../kpy/lib/evil"), member("/kpy/state/evil")]], _ELSEWHERE, "files in /kpy"),
    "through a link below": ([[member("opt/k", LINK, link="/proc/self/root/kpy")], [member("opt/k/evil")]], 0, ""),
    "through /workspace": ([[member("opt/w", LINK, link="/workspace")], [member("opt/w/Dockerfile")]], _ELSEWHERE, "files in /workspace"),
    "whiteout through a link": ([[member("opt/w", LINK, link="/workspace")], [member("opt/w/.wh.Dockerfile"), member("opt/w/.wh..wh..opq")]], 0, ""),
    "link to the builder": ([[member("opt/py", HARD, link="kpy/bin/python3")]], _INVALID, "hard link to 'kpy/bin/python3', which is not there"),
    "whiteout of ..": ([[member("opt/.wh...")]], _INVALID, "invalid whiteout"),
    "long name": ([[member("opt/" + "n" * 256)]], _INVALID, "file name too long"),
    "directory of users": ([[member("etc/passwd", DIR), member("etc/group", DIR)]], 0, ""),
    "no /etc": ([[member(".wh.etc")]], 0, ""),
    # What is mounted there stays.
    "links at mounts": ([[member(name, LINK, link="/kpy") for name in ("proc", "dev", "sys")], [member(".wh.proc")]], 0, ""),
}  # fmt: skip
_LOOP = """
import json, os, subprocess, sys
found = {}
for name, base in json.load(open("/workspace/bases.json")).items():
    with open("/kpy/tmp/Dockerfile", "w") as file:
        file.write(f'FROM {base}\\nRUN ["/opt/b/sh", "-c", "echo > /opt/made"]\\n')
    command = ["/kpy/bin/kpy", "build", "--progress", "none", "-f", "/kpy/tmp/Dockerfile", "--output", "type=cacheonly", "/workspace"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        found[name] = (done.returncode, done.stderr)
    except subprocess.TimeoutExpired:
        found[name] = (-1, "it hangs")
json.dump(found, sys.stdout)
"""


@pytest.mark.parametrize("where", PLACES)
def test_what_cannot_be_unpacked_is_one_line(live: LiveKpy, place: Place, workdir: Path, where: str) -> None:
    """One after the other in one container."""
    owned_bases = {name: place.push(name.strip("/. ").replace(" ", "-").replace("/", "") or "x", *layers) for name, (layers, *_) in BROKEN.items()}
    owned = Owned(workdir / "owned", json.dumps(owned_bases))
    (workdir / "owned" / "context" / "bases.json").write_text(json.dumps(owned_bases))
    answer = live.docker(
        "run", "--rm", "--network", "host", *PLACES[where], *owned.options, "--entrypoint", "/kpy/bin/python3", live.image, "-ISXutf8", "-c", _LOOP,
    )  # fmt: skip
    (workdir / "owned" / "context" / "bases.json").unlink()

    for name, (status, text) in json.loads(answer).items():
        _, expected, words = BROKEN[name]
        assert (name, status) == (name, expected), text
        assert words in text, name
        assert "Traceback" not in text, name
        assert sum(line.startswith("error: ") for line in text.splitlines()) == bool(status), text
    owned.check()


# Prints what it could do. $1 is the builder's state, and each place after it one with files of the builder's.
_ATTACK = r"""
builder=$(awk '{print $4}' /proc/$PPID/stat)
for pid in $builder $PPID; do
  for name in environ mem maps root/kpy/bin/kpy cwd/. ; do head -c 1 /proc/$pid/$name > /dev/null 2>&1 && echo "read $name"; done
done
kill -0 $builder 2> /dev/null && echo signal
for file in $(find "$@" -type f 2> /dev/null); do
  head -c 1 $file > /dev/null 2>&1 && echo "read $file"
  (echo x >> $file) 2> /dev/null && echo "wrote $file"
  ln $file /tmp/link 2> /dev/null && echo "linked $file"
done
for place in "$@"; do
  mkdir $place/evil 2> /dev/null && echo "made $place/evil"
  mv $place $place.moved 2> /dev/null && echo "moved $place"
  rm -rf $place 2> /dev/null; ls $place > /dev/null 2>&1 || echo "removed $place"
done
env | grep -q sesame && echo environment
(setsid sh -c 'sleep 1; echo late > /tmp/late; nc -l -p 7999' > /dev/null 2>&1 &)
echo done
"""
_OF_BUILDER = "/kpy/state /kpy/.docker /kpy/keys /kpy/bin /kpy/lib/python3.11/kpy /kpy/tmp /workspace"


def _attack(live: LiveKpy, busybox_base: str, workdir: Path, where: str, places: str) -> tuple[Owned, list[str]]:
    """A RUN as root, and one as another user, and what they could do."""
    run = f"RUN --mount=target=/mnt --mount=type=secret,id=s,target=/tmp/s sh /mnt/attack {places}"
    after = "RUN sleep 2; test ! -e /tmp/late && echo ended"
    owned = Owned(workdir / "owned", f"FROM {busybox_base}\n{run}\nUSER 1234\n{run}\n{after}\n")
    attack = workdir / "owned" / "context" / "attack"
    attack.write_text(_ATTACK)
    done = live(
        "build", "--progress", "plain", "--output", "type=cacheonly", "--secret", "id=s,src=/kpy/keys/key", ".",
        options=[*PLACES[where], *owned.options, "--env", "REGISTRY_PASSWORD=sesame"],
    )  # fmt: skip
    attack.unlink()
    said = [line.split(" ", 2)[2] for line in done.stderr.splitlines() if line.startswith("#") and line.count(" ") > 1]
    return owned, [text for text in said if text.split(" ")[0] in ("read", "wrote", "linked", "made", "moved", "removed", "signal", "environment", "done", "ended")]


def test_a_restricted_run_cannot_use_what_is_the_builder_s(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    owned, could = _attack(live, busybox_base, workdir, "restricted", _OF_BUILDER)

    # The programs are everybody's, and of root. The rest of /kpy is out of reach, though the uid is the builder's.
    assert [text for text in could if not text.startswith(("read /kpy/bin/", "read /kpy/lib/"))] == ["done", "done", "ended"]
    owned.check()


def test_a_run_of_real_root_cannot_read_the_builder_s_memory(live: LiveKpy, busybox_base: str, workdir: Path) -> None:
    """Files of the container, it can: SECURITY.md."""
    _, could = _attack(live, busybox_base, workdir, "root", "/nonesuch")

    assert [text for text in could if text != "signal"] == ["removed /nonesuch", "done", "removed /nonesuch", "done", "ended"]
