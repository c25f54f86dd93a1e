"""What outputs and secrets ask for, and the images of the local store as bases."""

import io
from pathlib import Path

import pytest

from kpy.app.options import BuildOptions, Environment, OutputSpec, SecretSpec
from kpy.app.outputs import compression
from kpy.app.resolver import Resolver
from kpy.app.secrets import MAX_SECRET, read_secret
from kpy.errors import ContentError, UsageError
from kpy.layer.compress import Compression
from kpy.oci.platform import Platform
from kpy.plan.model import ResolveImage
from kpy.store.store import Store
from tests.fakes import KnownImages, RecordingReporter

_: type[ResolveImage]
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def environment(directory: Path, **variables: str) -> Environment:
    return Environment(variables, str(directory), io.BytesIO(), io.BytesIO())


def options(*outputs: dict[str, str], **more: object) -> BuildOptions:
    return BuildOptions(".", outputs=tuple(OutputSpec("image", attrs=attrs) for attrs in outputs), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([], Compression("gzip")),
        ([{}], Compression("gzip")),
        ([{"compression": "zstd"}], Compression("zstd")),
        ([{"compression": "zstd", "compression-level": "7"}, {}], Compression("zstd", 7)),
        ([{"compression-level": "9"}], Compression("gzip", 9)),
        ([{"compression": "uncompressed", "compression-level": "3"}], Compression("none")),
        ([{"compression": "gzip"}, {"compression": "gzip"}], Compression("gzip")),
    ],
)
def test_compression(outputs: list[dict[str, str]], expected: Compression) -> None:
    assert compression(options(*outputs)) == expected


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([{"compression": "brotli"}], "unsupported compression"),
        ([{"compression-level": "x"}], "not a number"),
        ([{"compression-level": "²"}], "not a number"),
        ([{"compression-level": "9" * 5000}], "not a number"),
        ([{"compression-level": "99"}], "no level"),
        ([{"compression": "gzip"}, {"compression": "zstd"}], "different compressions"),
    ],
)
def test_compressions_that_cannot_be(outputs: list[dict[str, str]], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        compression(options(*outputs))


def test_secrets(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"hunter2\n\xff")
    place = environment(tmp_path, TOKEN="t\udcff")
    assert read_secret(SecretSpec("a", src="s"), place) == b"hunter2\n\xff"
    assert read_secret(SecretSpec("a", src=str(tmp_path / "s")), place) == b"hunter2\n\xff"
    assert read_secret(SecretSpec("a", env="TOKEN"), place) == b"t\xff"
    assert "TOKEN" not in repr(place)


def test_secrets_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * (MAX_SECRET + 1))
    place = environment(tmp_path)
    for spec, words in (
        (SecretSpec("a", src="no"), "secret a: cannot read no"),
        (SecretSpec("a", src="."), r"secret a: cannot read \."),
        (SecretSpec("a", src="big"), "larger than 500 KiB"),
        (SecretSpec("a", env="NO"), "environment variable NO is not set"),
    ):
        with pytest.raises(UsageError, match=words):
            read_secret(spec, place)


class NoClient:
    """A registry client that nobody may ask."""

    def repository(self, reference: object) -> object:
        raise AssertionError(f"asked for {reference}")


@pytest.fixture
def resolver(tmp_path: Path) -> Resolver:
    """One that has `local/base:1` for amd64 in its store, and no registry."""
    store = Store(tmp_path / "store")
    images = KnownImages()
    made = images.add("x")
    for blob in (made.manifest.config, *made.manifest.layers):
        with images.content.open(blob) as stream:
            store.images.put(stream, blob)
    found = store.images.put_manifest(made.manifest.raw, made.manifest.media_type)
    store.images.tag(found, "docker.io/local/base:1")
    return Resolver(store, NoClient(), RecordingReporter(), pull=False)  # type: ignore[arg-type]


def test_f14_the_local_store_comes_first(resolver: Resolver) -> None:
    base = resolver("local/base:1", AMD64)
    assert base is resolver("docker.io/local/base:1", AMD64), "each name once in a build"
    assert base.name == "local/base:1"
    assert base.digest == base.image.manifest.descriptor.digest
    assert len(base.image.chain) == 1
    assert not base.other_platform
    pinned = resolver(f"local/base@{base.digest}", AMD64)
    assert pinned.digest == base.digest


def test_n24_a_single_image_for_another_platform(resolver: Resolver) -> None:
    assert resolver("local/base:1", ARM64).other_platform


def test_names_that_are_none(resolver: Resolver) -> None:
    with pytest.raises(UsageError, match="invalid reference"):
        resolver("up/PER", AMD64)


def test_an_image_whose_layers_do_not_fit_its_configuration(tmp_path: Path) -> None:
    import dataclasses

    from kpy.oci.manifest import build_manifest

    store = Store(tmp_path / "store")
    images = KnownImages()
    made = images.add("x")
    config = dataclasses.replace(made.config, diff_ids=()).encode()
    described = store.images.blobs.put_bytes(config, made.manifest.config.media_type)
    manifest = build_manifest(described, made.manifest.layers)
    found = store.images.put_manifest(manifest.raw, manifest.media_type)
    store.images.tag(found, "docker.io/library/x:latest")
    with pytest.raises(ContentError):
        Resolver(store, NoClient(), RecordingReporter(), pull=False)("x", AMD64)  # type: ignore[arg-type]
