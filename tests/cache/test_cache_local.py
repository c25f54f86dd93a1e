"""Cache records in the store: round trips, and broken files that are misses."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.cache.base import Cache, CacheRecord
from kpy.cache.local import LocalCache
from kpy.errors import StoreError
from kpy.oci.descriptor import Descriptor
from kpy.oci.digest import Digest
from kpy.oci.image import Layer

_: type[Cache] = LocalCache
KEY = Digest.of(b"key")
LAYER = Layer(Descriptor("x/y", Digest.of(b"blob"), 4), Digest.of(b"diff"))


def always(_: Descriptor) -> bool:
    return True


def test_save_and_load(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache", always)
    assert cache.load(KEY) is None
    record = CacheRecord(KEY, LAYER, "2024-01-01T00:00:00Z", "RUN make")
    cache.save(record)
    assert cache.load(KEY) == record
    assert list(cache.records()) == [record]
    cache.save(CacheRecord(KEY, None))
    assert cache.load(KEY).empty
    cache.remove(KEY)
    cache.remove(KEY)
    assert cache.load(KEY) is None


@given(st.binary(), st.text(), st.text(), st.none() | st.just(LAYER))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, key: bytes, at: str, text: str, layer: Layer | None) -> None:
    cache = LocalCache(tmp_path_factory.getbasetemp() / "cache", always)
    record = CacheRecord(Digest.of(key), layer, at, text)
    cache.save(record)
    assert cache.load(record.key) == record


def test_a_record_whose_blob_is_gone_is_a_miss(tmp_path: Path) -> None:
    here: set[Digest] = {LAYER.descriptor.digest}
    cache = LocalCache(tmp_path, lambda descriptor: descriptor.digest in here)
    cache.save(CacheRecord(KEY, LAYER))
    assert cache.load(KEY)
    here.clear()
    assert cache.load(KEY) is None
    assert [record.key for record in cache.records()] == [KEY]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"{}", b'{"format":1}', b'{"format":1,"key":"sha256:x"}', b"\xff\xfe", b"[" * 100_000,
             b'{"format":99,"key":"' + str(KEY).encode() + b'"}',
             b'{"format":1,"layer":3,"key":"' + str(KEY).encode() + b'"}',
             b'{"format":1,"key":"' + str(Digest.of(b"other")).encode() + b'"}']
)  # fmt: skip
def test_broken_record_is_a_miss(tmp_path: Path, text: bytes) -> None:
    cache = LocalCache(tmp_path, always)
    (tmp_path / f"{KEY.hex}.json").write_bytes(text)
    assert cache.load(KEY) is None
    cache.save(CacheRecord(KEY, LAYER))
    assert cache.load(KEY)


def test_unwritable(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        LocalCache(tmp_path / "cache", always).save(CacheRecord(KEY, LAYER))
