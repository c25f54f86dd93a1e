"""What the layers of somebody else's image may ask for: bytes, a ratio, their number. The errors name the flags."""

import io
from pathlib import Path

import pytest

from kpy.errors import ContentError, TooLargeError
from kpy.layer.extract import ExtractOptions, extract
from kpy.layer.index import scan_layer
from kpy.layer.limits import SMALL, LayerLimits, shown_size
from kpy.layer.tarread import TarLimits
from tests.layer.layerkit import item, tar_of
from tests.layer.test_layer_tarread import pax_block

GIB = 1 << 30


@pytest.mark.parametrize(
    ("limits", "packed", "allowed"),
    [
        (LayerLimits(), 1, SMALL), (LayerLimits(), 100 << 20, 20_000 << 20), (LayerLimits(), GIB, 64 * GIB), (LayerLimits(size=0), GIB, 200 * GIB),
        (LayerLimits(ratio=0), 1, 64 * GIB), (LayerLimits(0, 0), 1, None), (LayerLimits(size=5), 1, 5),
    ],
)  # fmt: skip
def test_what_a_layer_may_unpack_to(limits: LayerLimits, packed: int, allowed: int | None) -> None:
    assert limits.allowed(packed) == allowed


@pytest.mark.parametrize(
    ("limits", "packed", "said", "flag"),
    [
        (LayerLimits(), 2 * GIB, "layer x unpacks to more than 64 GiB", "--max-layer-size"),
        (LayerLimits(), 10 << 20, "layer x unpacks to more than 2 GiB, 200 times its 10 MiB", "--max-layer-ratio"),
        (LayerLimits(size=3 << 29), 1, "layer x unpacks to more than 1 GiB, 1073741824 times its 1 bytes", "--max-layer-ratio"),
        (LayerLimits(size=3 << 28), 1, "layer x unpacks to more than 768 MiB", "--max-layer-size"),
    ],
)
def test_the_error_names_the_flag(limits: LayerLimits, packed: int, said: str, flag: str) -> None:
    error = limits.error("x", packed)
    assert error.message == said
    assert flag in error.hint


def test_the_number_of_layers() -> None:
    LayerLimits().check_count(1000, "app")
    LayerLimits(layers=0).check_count(5000, "app")
    with pytest.raises(ContentError, match="app has 1001 layers, more than the 1000 that are allowed") as caught:
        LayerLimits().check_count(1001, "app")
    assert "--max-layers" in caught.value.hint


def test_a_sparse_file_is_refused_before_its_holes_are_written(tmp_path: Path) -> None:
    """A terabyte of holes takes a few hundred bytes, and no reading."""
    body = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
    record = b"GNU.sparse.realsize=%d\n" % (32 * GIB)
    body += b"%d %s" % (len(record) + 3, record)
    bomb = pax_block(body) + tar_of(item("f", content=b"0\n".ljust(512, b"\0")))
    with pytest.raises(TooLargeError, match="more than the 1048576 bytes"):
        extract(io.BytesIO(bomb), str(tmp_path), options=ExtractOptions(owners=False, max_bytes=1 << 20))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TooLargeError):
        scan_layer(io.BytesIO(bomb), limits=TarLimits(bytes=1 << 20))


def test_the_sum_of_all_files_counts() -> None:
    data = tar_of(*(item(f"f{number}", content=bytes(1000)) for number in range(10)))
    assert len(scan_layer(io.BytesIO(data), limits=TarLimits(bytes=10_000)).entries) == 10
    with pytest.raises(TooLargeError):
        scan_layer(io.BytesIO(data), limits=TarLimits(bytes=9_999))


def test_sizes_for_people() -> None:
    assert [shown_size(size) for size in (0, 1023, 1024, 3 << 29, 64 * GIB)] == ["0 bytes", "1023 bytes", "1 KiB", "1.5 GiB", "64 GiB"]
