"""Large images: what is not fetched, not unpacked and not uploaded, how long it takes, and how much memory.

The registry's access log is the witness.
"""

import contextlib
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from people import Kpy

SECOND_BUILD = 2.0  # seconds, for the whole command
PEAK = 150 << 10  # KiB
FILES = 100_000
MORE = 30 << 10  # KiB that so many files may cost more than 1,000
COPY_ONLY = """\
FROM {base}
WORKDIR /srv/app
COPY --chown=app . /lib/app/
COPY tool /bin/
ENV NAME={name}
CMD ["tool"]
"""
LINKED = """\
FROM {base}
COPY --link --chown=1000:1000 . /lib/app/
CMD ["sh"]
"""
WRITES_2_GB = """\
FROM {base}
RUN head -c 900000000 /dev/urandom > /random && yes "all work and no play" | head -c 600000000 > /text \
 && mkdir /many && for i in $(seq 5000); do head -c 100000 /dev/urandom > /many/$i; done
"""
MANY = """\
FROM {base}
COPY --chown=1000:1000 . /many/
COPY --link Dockerfile /many/
"""
UNPACKED = """\
FROM {base}
ADD many.tar /many/
"""
# In the process itself, and not of a child: no RUN counts.
MEASURED = """\
import sys
from kpy.__main__ import main  # with what it asks of the garbage collector
peak = sys.argv.pop(1)
code = main()
with open("/proc/self/status") as status, open(peak, "w") as out:
    out.write(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
sys.exit(code)
"""


@pytest.fixture
def application(workdir: Path) -> Callable[[str, str], Path]:
    """Makes a small application: a context with a Dockerfile."""

    def make(name: str, dockerfile: str) -> Path:
        path = workdir / name
        (path / "package").mkdir(parents=True)
        for number in range(50):
            (path / "package" / f"module{number}.py").write_text(f"print({name!r}, {number})\n" * 20)
        (path / "tool").write_text(f"#!/bin/sh\necho {name}\n")
        (path / "tool").chmod(0o755)
        (path / "Dockerfile").write_text(dockerfile)
        return path

    return make


@pytest.fixture
def roomy_kpy(make_kpy: Callable[[], Kpy]) -> Iterator[Kpy]:
    """kpy with an empty store that is removed at once: it holds gigabytes."""
    kpy = make_kpy()
    yield kpy
    shutil.rmtree(kpy.home, ignore_errors=True)


def _get(url: str) -> bytes:
    kind = "application/vnd.oci.image.manifest.v1+json"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": kind}), timeout=60) as answer:
        data: bytes = answer.read()
        return data


def _manifest(reference: str) -> dict[str, Any]:
    host, _, rest = reference.partition("/")
    name, _, tag = rest.rpartition(":")
    found: dict[str, Any] = json.loads(_get(f"http://{host}/v2/{name}/manifests/{tag}"))
    return found


def _layers(reference: str) -> list[str]:
    return [layer["digest"] for layer in _manifest(reference)["layers"]]


def _content(reference: str, digests: list[str]) -> dict[str, tuple[object, ...]]:
    """The files and links of some layers, as they lie over each other: all that is theirs but the time."""
    host, _, rest = reference.partition("/")
    found: dict[str, tuple[object, ...]] = {}
    for digest in digests:
        blob = _get(f"http://{host}/v2/{rest.rpartition(':')[0]}/blobs/{digest}")
        with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                content = hashlib.sha256(stream.read()).hexdigest() if stream else ""
                kind = (member.type, member.mode & 0o7777, member.uid, member.gid, member.linkname, content)
                found[member.name.strip("/").removeprefix("./")] = kind
    return found


def _fetched(registry: servers.Registry, digests: list[str]) -> list[str]:
    """The blobs among these that were downloaded, once for each time."""
    found = []
    for method, path, _ in registry.requests():
        found += [digest for digest in digests if method == "GET" and path.endswith(f"/blobs/{digest}")]
    return sorted(found)


def _uploaded(registry: servers.Registry, digests: list[str]) -> list[str]:
    names = [digest.replace(":", "%3A") for digest in digests] + digests
    return [
        path
        for method, path, _ in registry.requests()
        if method in ("PUT", "PATCH") and any(name in path for name in names)
    ]


def _mounted(registry: servers.Registry, source: str) -> int:
    wanted = (f"from={source}", f"from={source.replace('/', '%2F')}")
    return sum(
        method == "POST" and status == 201 and "mount=" in path and path.endswith(wanted)
        for method, path, status in registry.requests()
    )


def _snapshots(kpy: Kpy) -> list[Path]:
    return list(kpy.home.rglob("chains/*"))


def test_copy_only_on_a_large_base_moves_next_to_nothing(
    registry: servers.Registry, big_base: str, roomy_kpy: Kpy, application: Callable[[str, str], Path], workdir: Path
) -> None:
    """C08, N11, N36: layers are streamed once for their trees; nothing is unpacked; a second application is fast."""
    kpy, base = roomy_kpy, _layers(big_base)

    first = f"{registry.host}/scale/first:1"
    context = application("first", COPY_ONLY.format(base=big_base, name="first"))
    registry.forget_requests()
    kpy("build", "--push", "-t", first, context)
    assert _fetched(registry, base) == sorted(base)
    assert _uploaded(registry, base) == []
    assert _mounted(registry, "base/big") == len(base)
    assert _snapshots(kpy) == []
    assert _layers(first)[: len(base)] == base

    times = []
    for name in ("second", "third", "fourth"):
        other = application(name, COPY_ONLY.format(base=big_base, name=name))
        registry.forget_requests()
        start = time.monotonic()
        kpy("build", "--push", "-t", f"{registry.host}/scale/{name}:1", other)
        times.append(time.monotonic() - start)
        assert _fetched(registry, base) == []
        assert _uploaded(registry, base) == []
        assert _mounted(registry, "base/big") == len(base)
    assert _snapshots(kpy) == []
    assert min(times) <= SECOND_BUILD, times

    # The same by unpacking everything.
    unpacked = f"{registry.host}/scale/unpacked:1"
    _buildah(workdir, context, unpacked)
    ours = _content(first, _layers(first)[len(base) :])
    theirs = _content(unpacked, _layers(unpacked)[len(base) :])
    directories = {path for path, kind in theirs.items() if kind[0] == tarfile.DIRTYPE}
    assert {path: kind for path, kind in ours.items() if kind[0] != tarfile.DIRTYPE} == {
        path: kind for path, kind in theirs.items() if path not in directories
    }
    for path in ("usr/lib/app", "usr/lib/app/package", "srv/app"):
        assert ours[path] == theirs[path], path


def _buildah(workdir: Path, context: Path, target: str) -> None:
    place = ["--root", workdir / "b" / "root", "--runroot", workdir / "b" / "run"]
    tool = servers.tool("buildah")
    common = ["--tls-verify=false"]
    try:
        subprocess.run(
            [tool, *place, "bud", "--quiet", "--isolation", "chroot", *common, "-t", target, context],
            check=True,
            capture_output=True,
        )
        subprocess.run([tool, *place, "push", "--quiet", *common, target], check=True, capture_output=True)
    finally:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([tool, *place, "rmi", "--all", "--force"], check=False, capture_output=True)


def test_linked_copy_fetches_no_layer_even_at_first(
    registry: servers.Registry, big_base: str, kpy: Kpy, application: Callable[[str, str], Path]
) -> None:
    """C08: `COPY --link` with numeric owners knows nothing of the base."""
    target = f"{registry.host}/scale/linked:1"
    context = application("linked", LINKED.format(base=big_base))
    base = _layers(big_base)
    registry.forget_requests()
    kpy("build", "--push", "-t", target, context)
    assert _fetched(registry, base) == []
    assert _uploaded(registry, base) == []
    assert _mounted(registry, "base/big") == len(base)
    assert _snapshots(kpy) == []
    assert _layers(target)[: len(base)] == base


def test_two_gigabytes_of_changes_need_little_memory(
    registry: servers.Registry, busybox_base: str, roomy_kpy: Kpy, workdir: Path
) -> None:
    """L11: snapshot, compression and push of a RUN that writes 2 GB."""
    context = workdir / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(WRITES_2_GB.format(base=busybox_base))
    kpy, peak = roomy_kpy, roomy_kpy.home / "peak"
    python = str(Path(sys.executable))
    measured = Kpy(python, kpy.user, kpy.home)
    target = f"{registry.host}/scale/two-gigabytes:1"
    measured("-c", MEASURED, peak, "build", "--push", "-t", target, context, timeout=1200)
    assert _manifest(target)["layers"][-1]["size"] > 1_400_000_000
    assert int(peak.read_text()) < PEAK


def _many(path: Path, count: int) -> None:
    """A context of so many small files, and some more that are left out."""
    for number in range(count):
        directory = path / f"d{number // 1000}" / f"e{number // 50 % 20}"
        if number % 50 == 0:
            directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}.txt").write_text(f"{number}\n")
        if number % 100 == 0:
            (directory / f"f{number}.log").write_text("left out\n")
    (path / ".dockerignore").write_text("**/*.log\nnode_modules\n!d0/e0/f0.log\n")


def _peak(kpy: Kpy, context: Path, *argv: str) -> int:
    """The most memory that the process of a build had, in KiB."""
    measured, peak = Kpy(str(Path(sys.executable)), kpy.user, kpy.home), kpy.home / "peak"
    measured("-c", MEASURED, peak, "build", "-q", *argv, context, timeout=1200)
    return int(peak.read_text())


def test_a_context_of_many_files_needs_no_more_memory(
    registry: servers.Registry, busybox_base: str, make_kpy: Callable[[], Kpy], workdir: Path
) -> None:
    """C07, C31, C33, G01, L11: COPY of 100,000 files, cold, cached, and changed; and as an archive for ADD."""
    copied, unpacked, images = {}, {}, {}
    for count in (1000, FILES):
        context, kpy = workdir / str(count), make_kpy()
        context.mkdir()
        _many(context, count)
        (context / "Dockerfile").write_text(MANY.format(base=busybox_base))
        images[count] = f"{registry.host}/scale/many:{count}"
        copied[count] = [_peak(kpy, context, "--push", "-t", images[count]) for _ in range(2)]
        (context / "d0/e0/f0.txt").write_text("changed\n")
        copied[count].append(_peak(kpy, context, "--push", "-t", images[count]))
        archive = workdir / f"archive-{count}"
        archive.mkdir()
        with tarfile.open(archive / "many.tar", "w") as tar:
            tar.add(context, ".")
        (archive / "Dockerfile").write_text(UNPACKED.format(base=busybox_base))
        unpacked[count] = [_peak(make_kpy(), archive, "--output", "type=cacheonly")]
    assert all(large < small + MORE for large, small in zip(copied[FILES], copied[1000], strict=True)), copied
    assert unpacked[FILES][0] < unpacked[1000][0] + MORE, unpacked
    found = _content(images[FILES], _layers(images[FILES])[1:])
    files = [path for path, kind in found.items() if kind[0] == tarfile.REGTYPE]
    assert sorted(path for path in files if not path.endswith(".txt")) == [
        "many/.dockerignore", "many/Dockerfile", "many/d0/e0/f0.log"
    ]  # fmt: skip
    assert len(files) == FILES + 3
    assert found["many/d0/e0/f0.txt"][5] == hashlib.sha256(b"changed\n").hexdigest()
    assert found["many/d99/e19/f99999.txt"][2:4] == (1000, 1000)
