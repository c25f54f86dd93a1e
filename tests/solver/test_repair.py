"""Blobs of the store with the right size and a wrong content: fetched or built again, in the same build, and said once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kpy.app.build import _made
from kpy.app.options import BuildOptions, OutputSpec
from kpy.errors import ContentError, DigestMismatchError
from kpy.events import Warned
from kpy.exporter.base import Artifact, ExportResult
from kpy.layer.extract import ExtractOptions
from kpy.oci.config import RuntimeConfig
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.solver.content import Layers
from kpy.solver.rewrite import Rewrite
from kpy.store.store import Store
from kpy.util.cancel import Cancel
from tests.fakes import FakeMachine, KnownImages, RecordingReporter, file_item
from tests.plan.planning import planned
from tests.solver.building import Builder, Built

FROM_BASE = "FROM base\nCOPY --from=base /etc/passwd /copy\nRUN make\n"
STAGES = "FROM base AS one\nRUN make\nFROM base\nRUN other\nCOPY --from=one /ran /copied\n"


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    made = Builder(tmp_path / "one")
    yield made
    made.close()


def spoil(store: Store, blob: Descriptor, how: str = "other bytes") -> None:
    path = Path(store.images.blobs.path(blob.digest))
    data = path.read_bytes()
    path.write_bytes(bytes(len(data)) if how == "zeros" else data[:-1] + bytes([data[-1] ^ 1]))


def is_whole(store: Store, blob: Descriptor) -> bool:
    return Digest.of(Path(store.images.blobs.path(blob.digest)).read_bytes()) == blob.digest


def warnings(reporter: RecordingReporter) -> list[str]:
    return [event.message for event in reporter.of(Warned)]


def forget_files(builder: Builder) -> None:
    """So that a copy has to read its source again."""
    for record in builder.services().store.cache.iterdir():
        record.unlink()


@pytest.mark.parametrize("how", ["zeros", "other bytes"])
def test_a_broken_layer_of_a_base_is_fetched_again(builder: Builder, how: str) -> None:
    first = builder.build(FROM_BASE)
    base = first.image.chain[0].descriptor
    spoil(first.services.store, base, how)
    forget_files(builder)
    second = builder.build(FROM_BASE)
    assert second.digests == first.digests
    assert is_whole(second.services.store, base)
    assert warnings(second.reporter) == [f"blob {base.digest} in the store was broken; it is fetched or built again"]
    assert warnings(builder.build(FROM_BASE).reporter) == []


@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.parametrize("how", ["zeros", "other bytes"])
def test_a_broken_layer_that_a_run_made_is_made_again(builder: Builder, how: str, jobs: int) -> None:
    builder.machine = FakeMachine(capacity=jobs)
    first = builder.build(STAGES)
    made = {sum(entry.size for entry in first.services.layers.layer_tree(layer).entries): layer for layer in builder.machine.committed}
    one = made[len("make")]
    spoil(first.services.store, one.descriptor, how)
    for record in first.services.store.cache.iterdir():  # only the copy is asked for again
        if b"COPY" in record.read_bytes():
            record.unlink()
    builder.machine = FakeMachine(capacity=jobs)
    second = builder.build(STAGES)
    assert second.digests == first.digests
    assert builder.machine.texts == ["make"], "the other run is cached"
    assert is_whole(second.services.store, one.descriptor)
    assert warnings(second.reporter) == [f"blob {one.descriptor.digest} in the store was broken; it is fetched or built again"]


class Exporting:
    """Reads all blobs of an image, as every exporter does."""

    def __init__(self) -> None:
        self.calls = 0

    def export(self, artifact: Artifact, files: object, epoch: int | None) -> list[ExportResult]:
        self.calls += 1
        for image in artifact.images:
            for blob in (image.manifest.config, *image.manifest.layers):
                with image.content.open(blob) as stream:
                    while stream.read(1 << 16):
                        pass
        return []


def export(builder: Builder, text: str, exports: Exporting, options: BuildOptions) -> RecordingReporter:
    services = builder.services()
    _made(planned(text, builder.images), Rewrite(), options, services, exports)  # type: ignore[arg-type]
    return builder.reporter


def exported_and_spoiled(builder: Builder) -> tuple[Store, Descriptor]:
    built: Built = builder.build("FROM base\nRUN make\n")
    blob = built.image.chain[-1].descriptor
    spoil(built.services.store, blob)
    return built.services.store, blob


def test_what_only_the_export_finds_is_made_again(builder: Builder) -> None:
    store, blob = exported_and_spoiled(builder)
    exports = Exporting()
    assert len(warnings(export(builder, "FROM base\nRUN make\n", exports, BuildOptions("")))) == 1
    assert exports.calls == 2
    assert is_whole(store, blob)
    assert builder.machine.texts == ["make", "make"]


def test_an_export_to_standard_output_is_not_begun_anew_but_the_next_build_works(builder: Builder) -> None:
    store, blob = exported_and_spoiled(builder)
    options = BuildOptions("", outputs=(OutputSpec("oci", "-"),))
    with pytest.raises(DigestMismatchError) as caught:
        export(builder, "FROM base\nRUN make\n", Exporting(), options)
    assert caught.value.hint == "what was broken is removed: build again"
    export(builder, "FROM base\nRUN make\n", Exporting(), options)
    assert is_whole(store, blob)


def test_a_disk_that_breaks_everything_ends_the_build(builder: Builder) -> None:
    builder.build("FROM base\nRUN make\n")
    store = builder.services().store

    class Disk(Exporting):
        def export(self, artifact: Artifact, files: object, epoch: int | None) -> list[ExportResult]:
            spoil(store, artifact.images[0].manifest.layers[-1])
            return super().export(artifact, files, epoch)

    disk = Disk()
    with pytest.raises(DigestMismatchError):
        export(builder, "FROM base\nRUN make\n", disk, BuildOptions(""))
    assert disk.calls == 2


def test_content_that_never_was_right_is_an_error_as_before(builder: Builder) -> None:
    with pytest.raises(ContentError):
        builder.images.content.blobs = {digest: bytes(len(data)) for digest, data in builder.images.content.blobs.items()}
        builder.build(FROM_BASE)
    assert warnings(builder.reporter) == []


@pytest.mark.parametrize("how", ["zeros", "other bytes"])
def test_unpacking_finds_it_and_a_second_try_works(tmp_path: Path, how: str) -> None:
    images = KnownImages()
    image = images.add("x", RuntimeConfig(), [file_item("a", b"one")])
    store, report = Store(tmp_path / "store"), RecordingReporter()
    with Cancel() as cancel:
        layers = Layers(store, report, cancel)
        layers.add_image(image, "x")
        layers.tree(image.chain)
        spoil(store, image.chain[0].descriptor, how)
        for number in "12":
            (tmp_path / number).mkdir()
        with pytest.raises(ContentError):
            layers.extract(image.chain, str(tmp_path / "1"), ExtractOptions(owners=False))
        assert layers.repair()
        assert not layers.repair()
        layers.extract(image.chain, str(tmp_path / "2"), ExtractOptions(owners=False))
    assert (tmp_path / "2/a").read_bytes() == b"one"
    assert len(warnings(report)) == 1


def test_what_is_whole_stays_and_a_blob_that_was_replaced_meanwhile_too(tmp_path: Path) -> None:
    blobs = Store(tmp_path).images.blobs
    good, bad, unread = (blobs.put_bytes(text) for text in (b"good", b"bad", b"unread"))
    for blob in bad, unread:
        Path(blobs.path(blob.digest)).write_bytes(bytes(blob.size))
    for blob in good, bad:
        blobs.open(blob).close()
    assert blobs.remove_broken() == (bad,)
    assert (blobs.has(good), blobs.has(bad), blobs.has(unread)) == (True, False, True)
    assert blobs.remove_broken() == ()
