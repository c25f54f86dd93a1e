"""Base images from mirrors (N18): asked in order, the registry itself last."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kpy.app.options import RegistrySettings
from kpy.app.resolver import Resolver
from kpy.errors import ImageNotFoundError, RegistryError
from kpy.events import Warned
from kpy.oci.platform import Platform
from kpy.registry.client import RegistryClient
from kpy.store.store import Store
from tests.fakes import RecordingReporter
from tests.registry.served import add_image
from tests.registry_server import RegistryServer

AMD64 = Platform("linux", "amd64")


@pytest.fixture
def mirror() -> Iterator[RegistryServer]:
    with RegistryServer() as found:
        yield found


@pytest.fixture
def origin() -> Iterator[RegistryServer]:
    with RegistryServer() as found:
        yield found


def find(tmp_path: Path, name: str, *mirrors: tuple[str, str], only: bool = False) -> RecordingReporter:
    report = RecordingReporter()
    with RegistryClient() as client:
        settings = RegistrySettings(mirrors=mirrors, mirrors_only=only)
        Resolver(Store(tmp_path), client, report, pull=True, settings=settings)(name, AMD64)
    return report


def warnings(report: RecordingReporter) -> list[str]:
    return [event.message for event in report.events if isinstance(event, Warned)]


def test_a_mirror_with_a_path_is_asked_instead(tmp_path: Path, mirror: RegistryServer) -> None:
    add_image(mirror, "hub/library/app", "1")
    report = find(tmp_path, "app:1", ("docker.io", f"{mirror.host}/hub"), only=True)
    assert warnings(report) == []


def test_what_the_mirror_lacks_comes_from_the_registry(
    tmp_path: Path, mirror: RegistryServer, origin: RegistryServer
) -> None:
    add_image(origin, "app", "1")
    report = find(tmp_path, f"{origin.host}/app:1", (origin.host, mirror.host))
    assert [text.split(":")[0] for text in warnings(report)] == ["127.0.0.1"]
    assert f"is not to be had from the mirror {mirror.host}" in warnings(report)[0]


def test_a_mirror_that_is_away_is_passed_by(tmp_path: Path, origin: RegistryServer, mirror: RegistryServer) -> None:
    mirror_host = mirror.host
    mirror.stop()
    add_image(origin, "app", "1")
    assert len(warnings(find(tmp_path, f"{origin.host}/app:1", (origin.host, mirror_host)))) == 1


def test_mirrors_only(tmp_path: Path, mirror: RegistryServer, origin: RegistryServer) -> None:
    add_image(origin, "app", "1")
    with pytest.raises(ImageNotFoundError):
        find(tmp_path, f"{origin.host}/app:1", (origin.host, mirror.host), only=True)
    assert origin.count("/v2/app") == 0


def test_a_mirror_of_another_registry_is_not_asked(tmp_path: Path, mirror: RegistryServer, origin: RegistryServer) -> None:
    add_image(mirror, "app", "1")
    with pytest.raises(RegistryError):
        find(tmp_path, f"{origin.host}/app:1", ("docker.io", mirror.host))
    assert mirror.count("/v2/app") == 0


@pytest.mark.parametrize("lost", ["layer", "config", "manifest"])
@pytest.mark.parametrize("how", ["gone", "broken"])
def test_an_image_that_is_not_whole_in_the_store_is_had_from_its_registry(tmp_path: Path, origin: RegistryServer, lost: str, how: str) -> None:
    """The very same one: another may have taken the name there."""
    add_image(origin, "app", "1")
    name, report = f"{origin.host}/app:1", RecordingReporter()
    with RegistryClient() as client:
        store = Store(tmp_path)
        first = Resolver(store, client, report, pull=True)(name, AMD64)
        blobs = [first.image.manifest.config, *first.image.manifest.layers]
        for blob in blobs:
            with first.image.content.open(blob) as stream:
                store.images.put(stream, blob)
        store.images.put_manifest(first.image.manifest.raw, first.image.manifest.media_type, tag=name)
        descriptor = first.image.manifest.descriptor
        place = Path(store.images.blobs.path({"layer": blobs[-1], "config": blobs[0], "manifest": descriptor}[lost].digest))
        if how == "gone" or lost == "layer":
            place.unlink()
        else:
            place.write_bytes(bytes(place.stat().st_size))
        add_image(origin, "app", "1", layers=2)
        again = Resolver(Store(tmp_path), client, report, pull=False)(name, AMD64)
    assert again.digest == first.digest
    assert len(warnings(report)) == 1
    assert "missing or broken" in warnings(report)[0]
