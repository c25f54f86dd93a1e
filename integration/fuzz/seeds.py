"""First inputs for each target: Dockerfiles of the golden tests and of the conformance suite, and small tars and JSON."""

import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SUITE = CHECKOUT.parent / "shared" / "conformance" / "cases"


def dockerfiles() -> list[bytes]:
    """All that there are: the suite may be missing."""
    found = [*CHECKOUT.glob("tests/golden/*/Dockerfile"), *CHECKOUT.glob("integration/examples/*/Dockerfile")]
    if SUITE.is_dir():
        found += SUITE.glob("*/context/Dockerfile")
    return [path.read_bytes() for path in sorted(found)]


def tars() -> list[bytes]:
    """Two formats, every type of entry, long names, markers, links that lead out."""
    found = []
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        for group in (("d", "d/f", "d/l", "d/h"), ("out/x", "b/y", "../up", "/abs"), ("d/.wh.f", "d/.wh..wh..opq", ".wh.d")):
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode="w", format=form) as archive:
                for number, name in enumerate(group):
                    _add(archive, name, number)
                if form != tarfile.USTAR_FORMAT:
                    _add(archive, "long" * 40, 0)
            found.append(_ended(out.getvalue()))
    return found + _sparse()


def _add(archive: tarfile.TarFile, name: str, number: int) -> None:
    member = tarfile.TarInfo(name)
    member.type = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE)[number % 4] if name != "d" else tarfile.DIRTYPE
    member.linkname = ("", "../beside", "out/file", "")[number % 4]
    member.mode = 0o755
    data = b"content" if member.isreg() else b""
    member.size = len(data)
    if archive.format == tarfile.PAX_FORMAT:
        member.pax_headers = {"SCHILY.xattr.user.a": "b", "mtime": "1.5"}
    archive.addfile(member, io.BytesIO(data))


def _sparse() -> list[bytes]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("GNUSparseFile.0/s")
        data = b"1\n3\n4\n".ljust(512, b"\0") + b"data"
        member.size = len(data)
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": "9"}
        archive.addfile(member, io.BytesIO(data))
    return [_ended(out.getvalue())]


def _ended(data: bytes) -> bytes:
    """With two blocks of zeros at the end, and not the twenty of a record."""
    while data.endswith(bytes(3 * 512)):
        data = data[:-512]
    return data


def compressed() -> list[bytes]:
    """A text in each format."""
    text = b"some text " * 100
    try:
        import zstandard

        others = [zstandard.ZstdCompressor().compress(text)]
    except ImportError:
        others = []
    return [gzip.compress(text), bz2.compress(text), lzma.compress(text), gzip.compress(text) * 2, text, *others]


def _json(*values: object) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


_DIGEST = "sha256:" + "1" * 64
_DESCRIPTOR = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _DIGEST, "size": 2}
CONFIGS = _json(
    {
        "created": "2024-01-01T00:00:00Z", "author": "a", "architecture": "arm", "os": "linux", "variant": "v7",
        "config": {
            "Env": ["A=b"], "Cmd": ["sh"], "Entrypoint": ["e"], "User": "u", "WorkingDir": "/w", "Labels": {"a": "b"},
            "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}}, "StopSignal": "9", "Shell": ["/bin/sh", "-c"],
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1, "Retries": 2}, "OnBuild": ["RUN x"], "X": 1,
        },
        "rootfs": {"type": "layers", "diff_ids": [_DIGEST]}, "history": [{"created_by": "x", "empty_layer": True}],
    },
    {},
)  # fmt: skip
MANIFESTS = _json(
    {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": _DESCRIPTOR,
     "layers": [_DESCRIPTOR], "annotations": {"a": "b"}, "subject": _DESCRIPTOR},
    {"schemaVersion": 2, "manifests": [{**_DESCRIPTOR, "platform": {"os": "linux", "architecture": "amd64"}}]},
)  # fmt: skip
WORDS = [
    b"\0$A ${A:-x} ${P##*.} ${P%/*}", b"\1'a' \"b $A\" `x", b"\2${P//./-} ${P/#a/b}", b"\4${X:?no}", b"\x1f\\$A$",
    b"\0${A:-${P:-${E:+x}}}",
]  # fmt: skip
HEREDOCS = [b"EOF\nx\nEOF\n", b"-EOF cat\n\tx\n\tEOF\n", b"'A' 3<<B\nx\nA\ny\nB\n", b'"E F"\n#!/bin/sh\nE F\n']
IGNORES = [b"*\n!a/**\n**/b\nc?\n[a-c]\n\0a/b\0c/d\0ab", b"a\n!a/b\n# x\n!**/*.md\n\0a/b/c.md", b"/a/*/b\\*\n../x\n\0a/x/b*"]
VALUES = [
    b"type=cache,target=/c,id=x,sharing=locked,from=a,uid=0,mode=0755", b'"type=tmpfs","size=1g"', b"type=secret,env=A,required",
    b"git@github.com:a/b.git#main:dir", b"https://h/x.git?ref=a&subdir=b&checksum=" + b"1" * 40, b"80-90:1/tcp 1.2.3.4:80:80/udp",
    b"u=rwX,go+r-w", b"vendor.com/class=name,required", b"SIGTERM", b"sha256:" + b"1" * 64,
]  # fmt: skip
REFERENCES = [b"alpine", b"a.b:5000/c/d:t@" + _DIGEST.encode(), b"linux/arm/v7", b"[::1]:5/a__b", b"windows(10.0)/amd64"]
CHALLENGES = [
    b'Bearer realm="https://a/b",service="c",scope="repository:x:pull,push repository:h:5/y:*", error=d',
    b'Basic realm="a\\"b", Negotiate abc==, Digest a = b',
]  # fmt: skip


def of(target: str) -> list[bytes]:
    """The seeds of a target."""
    noise = random.Random(1)
    tables = {
        "expansion": WORDS, "heredocs": HEREDOCS, "ignore": IGNORES, "image_config": CONFIGS, "image_manifest": MANIFESTS,
        "values": VALUES, "reference": REFERENCES, "authenticate": CHALLENGES, "triggers": [b"RUN x\0COPY . /y\0ADD a b"],
        "ignore_simple": [noise.randbytes(54) for _ in range(50)], "tar_numbers": [noise.randbytes(21) for _ in range(200)],
    }  # fmt: skip
    if target == "dockerfile":
        return dockerfiles()
    if target in ("tar", "tree", "extraction"):
        return tars()
    if target == "compressed":
        return compressed()
    if target == "stored_index":
        from kpy.layer import index

        return [index.scan_layer(io.BytesIO(tars()[0])).encode()]
    return tables[target]
