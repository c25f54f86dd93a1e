"""Base images made from Debian packages, since no public registry is asked. As tars of a root file system, kept for a day,
and pushed to a registry with nothing but the standard library, so that no code under test has a hand in them."""

import gzip
import hashlib
import io
import json
import os
import platform
import random
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import packages
from servers import MissingError, tool, turn

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = b"root:x:0:\nnogroup:x:65534:\n"


@dataclass(frozen=True)
class Base:
    """What goes into a base image: a way to write the tar of each of its layers, and its configuration."""

    name: str
    write: Callable[[Path], None]
    command: tuple[str, ...] = ("/bin/sh",)
    more: tuple[Callable[[Path], None], ...] = ()


def suite() -> str:
    """The Debian release to make bases of: this machine's, if it is a Debian."""
    release = dict(
        line.rstrip().split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    return release.get("VERSION_CODENAME", "bookworm") if release.get("ID") == "debian" else "bookworm"


def _debian(*packages: str, hooks: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> Callable[[Path], None]:
    def write(target: Path) -> None:
        command = [tool("mmdebstrap"), "--quiet", "--variant=minbase", "--format=tar"]
        command += [f"--include={','.join(packages)}"] if packages else []
        for path in ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*"):
            command.append(f"--dpkgopt=path-exclude={path}")
        command += [f"--dpkgopt={option}" for option in options]
        command += [f"--customize-hook={hook}" for hook in hooks]
        command += [suite(), str(target)]
        subprocess.run(command, check=True, timeout=900)

    return write


def _installable(target: Path) -> None:
    """With what test_packages.py installs, in /srv."""
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        downloads, repository = Path(temporary, "downloads"), Path(temporary, "repository")
        downloads.mkdir()
        downloads.chmod(0o755)
        packages.download(downloads)
        repository.write_text(packages.REPOSITORY)
        # As in Debian's own image: nobody needs to find half an image after a crash.
        options = ("force-unsafe-io", *(f"path-exclude={path}" for path in packages.WITHOUT))
        _debian("ca-certificates", packages.GO, hooks=(f"sync-in {downloads} /", f'sh {repository} "$1"'), options=options)(target)


def _member(
    tar: tarfile.TarFile, name: str, kind: bytes, data: bytes = b"", mode: int = 0o755, link: str = ""
) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size, info.mtime = kind, mode, link, len(data), 1_600_000_000
    tar.addfile(info, io.BytesIO(data))


def _write_busybox(tar: tarfile.TarFile) -> None:
    program = next((path for path in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(path)), "")
    if not program:
        raise MissingError(
            "busybox-static is not installed: integration/run-tests installs what the tests need"
        )
    for directory in ("bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "var"):
        _member(tar, directory, tarfile.DIRTYPE)
    _member(tar, "tmp", tarfile.DIRTYPE, mode=0o1777)
    _member(tar, "etc/passwd", tarfile.REGTYPE, _PASSWD, 0o644)
    _member(tar, "etc/group", tarfile.REGTYPE, _GROUP, 0o644)
    _member(tar, "bin/busybox", tarfile.REGTYPE, Path(program).read_bytes())
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in sorted(set(applets) - {"busybox"}):
        _member(tar, f"bin/{applet}", tarfile.SYMTYPE, link="busybox")


def _busybox(target: Path) -> None:
    with tarfile.open(target, "w") as tar:
        _write_busybox(tar)


def _small_files(target: Path) -> None:
    """400 MB in 20,000 files, of which half compresses; a directory that is a link, and a user."""
    noise = random.Random(1)
    with tarfile.open(target, "w") as tar:
        _member(tar, "etc/passwd", tarfile.REGTYPE, _PASSWD + b"app:x:1000:1000:app:/:/bin/sh\n", 0o644)
        _member(tar, "usr/lib", tarfile.DIRTYPE)
        _member(tar, "lib", tarfile.SYMTYPE, link="usr/lib")
        for group in range(200):
            _member(tar, f"usr/lib/d{group}", tarfile.DIRTYPE)
            for number in range(100):
                data = noise.randbytes(10_000) + b"all work and no play " * 476
                _member(tar, f"usr/lib/d{group}/f{number}", tarfile.REGTYPE, data, 0o644)


def _large_files(target: Path) -> None:
    """400 MB in four files, of which half compresses; a deletion and a hard link."""
    noise = random.Random(2)
    with tarfile.open(target, "w") as tar:
        _member(tar, "opt", tarfile.DIRTYPE)
        _member(tar, "usr/lib/d0/.wh.f0", tarfile.REGTYPE)
        for number in range(4):
            data = b"".join(noise.randbytes(50_000) + b"and no play at all. " * 2500 for _ in range(1000))
            _member(tar, f"opt/large{number}", tarfile.REGTYPE, data, 0o644)
        _member(tar, "opt/again", tarfile.LNKTYPE, link="opt/large0")


# python3 in Debian refuses to let pip write beside dpkg; in an image there is nobody to protect.
_ALLOW_PIP = 'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED'
# As the images of buildah and podman: ids below the ranges of root and of a user, and names for uids that have none.
_PEERS_USERS = (
    'useradd --root "$1" --uid 1000 --home-dir /storage builder && install -d -m 1777 "$1"/storage && '
    'printf "builder:1:999\\nbuilder:1001:64535\\nroot:1:65535\\n" | tee "$1"/etc/subuid > "$1"/etc/subgid && '
    'chmod g+w "$1"/etc/passwd "$1"/etc/subuid "$1"/etc/subgid'
)
# Since Debian 13 docker's client is a package of its own.
_PEERS = ("buildah", "podman", "docker.io", *(() if suite() == "bookworm" else ("docker-cli", "docker-buildx")))

BASES = {
    base.name: base
    for base in (
        Base("base/busybox:1", _busybox),
        Base("base/debian:12", _debian("ca-certificates"), ("/bin/bash",)),
        Base("base/python:3", _debian("python3", "python3-pip", hooks=(_ALLOW_PIP,)), ("python3",)),
        Base("base/bundler:1", _debian("python3", "python3-pip", "patchelf", "binutils", "ca-certificates"), ("/bin/bash",)),
        Base("base/gcc:1", _debian("gcc", "libc6-dev"), ("/bin/bash",)),
        Base("base/packages:1", _installable, ("/bin/bash",)),
        Base("base/ssh:1", _debian("openssh-client"), ("/bin/bash",)),
        Base("base/peers:1", _debian(*_PEERS, "rootlesskit", "uidmap", "crun", "fuse-overlayfs", "ca-certificates", hooks=(_PEERS_USERS,))),
        Base("base/big:1", _busybox, more=(_small_files, _large_files)),
    )
}


def kept() -> Path:
    """Where base images are kept from one run to the next."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kpy-integration"


def layers(name: str, cache: Path) -> list[Path]:
    """The gzipped tars of a base, made at most once a day."""
    base = BASES[name]
    stem = f"{name.replace('/', '-').replace(':', '-')}-{suite()}-{ARCHITECTURE}"
    if not base.more:
        return [_packed(stem, base.write, cache)]
    return [_packed(f"{stem}-layer{number}", write, cache) for number, write in enumerate((base.write, *base.more))]


def rootfs(name: str, cache: Path) -> Path:
    """The gzipped tar of a base that has but one layer."""
    (path,) = layers(name, cache)
    return path


def _packed(stem: str, write: Callable[[Path], None], cache: Path) -> Path:
    day = time.strftime("%Y%m%d")
    path = cache / f"{stem}-{day}.tar.gz"
    with turn(f"base-{stem}"):
        if not path.exists():
            _make(stem, write, path)
    return path


def _make(stem: str, write: Callable[[Path], None], path: Path) -> None:
    cache = path.parent
    cache.mkdir(parents=True, exist_ok=True)
    plain = cache / f"{stem}.{os.getpid()}.tar"
    packed = plain.with_suffix(".tar.gz")
    try:
        write(plain)
        with (
            plain.open("rb") as source,
            packed.open("wb") as out,
            gzip.GzipFile("", "wb", 1, out, mtime=0) as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)
        packed.rename(path)
    finally:
        plain.unlink(missing_ok=True)
        packed.unlink(missing_ok=True)
    for old in cache.glob(f"{stem}-*.tar.gz"):
        if old != path:
            old.unlink()


def _digest(stream: BinaryIO) -> str:
    return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def push(host: str, name: str, cache: Path, to: str = "") -> str:
    """Make a base if need be, push it to a registry, under another name if `to` gives one, and return its reference."""
    return push_layers(host, to or name, layers(name, cache), {"Env": [PATH], "Cmd": list(BASES[name].command)})


def push_layers(host: str, name: str, packed: Sequence[Path], runtime: Mapping[str, object]) -> str:
    """Push an image of gzipped tars, whatever is in them, to a registry, and return its reference."""
    digests, diff_ids = [], []
    for layer in packed:
        with layer.open("rb") as file:
            digests.append(_digest(file))
        with gzip.open(layer) as plain:
            diff_ids.append(_digest(plain))  # type: ignore[arg-type]
    created = "2020-01-01T00:00:00Z"
    config = json.dumps(
        {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "created": created,
            "config": runtime,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created": created, "created_by": f"rootfs of {name}"} for _ in packed],
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor(
                "application/vnd.oci.image.config.v1+json", _digest(io.BytesIO(config)), len(config)
            ),
            "layers": [
                _descriptor("application/vnd.oci.image.layer.v1.tar+gzip", digest, layer.stat().st_size)
                for layer, digest in zip(packed, digests, strict=True)
            ],
        }
    ).encode()
    repository, _, tag = name.partition(":")
    url = f"http://{host}/v2/{repository}"
    for layer, digest in zip(packed, digests, strict=True):
        with layer.open("rb") as file:
            _upload(url, digest, file, layer.stat().st_size)
    _upload(url, _digest(io.BytesIO(config)), io.BytesIO(config), len(config))
    kind = "application/vnd.oci.image.manifest.v1+json"
    _put(f"{url}/manifests/{tag}", io.BytesIO(manifest), len(manifest), kind)
    return f"{host}/{name}"


def _descriptor(kind: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest, "size": size}


def _upload(url: str, digest: str, stream: BinaryIO, size: int) -> None:
    begin = urllib.request.Request(f"{url}/blobs/uploads/", method="POST", data=b"")
    with urllib.request.urlopen(begin, timeout=60) as answer:
        location = urllib.parse.urljoin(url, answer.headers["Location"])
    glue = "&" if "?" in location else "?"
    _put(f"{location}{glue}digest={digest}", stream, size, "application/octet-stream")


def _put(url: str, stream: BinaryIO, size: int, kind: str) -> None:
    headers = {"Content-Length": str(size), "Content-Type": kind}
    request = urllib.request.Request(url, method="PUT", data=stream, headers=headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        assert answer.status == 201, answer.status


if __name__ == "__main__":  # before the tests ask: integration/run-tests has a processor idle for as long
    for base in [name for name in BASES if name != "base/peers:1"]:  # which is for a table, and for no test
        layers(base, kept())
