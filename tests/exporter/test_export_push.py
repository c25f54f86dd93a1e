"""type=registry: the order of things, what is uploaded, and that no name moves when anything fails (N10-N12, N28)."""

import threading

import pytest

from kpy.errors import InterruptedBuildError, RegistryError, UsageError
from kpy.events import StepFinished, StepProgress
from kpy.exporter.base import Exporter
from kpy.exporter.push import PushExporter, Remote, Target
from kpy.oci import manifest
from kpy.oci.digest import Digest
from kpy.oci.reference import Reference
from kpy.util.cancel import Cancel
from tests.exporter.exporting import MemoryRegistryRepository, one, several
from tests.exporter.test_export_archives import foreign
from tests.fakes import MemoryRepository, RecordingReporter

_: type[Exporter] = PushExporter
__: type[Remote] = MemoryRegistryRepository


def target(*names: str) -> Target:
    return Target(MemoryRegistryRepository(), tuple(Reference.parse(name) for name in names))


def test_order_blobs_manifests_index_referrers_signature_tags() -> None:
    artifact = several()
    to = target("r.example/app:v1", "r.example/app:latest")
    report = RecordingReporter()
    result = PushExporter(
        (to,), report, sign=lambda repository, reference, root: repository.log.append(f"sign {reference} {root.digest}")
    ).export(artifact)
    log = to.repository.log
    amd, arm = (str(image.manifest.descriptor.digest) for image in artifact.images)
    inside, outside = (str(part.manifest.descriptor.digest) for part in artifact.attachments)
    root = str(artifact.descriptor.digest)
    assert log[-8:] == [amd, arm, inside, root, outside, f"sign r.example/app:v1 {root}", "v1", "latest"]
    blobs = set(log[:-8])
    assert len(blobs) == len(log) - 8 == 8  # 3 layers, 2 configs, a statement, its config, the empty config
    assert result.names == ("r.example/app:v1", "r.example/app:latest")
    assert result.descriptor == artifact.descriptor
    done = {e.label: e.current for e in report.of(StepProgress)}
    assert set(done) == blobs
    assert all(e.total for e in report.of(StepProgress))
    assert {e.outcome for e in report.of(StepFinished)} == {"done"}


def test_several_registries_one_upload_each_and_tags_after_all() -> None:
    log: list[str] = []
    a, b = target("a.example/app:v1", "a.example/app:v2"), target("b.example/other/app:v1")
    a.repository.log = b.repository.log = log
    content = MemoryRepository()
    result = PushExporter((a, b)).export(one(content))
    assert log[-3:] == ["v1", "v2", "v1"]
    assert result.names == ("a.example/app:v1", "a.example/app:v2", "b.example/other/app:v1")
    assert len(content.opened) == 6  # 2 layers and a config, for each registry


def test_a_failure_in_the_second_registry_leaves_the_first_untagged() -> None:
    artifact = one()
    a, b = target("a.example/app:v1"), target("b.example/app:v1")
    b.repository.refused.add(str(artifact.descriptor.digest))
    with pytest.raises(RegistryError, match="refused"):
        PushExporter((a, b)).export(artifact)
    assert a.repository.tagged == b.repository.tagged == {}


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_failed_blob_moves_no_tag(which: int) -> None:
    artifact = one()
    to = target("a.example/app:v1")
    blobs = [*artifact.images[0].manifest.layers, artifact.images[0].manifest.config]
    to.repository.refused.add(str(blobs[which].digest))
    report = RecordingReporter()
    with pytest.raises(RegistryError, match=str(blobs[which].digest)):
        PushExporter((to,), report).export(artifact)
    assert to.repository.tagged == {}
    assert to.repository.manifests == {}
    assert report.of(StepFinished)[-1].outcome == "failed"


def test_a_failed_signature_moves_no_tag() -> None:
    to = target("a.example/app:v1")

    def sign(*_: object) -> None:
        raise RegistryError("no signature for you")

    with pytest.raises(RegistryError, match="no signature"):
        PushExporter((to,), sign=sign).export(one())
    assert to.repository.tagged == {}


def test_what_is_there_is_not_read_and_base_layers_are_mounted() -> None:
    content = MemoryRepository()
    artifact = one(content)
    to = target("a.example/app:v1")
    base, own = artifact.images[0].manifest.layers
    to.repository.elsewhere.add(base.digest)
    to.repository.put_bytes(content.blobs[own.digest])
    asked = []

    def origin(blob, reference):
        asked.append((blob.digest, str(reference)))
        return ["base"] if blob == base else []

    PushExporter((to,), mount_from=origin).export(artifact)
    assert to.repository.outcomes == {
        base.digest: "mounted", own.digest: "exists", artifact.images[0].manifest.config.digest: "uploaded"
    }  # fmt: skip
    assert content.opened == [artifact.images[0].manifest.config.digest]
    assert (base.digest, "a.example/app:v1") in asked


def test_foreign_layers_are_not_pushed() -> None:
    to = target("a.example/app:v1")
    PushExporter((to,)).export(foreign(MemoryRepository()))
    assert Digest.of(b"far away") not in to.repository.blobs
    assert to.repository.tagged


def test_a_changed_layer_is_not_pushed() -> None:
    content = MemoryRepository()
    artifact = one(content)
    layer = artifact.images[0].manifest.layers[0].digest
    content.blobs[layer] = bytes(len(content.blobs[layer]))
    to = target("a.example/app:v1")
    with pytest.raises(Exception, match="does not match its digest"):
        PushExporter((to,)).export(artifact)
    assert to.repository.tagged == {}


def test_by_digest_moves_no_tag() -> None:
    artifact = one()
    to = target("a.example/app:v1")
    result = PushExporter((to,), by_digest=True).export(artifact)
    assert to.repository.tagged == {}
    assert result.names == (f"a.example/app@{artifact.descriptor.digest}",)
    pinned = target(f"a.example/app@{artifact.descriptor.digest}")
    assert PushExporter((pinned,)).export(artifact).names == (f"a.example/app@{artifact.descriptor.digest}",)
    wrong = target(f"a.example/app@{Digest.of(b'other')}")
    with pytest.raises(UsageError, match="cannot push"):
        PushExporter((wrong,)).export(artifact)
    assert wrong.repository.log == []


def test_a_target_is_one_repository() -> None:
    with pytest.raises(UsageError):
        target("a.example/app:v1", "a.example/other:v1")


def test_the_first_failure_ends_the_other_uploads() -> None:
    artifact = several()
    to = target("a.example/app:v1")
    doomed = artifact.images[0].manifest.layers[0].digest
    both = threading.Barrier(2, timeout=5)
    entered: list[Digest] = []

    def before(descriptor) -> None:
        entered.append(descriptor.digest)
        if len(entered) <= 2:
            both.wait()
        if descriptor.digest == entered[0]:
            raise RegistryError("first failure")

    to.repository.before_upload = before
    assert doomed
    with pytest.raises(RegistryError, match="first failure"):
        PushExporter((to,), concurrency=2).export(artifact)
    assert len(entered) < len({d.digest for i in artifact.images for d in i.manifest.layers}) + 6
    assert to.repository.tagged == {}


def test_cancel_ends_it_and_moves_no_tag() -> None:
    to = target("a.example/app:v1")
    with Cancel() as cancel:
        to.repository.before_upload = lambda _: cancel.set()
        with pytest.raises(InterruptedBuildError):
            PushExporter((to,), cancel=cancel).export(one())
    assert to.repository.tagged == {}


def test_the_tag_names_what_was_built() -> None:
    artifact = several()
    to = target("a.example/app:v1")
    PushExporter((to,)).export(artifact)
    found = to.repository.resolve("v1")
    assert isinstance(manifest.parse(to.repository.blobs[found.digest]), manifest.Index)
    assert found.digest == artifact.descriptor.digest
