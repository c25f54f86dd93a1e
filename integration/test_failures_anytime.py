"""SIGTERM at random moments of builds of many kinds: each ends at once, leaves nothing half-written, and the next build gives
the image that it would have given (issue 11, section 4). KPY_TEST_SEED repeats a run."""

import gzip
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from faulty import Delay, RegistryServer, serve
from people import Kpy
from test_failures_interrupt import assert_clean

SEED = int(os.environ.get("KPY_TEST_SEED", "20261130"))
PROMISED = 1.0  # seconds
NOISE = 3  # times as much on a machine that does other things
TIMES = 4
TERA = 1 << 40


@dataclass(frozen=True)
class Kind:
    """A build. `argv` after `kpy`; `stdin`: a pipe that nobody fills; `endless`: it would never end by itself."""

    argv: tuple[str, ...]
    endless: bool = False
    stdin: bool = False
    stdout: bool = False  # a pipe that nobody empties
    path: str = ""
    same: bool = True  # the same digest again: not where a RUN makes files, which have its time


Make = Callable[[Path, str], Kind]


def dockerfile(place: Path, text: str) -> str:
    (place / "Dockerfile").write_text(text)
    return str(place)


def layout(place: Path, layers: list[bytes]) -> str:
    """An image of these tars as an OCI layout."""
    blobs = place / "base" / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, kind: str) -> dict[str, object]:
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{name}", "size": len(data)}

    packed = [blob(gzip.compress(layer, 1, mtime=0), "layer.v1.tar+gzip") for layer in layers]
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": {}}
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "config.v1+json"), "layers": packed,
    }  # fmt: skip
    entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (place / "base" / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (place / "base" / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"base=oci-layout://{place}/base"


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sparse_tar(size: int) -> bytes:
    """A tar of one file of so many bytes that are all a hole."""
    info = tarfile.TarInfo("hole")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size), "GNU.sparse.name": "hole"}
    info.size = 512
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"0\n".ljust(512, b"\0")))
    return out.getvalue()


def files(place: Path, count: int) -> None:
    for number in range(count):
        path = place / "files" / str(number % 100) / str(number)
        if number < 100:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"%d" % number)


def many_layers(place: Path, base: str) -> Kind:
    named = layout(place, [tar({f"f{number}": b"x"}) for number in range(400)] + [tar({"bin/sh": b"x"})])
    return Kind(("build", "--build-context", named, dockerfile(place, "FROM base\nWORKDIR /w\n")))


def many_layers_unpacked(place: Path, base: str) -> Kind:
    layers = [tar({f"{number}/f{file}": b"x" for file in range(60)}) for number in range(400)]
    text = f"FROM {base} AS tools\nFROM base\nCOPY --from=tools /bin /bin\nRUN true\n"
    return Kind(("build", "--build-context", layout(place, layers), dockerfile(place, text)), same=False)


def hole_in_a_layer(place: Path, base: str) -> Kind:
    named = layout(place, [sparse_tar(60 << 30)])
    return Kind(("build", "--max-layer-ratio=0", "--build-context", named, dockerfile(place, "FROM base\nWORKDIR /w\n")), endless=True)


def hole_that_is_unpacked(place: Path, base: str) -> Kind:
    named = layout(place, [sparse_tar(60 << 30)])
    return Kind(("build", "--max-layer-ratio=0", "--build-context", named, dockerfile(place, "FROM base\nRUN [\"/x\"]\n")), endless=True)


def hole_in_the_context(place: Path, base: str) -> Kind:
    os.truncate(os.open(place / "hole", os.O_CREAT | os.O_WRONLY), TERA)
    return Kind(("build", dockerfile(place, "FROM scratch\nCOPY hole /\n")), endless=True)


def many_files(place: Path, base: str) -> Kind:
    files(place, 12_000)
    return Kind(("build", dockerfile(place, "FROM scratch\nCOPY files /\n")))


def many_files_and_patterns(place: Path, base: str) -> Kind:
    files(place, 12_000)
    (place / ".dockerignore").write_text("".join(f"**/*{number}*a\n" for number in range(40)))
    return Kind(("build", dockerfile(place, "FROM scratch\nCOPY files /\n")))


def question(place: Path, base: str) -> Kind:
    files(place, 12_000)
    (place / ".dockerignore").write_text("*/1\n")
    return Kind(("build", "--call=context", dockerfile(place, "FROM scratch\n")))


def context_that_never_comes(place: Path, base: str) -> Kind:
    return Kind(("build", "-"), endless=True, stdin=True)


def import_that_never_comes(place: Path, base: str) -> Kind:
    return Kind(("import", "-", "x:1"), endless=True, stdin=True)


def hole_in_an_archive(place: Path, base: str) -> Kind:
    (place / "a.tar").write_bytes(sparse_tar(60 << 30))
    return Kind(("build", dockerfile(place, "FROM scratch\nADD a.tar /\n")), endless=True)


def bomb(place: Path, base: str) -> Kind:
    """An archive of empty members: gzip that never gives a byte."""
    (place / "a.tar.gz").write_bytes(gzip.compress(tar({"a": b"x"})) + gzip.compress(b"", mtime=0) * 3_000_000)
    return Kind(("build", dockerfile(place, "FROM scratch\nADD a.tar.gz /\n")))


def run_of_files(place: Path, base: str) -> Kind:
    text = f"FROM {base}\nRUN mkdir /d && cd /d && seq 1 20000 | xargs touch\nRUN rm -r /d && touch /e\n"
    return Kind(("build", dockerfile(place, text)), same=False)


def run_of_a_hole(place: Path, base: str) -> Kind:
    return Kind(("build", dockerfile(place, f"FROM {base}\nRUN dd if=/dev/zero of=/hole bs=1M count=0 seek=2097152\n")), endless=True)


def run_of_a_hole_zstd(place: Path, base: str) -> Kind:
    path = dockerfile(place, f"FROM {base}\nRUN dd if=/dev/zero of=/hole bs=1M count=0 seek=2097152\n")
    return Kind(("build", "-o", f"type=oci,dest={place}/out,compression=zstd,compression-level=22", path), endless=True)


def run_of_noise_zstd(place: Path, base: str) -> Kind:
    path = dockerfile(place, f"FROM {base}\nRUN dd if=/dev/urandom of=/noise bs=1M count=150\n")
    return Kind(("build", "-o", f"type=oci,dest={place}/out,compression=zstd,compression-level=22", path), endless=True)


def caches(place: Path, base: str) -> Kind:
    text = f"FROM {base}\nRUN --mount=type=cache,target=/c dd if=/dev/zero of=/c/x bs=1M count=100 && mkdir -p /c/d && cd /c/d && seq 1 5000 | xargs touch\n"
    return Kind(("build", "--no-cache", dockerfile(place, text)), same=False)


def squash(place: Path, base: str) -> Kind:
    text = f"FROM {base}\nRUN dd if=/dev/zero of=/a bs=1M count=150\nRUN dd if=/dev/zero of=/b bs=1M count=150\n"
    return Kind(("build", "--squash", "-o", f"type=oci,dest={place}/out", dockerfile(place, text)), same=False)


def image(place: Path) -> str:
    files(place, 3000)
    (place / "noise").write_bytes(random.Random(1).randbytes(120 << 20))
    return dockerfile(place, "FROM scratch\nCOPY noise /\nCOPY files /f\n")


def output_oci(place: Path, base: str) -> Kind:
    return Kind(("build", "-o", f"type=oci,dest={place}/out.tar", image(place)))


def output_layout(place: Path, base: str) -> Kind:
    return Kind(("build", "-o", f"type=oci,tar=false,dest={place}/out", image(place)))


def output_tar(place: Path, base: str) -> Kind:
    return Kind(("build", "-o", f"type=tar,dest={place}/out.tar", image(place)))


def output_local(place: Path, base: str) -> Kind:
    return Kind(("build", "-o", f"type=local,dest={place}/out", image(place)))


def output_that_nobody_takes(place: Path, base: str) -> Kind:
    return Kind(("build", "-o", "type=tar,dest=-", image(place)), endless=True, stdout=True)


def fifo_that_nobody_reads(place: Path, base: str) -> Kind:
    os.mkfifo(place / "fifo", 0o666)
    os.chmod(place / "fifo", 0o666)
    return Kind(("build", "-o", f"type=oci,dest={place}/fifo", dockerfile(place, "FROM scratch\nCOPY Dockerfile /\n")), endless=True)


def engine_that_sleeps(place: Path, base: str) -> Kind:
    (place / "programs").mkdir()
    (place / "programs" / "docker").write_text("#!/bin/sh\n[ $1 = version ] && exec echo 1\nexec sleep 1000\n")
    (place / "programs" / "docker").chmod(0o755)
    return Kind(("build", "--load", "-t", "x:1", image(place)), endless=True, path=f"{place}/programs")


def engine_that_never_answers(place: Path, base: str) -> Kind:
    (place / "programs").mkdir()
    (place / "programs" / "docker").write_text("#!/bin/sh\nexec sleep 1000\n")
    (place / "programs" / "docker").chmod(0o755)
    return Kind(("build", "--load", "-t", "x:1", dockerfile(place, "FROM scratch\n")), endless=True, path=f"{place}/programs")


def helper_that_sleeps(place: Path, base: str) -> Kind:
    (place / "programs").mkdir()
    (place / "programs" / "docker-credential-slow").write_text("#!/bin/sh\nexec sleep 1000\n")
    (place / "programs" / "docker-credential-slow").chmod(0o755)
    (place / "config.json").write_text('{"credsStore": "slow"}')
    return Kind(("build", dockerfile(place, "FROM registry.invalid/x\nRUN true\n")), endless=True, path=f"{place}/programs")


KINDS: tuple[Make, ...] = (
    many_layers, many_layers_unpacked, hole_in_a_layer, hole_that_is_unpacked, hole_in_the_context, many_files,
    many_files_and_patterns, question, context_that_never_comes, import_that_never_comes, hole_in_an_archive, bomb, run_of_files,
    run_of_a_hole, run_of_a_hole_zstd, run_of_noise_zstd, caches, squash, output_oci, output_layout, output_tar, output_local,
    output_that_nobody_takes, fifo_that_nobody_reads, engine_that_sleeps, engine_that_never_answers, helper_that_sleeps,
)  # fmt: skip


class Build:
    """One build under way."""

    def __init__(self, kpy: Kpy, kind: Kind, place: Path) -> None:
        variables = {"DOCKER_CONFIG": str(place)}
        options = kpy.with_env(**variables, **({"PATH": f"{kind.path}:/usr/bin:/bin"} if kind.path else {})).spawn()
        self.log = place / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [kpy.program, *kind.argv], cwd=kpy.home, start_new_session=True, stderr=log,
                stdin=subprocess.PIPE if kind.stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE if kind.stdout else log, **options,
            )  # fmt: skip

    def end_after(self, seconds: float) -> tuple[int, float]:
        """The exit code, and how long it took to end from SIGTERM on; 0 if it had ended before."""
        try:
            return self.process.wait(seconds), 0.0
        except subprocess.TimeoutExpired:
            pass
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        took = time.monotonic() - start
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return code, took


def whole_run(kpy: Kpy, kind: Kind, place: Path) -> tuple[float, str]:
    start = time.monotonic()
    build = Build(kpy, kind, place)
    assert build.process.wait(300) == 0, build.log.read_text()
    digest = [line for line in build.log.read_text().splitlines() if line.startswith("sha256:")][-1:]
    return time.monotonic() - start, "".join(digest)


def whole(kpy: Kpy, *, directories: bool) -> list[str]:
    """Half-written files; and blobs and indexes that are not what their names say."""
    found = []
    for directory, names, written in os.walk(kpy.home):
        names[:] = [name for name in names if not name.endswith(".tmp.d")]
        found += [f"{directory}/{name}" for name in written if ".tmp" in name and directories]
        if directory.endswith("blobs/sha256"):
            for name in written:
                data = (Path(directory) / name).read_bytes()
                if len(name) == 64 and hashlib.sha256(data).hexdigest() != name:
                    found.append(f"{directory}/{name}")
    return found


def beside(place: Path) -> Path:
    (place / "other").mkdir()
    return place / "other"


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_build_ends_at_once(make: Make, make_kpy: Callable[[], Kpy], workdir: Path, busybox_base: str) -> None:
    choose = random.Random(f"{SEED} {make.__name__}")
    kind = make(workdir, busybox_base)
    os.chmod(workdir, 0o777)
    other = dockerfile(beside(workdir), f"FROM {busybox_base}\nRUN true\n")
    seconds, digest = (6.0, "") if kind.endless else whole_run(make_kpy(), kind, workdir)
    for _ in range(TIMES):
        kpy = make_kpy()
        moment = choose.uniform(0.2, max(seconds * 0.9, 0.4))
        code, took = Build(kpy, kind, workdir).end_after(moment)
        print(f"{make.__name__}: SIGTERM after {moment:.2f} s of {seconds:.1f} s: exit code {code} after {took:.2f} s (seed {SEED})")
        # Before kpy has begun to work, the signal itself ends it; and at the end it may come too late.
        allowed = (143, -signal.SIGTERM) if kind.endless else (143, -signal.SIGTERM, 0)
        assert code in allowed, (workdir / "log").read_text()
        assert took < PROMISED * NOISE
        # A directory of many files may be left, for the next build to remove; and all that was half done, where it was late.
        assert whole(kpy, directories=took <= 0.7) == []
        if not kind.endless:
            again = whole_run(kpy, kind, workdir)[1]
            assert again == digest or not kind.same
        kpy("build", "--no-cache", other)
        assert_clean(kpy)


@pytest.mark.parametrize("place", ["pull", "push"])
def test_a_registry_that_hangs(kpy: Kpy, workdir: Path, place: str) -> None:
    with RegistryServer() as server:
        base = serve(server)
        name = f"{server.host}/app:1"
        if place == "pull":
            server.fault(Delay(40), path=base.layer, times=9)
            kind = Kind(("build", dockerfile(workdir, f"FROM {base.name}\nRUN true\n")))
        else:
            server.fault(Delay(40), method="PUT", path="/blobs/uploads/", times=9)
            kind = Kind(("build", "--push", "-t", name, dockerfile(workdir, "FROM scratch\nCOPY Dockerfile /\n")))
        code, took = Build(kpy, kind, workdir).end_after(2.5)
        print(f"{place}: exit code {code} after {took:.2f} s")
        assert code == 143
        assert took < PROMISED * NOISE
        assert_clean(kpy)
