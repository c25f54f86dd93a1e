"""What is tried in a test machine, as its root. Lines that begin with GUEST are for who started the machine."""

import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
IMAGES = Path("/images")
KPY = Path("/usr/local/bin/kpy")
CAPABILITY = "0100000200040000000000000000000000000000"  # cap_net_bind_service+ep

# Of what root can do: all that is not made by a real user namespace is left to the other tests.
DOCKERFILE = """FROM base/busybox:1 AS small
RUN test "$(id -u)" = 0 && mkdir -m 750 /app && echo a > /app/a && chown 5:6 /app /app/a && test "$(stat -c %u:%g /app/a)" = 5:6
RUN --mount=target=/src,rw --mount=type=cache,target=/cache,uid=7,gid=8 \\
    test -f /src/Dockerfile && test "$(stat -c %u:%g /cache)" = 7:8 && touch /cache/x && chown 3:4 /cache/x
RUN --mount=type=cache,target=/cache,uid=7,gid=8 test "$(stat -c %u:%g /cache/x)" = 3:4
RUN ! test -e /src && mkdir -p /opt/one && mv /opt/one /opt/two && chmod 2711 /opt/two && mkfifo /opt/p && ln -s no /opt/l && chown -h 7:8 /opt/l
RUN echo secret > /opt/s && ln /opt/s /opt/s2 && chmod 400 /opt/s && chmod 0 /opt/two && touch /opt/two/in && rm -r /bin/sync
USER 9:10
RUN test "$(id -u):$(id -g)" = 9:10 && touch /tmp/mine && ! cat /opt/s && ! rm /app/a && ! touch /opt/new && ! chown 9 /opt/s
FROM base/debian:1
RUN useradd --create-home bob && echo bob:pw | chpasswd && install -d -o bob -g www-data -m 3770 /srv/shared
COPY --from=small /app /opt /work/
COPY --from=small --chown=bob:mail /tmp /work/tmp
RUN --mount=type=secret,id=key,uid=33,mode=440 test "$(stat -c %u:%a /run/secrets/key)" = 33:440 && chmod u+s /usr/bin/env && rm -rf /media
RUN su bob -c 'umask 077; touch ~/private' && chmod 0 /etc/shadow && cat /etc/shadow > /dev/null && touch /var/x
RUN --network=none (sleep 1000 &) && ls /proc/self/fd > /dev/null
RUN --mount=target=/src mkdir /repository && : > /repository/Packages && echo 'deb [trusted=yes] copy:/repository ./' > /etc/apt/sources.list.d/x.list \\
    && rm -f /etc/apt/sources.list && apt-get update && test "$(stat -c %U /var/lib/apt/lists/partial)" = _apt && dpkg -i /src/job.deb \\
    && test "$(stat -c %U:%G:%a /var/lib/job)" = job:job:2750 && test "$(stat -c %a /usr/bin/job)" = 4755 && rm -rf /var/cache/ldconfig /var/lib/apt/lists
USER bob
RUN touch ~/shell && id -un > ~/who && ! touch /etc/new
"""
DEVICES = """FROM base/debian:1
RUN mknod -m 640 /null c 1 3 && chown 5:6 /null && test -c /null && cp /bin/true /able
RUN perl -e '$v = pack("H*", "{capability}"); syscall({number}, "/able", "security.capability", $v, length($v), 0) == 0 or die "$!"'
"""
POSTINST = """#!/bin/sh
set -e
useradd --system --user-group --home-dir /var/lib/job --shell /usr/sbin/nologin job
install -d -o job -g job -m 2750 /var/lib/job
setpriv --reuid job --regid job --init-groups sh -c 'cd && umask 027 && echo mine > file && mkdir -p a/b && test "$(stat -c %U:%G a/b)" = job:job'
su -s /bin/sh job -c 'test "$(id -un)" = job && ! touch /etc/mine && ! cat /etc/shadow'
"""


def say(text: str) -> None:
    print(f"\nGUEST {text}", flush=True)


def shell(command: str, **more: object) -> str:
    """The output of a command of ours, which must succeed."""
    lines = []
    with subprocess.Popen(["sh", "-ec", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more) as program:  # type: ignore[call-overload]
        for line in program.stdout:
            lines.append(line)
            print(line, end="", flush=True)  # the console shows how far it is
    if program.returncode:
        raise AssertionError(f"{command}: exit code {program.returncode}")
    return "".join(lines)


def prepare() -> None:
    """kpy as it is installed, and users."""
    Path("/usr/local/lib/python3.11/dist-packages/checkout.pth").write_text(f"{CHECKOUT}\n")
    KPY.write_text("#!/usr/bin/python3\nfrom kpy.__main__ import main\nmain()\n")
    KPY.chmod(0o755)
    Path("/usr/bin/kpy").symlink_to(KPY)
    os.chdir(CHECKOUT)
    shell(
        "useradd --create-home many; useradd --create-home one; rm -f /etc/subuid /etc/subgid;"
        "echo many:200000:65536 | tee /etc/subuid > /etc/subgid; mount -o remount,nosuid,nodev /dev/shm || true"
    )
    sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "integration")]


def facts() -> None:
    """What this kernel has of what the emulation uses."""
    import ctypes
    import fcntl

    from kpy.linux import landlock, seccomp
    from kpy.linux.syscalls import native

    arch = native()
    assert arch is not None
    call = ctypes.CDLL(None, use_errno=True).syscall
    call(arch.numbers["seccomp"], 1, 8 | 32, None)
    killable = ctypes.get_errno() == 14  # EFAULT: the flags are known
    read, write = os.pipe()
    if os.fork() == 0:
        seccomp.no_new_privs()
        listener = seccomp.install_with_listener(seccomp.assemble(arch, {}), arch)
        add = "it adds"
        try:
            fcntl.ioctl(listener, 0x40182103, bytes(8) + (2).to_bytes(4, "little") + bytes(12))
        except OSError as error:
            add = "adds and sends" if error.errno == 2 else "adds only"
        synchronous = seccomp.Listener(listener).synchronous
        os.write(write, json.dumps({"synchronous": synchronous, "descriptors": add, "landlock": landlock.keep_apart(arch)}).encode())
        os._exit(0)
    os.close(write)
    say(f"facts: {platform.release()} {platform.machine()} killable {killable} {os.read(read, 1000).decode()}")


CAPABILITIES = (
    "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod audit_write setfcap"
)
SMOKE = """
cd $(mktemp -d); id -u; touch a; chown 33:44 a; chmod 4711 a; mknod n c 1 3; mkdir -m 0 z; mkdir -m 2770 s; chown 7:8 s; touch s/in
ln a b; ln -s nowhere l; chown -h 5:6 l; stat -c '%n %a %u:%g %F %t:%T' *; stat -c %g s/in
cp /usr/bin/id u; chown 7:8 u; chmod 4755 u; chmod 711 .
setpriv --reuid 9 --regid 9 --clear-groups sh -c './u -u; id -u; touch mine 2>/dev/null || echo refused; cat /etc/shadow 2>/dev/null || echo refused'
install -d -o 9 -g 9 d; setpriv --reuid 9 --regid 9 --clear-groups sh -c 'umask 027; echo x > d/f; mkdir d/d; mkfifo d/p; ln -s f d/l'
stat -c '%n %a %u:%g' d/*
"""
SMOKED = """0
a 4711 33:44 regular empty file 0:0
b 4711 33:44 regular empty file 0:0
l 777 5:6 symbolic link 0:0
n 644 0:0 character special file 1:3
s 2770 7:8 directory 0:0
z 0 0:0 directory 0:0
8
7
9
refused
refused
d/d 750 9:9
d/f 640 9:9
d/l 777 9:9
d/p 640 9:9
"""


def _driven(script: str, **more: object) -> dict[str, object]:
    """The answer of emulation_drive.py, as a user without rights."""
    told = json.dumps({"runs": [{"argv": ["/bin/sh", "-ec", script]}], **more})
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, CHECKOUT / "integration/emulation_drive.py"], input=told, capture_output=True, text=True, check=False,
        user="many", group="many", extra_groups=[], env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    print(done.stdout, done.stderr, f"{time.monotonic() - begun:.1f} s", flush=True)
    return dict(json.loads(done.stdout))


def smoke() -> None:
    """The least: a few calls of each kind, and some random programs, before all else, for it is soon done."""
    answer = _driven(SMOKE)
    assert answer["results"][0]["output"] == SMOKED, answer  # type: ignore[index]
    say("smoke: owners, modes, devices, users as they must be")
    program = f"cd $(mktemp -d) && chmod 755 . && exec python3 -I {CHECKOUT}/integration/emulation_program.py $PWD 0 5"
    # Root as it is in an ordinary container, which is what is emulated: with docker's default capabilities.
    contained = f"setpriv --groups=0 --inh-caps=-all --bounding-set=-all,+{',+'.join(CAPABILITIES.split())} sh -c '{program}'"
    real = [json.loads(line) for line in shell(contained).splitlines() if line.startswith("{")]
    emulated = [json.loads(line) for line in _driven(program)["results"][0]["output"].splitlines()]  # type: ignore[index]
    for one, other in zip(real, emulated, strict=True):
        for what in ("calls", "tree"):
            assert one[what] == other[what], (one["seed"], [pair for pair in zip(one[what], other[what], strict=False) if pair[0] != pair[1]])
    say(f"smoke: {len(real)} random programs do what they do for real root")


def unit() -> None:
    """The tests of the rooms that know the kernel, as root and as a user."""
    for user in ("root", "many"):
        text = shell(
            f"cd {CHECKOUT}; setpriv --reuid {user} --regid {user} --init-groups env HOME=/tmp CI=1 "
            "python3 -m pytest -p no:cacheprovider -v --tb=short tests/emulation tests/linux 2>&1 || touch /failed"
        )
        say(f"unit as {user}: {text.strip().splitlines()[-1]}")


def emulation() -> None:
    """All tests of the emulation, random programs too, as a user without rights."""
    text = shell(
        f"cd {CHECKOUT}; CI=1 python3 -m pytest -p no:cacheprovider -v --tb=short --durations=5 -k \"$TESTS\" "
        "integration/machines/guest_emulation.py 2>&1 || touch /failed"
    )
    say(f"emulation: {text.strip().splitlines()[-1]}")


def _busybox(path: Path) -> None:
    names = shell("busybox --list").split()
    with tarfile.open(path, "w") as tar:

        def add(name: str, kind: bytes, data: bytes = b"", mode: int = 0o755, link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname, info.size, info.mtime = kind, mode, link, len(data), 1_600_000_000
            tar.addfile(info, io.BytesIO(data))

        for name in ("bin", "dev", "etc", "home", "opt", "proc", "root", "sys", "usr", "usr/bin", "var"):
            add(name, tarfile.DIRTYPE)
        add("tmp", tarfile.DIRTYPE, mode=0o1777)
        add("etc/passwd", tarfile.REGTYPE, b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        add("etc/group", tarfile.REGTYPE, b"root:x:0:\n", 0o644)
        add("bin/busybox", tarfile.REGTYPE, Path("/bin/busybox").read_bytes())
        for name in names:
            if name != "busybox":
                add(f"bin/{name}", tarfile.SYMTYPE, link="busybox")


def _context() -> Path:
    """Of the builds: a package that makes a user and works as it, among others."""
    path = Path("/tmp/context")
    if path.exists():
        return path
    package = Path("/tmp/job")
    (package / "DEBIAN").mkdir(parents=True)
    control = "Package: job\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a user and its files\n"
    (package / "DEBIAN/control").write_text(control)
    (package / "DEBIAN/postinst").write_text(POSTINST)
    (package / "DEBIAN/postinst").chmod(0o755)
    (package / "usr/bin").mkdir(parents=True)
    (package / "usr/bin/job").write_text("#!/bin/sh\n")
    (package / "usr/bin/job").chmod(0o4755)
    path.mkdir()
    shell(f"dpkg-deb --root-owner-group --build {package} {path}/job.deb; chmod -R a+rX {path}")
    (path / "key").write_text("s3")
    _busybox(IMAGES / "busybox.tar")
    return path


def _build(user: str, dockerfile: str, name: str, how: str = "userns") -> Path:
    context = _context()
    (context / "Dockerfile").write_text(dockerfile)
    out = Path(f"/home/{user}/{name}.tar")
    begun = time.monotonic()
    text = shell(
        f"""cd; for base in busybox debian; do
            kpy images 2>/dev/null | grep -q base/$base || kpy import {IMAGES}/$base.tar base/$base:1
        done
        kpy build --progress=plain --isolation={how} -t {name} --secret id=key,src={context}/key -o type=oci,dest={out} {context}""",
        user=user, group=user, extra_groups=[], env={"HOME": f"/home/{user}", "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    say(f"build {name} as {user}, {how}: {time.monotonic() - begun:.0f} s")
    assert "emulated in part" not in text
    return out


def _described(archive: Path) -> dict[str, str]:
    """All paths of the layers, one over the other, and what is known of them but times."""
    found: dict[str, str] = {}
    with tarfile.open(archive) as tar:

        def load(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        def blob(digest: str) -> bytes:
            return load("blobs/" + digest.replace(":", "/"))

        manifest = json.loads(blob(json.loads(load("index.json"))["manifests"][0]["digest"]))
        if "manifests" in manifest:
            manifest = json.loads(blob(manifest["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(blob(layer["digest"]))) as inner:
                for member in inner:
                    name = member.name.removeprefix("./").rstrip("/")
                    head, _, tail = name.rpartition("/")
                    if tail.startswith(".wh."):
                        gone = f"{head}/{tail[4:]}".lstrip("/")
                        found = {path: line for path, line in found.items() if path != gone and not path.startswith(f"{gone}/")}
                        continue
                    file = inner.extractfile(member) if member.isreg() else None
                    content = hashlib.sha256(file.read()).hexdigest()[:16] if file else ""
                    xattrs = sorted((key, value) for key, value in member.pax_headers.items() if key.startswith("SCHILY"))
                    found[name] = (
                        f"{member.type!r} {member.mode:o} {member.uid}:{member.gid} {member.linkname} {member.devmajor}:{member.devminor} "
                        f"{content} {xattrs}"
                    )
    return found


def builds() -> None:
    """By users with and without subordinate ids: the same files, of the same owners."""
    many = _described(_build("many", DOCKERFILE, "many"))
    one = _described(_build("one", DOCKERFILE, "one"))
    differences = {path for path in {*many, *one} if many.get(path) != one.get(path)} - {"etc/shadow", "etc/shadow-"}
    for path in sorted(differences):
        say(f"FAULT differs: {path}: {many.get(path)} / {one.get(path)}")
    assert one["home/bob/private"].split()[1:3] == ["600", "1000:1000"], one["home/bob/private"]
    assert one["srv/shared"].split()[1:3] == ["3770", "1000:33"], one["srv/shared"]
    assert one["var/lib/job/a/b"].split()[1] == "2750", one["var/lib/job/a/b"]
    say(f"builds: {len(many)} paths, {len(differences)} differ")
    number = {"x86_64": 188, "aarch64": 5}[platform.machine()]  # setxattr
    devices = _described(_build("one", DEVICES.format(capability=CAPABILITY, number=number), "devices"))
    assert devices["null"].startswith("b'3' 640 5:6  1:3"), devices["null"]
    assert "security.capability" in devices["able"], devices["able"]


_LIVE = Path("/live")
_ROOT = f"setpriv --groups=0 --inh-caps=-all --bounding-set=-all,+{',+'.join(CAPABILITIES.split())}"
MODES = {
    "userns": ("many", "", ["--isolation", "userns"]),
    "userns, one id": ("one", "", ["--isolation", "userns"]),
    "live, any uid but 0": (
        "1000", f"setpriv --inh-caps=-all --bounding-set=-all,+sys_chroot,+setuid,+setgid --no-new-privs chroot --userspec=1000:1000 --groups= {_LIVE}", [],
    ),
    "live, as root": ("0", f"{_ROOT} chroot {_LIVE}", []),
    "chroot": ("root", _ROOT, ["--isolation", "chroot"]),
}  # fmt: skip
"""Who builds, what takes the rights from it that it would not have in a container, and kpy's flags."""


def _container() -> None:
    """kpy's image as docker would start it, in a mount namespace of our own, and what takes rights away there."""
    shell(
        f"mkdir -p {_LIVE} && tar -xf {CHECKOUT}/bundle.tar -C {_LIVE} && chmod 1777 {_LIVE}/tmp;"
        f"for name in proc dev sys; do mkdir -p {_LIVE}/$name; mount --rbind /$name {_LIVE}/$name; done;"
        f"mkdir -p {_LIVE}/kpy/driver; cp {CHECKOUT}/integration/promise_driver.py {CHECKOUT}/promise_probe {_LIVE}/kpy/driver"
    )


def _promises_of(mode: str) -> dict[str, object]:
    """What promise_driver.py says of it."""
    who, less, flags = MODES[mode]
    live = mode.startswith("live")
    top = Path("/kpy") if live else Path(f"/home/promises-{who}")
    real = _LIVE / "kpy" if live else top
    (real / "driver").mkdir(parents=True, exist_ok=True)
    names = {"store": "state", "logins": ".docker", "secrets": "secrets", "context": "workspace", "outside": "outside"}
    for name in names.values():
        (real / name).mkdir(exist_ok=True)
    job = {
        "kpy": "/kpy/bin/kpy" if live else str(KPY), "flags": flags, "places": {name: f"{top}/{path}" for name, path in names.items()},
        "probe": "/kpy/driver/promise_probe" if live else f"{CHECKOUT}/promise_probe", "program": "/kpy/bin" if live else f"{CHECKOUT}/kpy",
        "volume": "/srv/volume" if live else f"{top}/volume", "scratch": f"{top}/driver", "keyring": True,
    }  # fmt: skip
    (real / "driver/job.json").write_text(json.dumps(job))
    if live:
        (_LIVE / "srv/volume").mkdir(parents=True, exist_ok=True)
    owned = " ".join(str(real / name) for name in ("driver", *names.values()))
    shell(f"chown -R {who}:{who} {owned} {'' if live else top} {_LIVE / 'srv/volume' if live else ''}")
    environment = f"KPY_HOME={top}/state DOCKER_CONFIG={top}/.docker HOME={top} PATH={os.environ['PATH']} KPY_DISPOSABLE_ROOT=1"
    program = "/kpy/bin/python3 -ISXutf8 /kpy/driver/promise_driver.py" if live else f"python3 -I {CHECKOUT}/integration/promise_driver.py"
    change = "" if less else f"setpriv --reuid={who} --regid={who} --clear-groups"
    text = shell(f"cd /; env -i {environment} unshare --pid --fork --mount-proc={_LIVE if live else ''}/proc {less} {change} {program} {top}/driver/job.json")
    return dict(json.loads(text.strip().splitlines()[-1]))


def promises() -> None:
    """SECURITY.md says the truth on this kernel."""
    import promises as told

    if not (CHECKOUT / "bundle.tar").exists():
        say("promises: not tried, the bundle is of another architecture")
        return
    _container()
    answers: dict[str, dict[str, object]] = {}
    wrong = 0
    for cell in told.table():
        if cell.mode not in answers:
            answers[cell.mode] = _promises_of(cell.mode)
        answer, word = answers[cell.mode], told.PROBES[cell.attack]
        could = answer["could"][word]  # type: ignore[index]
        expected = cell.expected(platform.release(), alone=answer["alone"].get(word, False))  # type: ignore[attr-defined]
        if could is not expected:
            wrong += 1
            say(f"FAULT promises: {cell.attack} | {cell.mode}: {could}, not {expected}")
    say(f"promises: {len(told.table()) - wrong} of {len(told.table())} cells are so")


STEPS: dict[str, Callable[[], None]] = {
    "facts": facts, "smoke": smoke, "unit": unit, "emulation": emulation, "promises": promises, "builds": builds,
}  # fmt: skip


def main() -> None:
    """The program."""
    told = json.loads((CHECKOUT / "told.json").read_text())
    os.environ.update(PROGRAMS=str(told["programs"]), TESTS=told["tests"])
    prepare()
    for name, step in STEPS.items():
        if told["only"] and name not in told["only"]:
            continue
        begun = time.monotonic()
        try:
            step()
        except Exception as error:  # the other steps tell more
            say(f"FAULT {name}: {type(error).__name__}: {str(error)[-300:]!r}")
        if os.path.exists("/failed"):
            os.unlink("/failed")
            say(f"FAULT {name}: tests failed")
        say(f"{name}: {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
