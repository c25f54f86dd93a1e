"""A layer in one pass: digests, index, flat memory, errors that end all threads (L06, L09, L11)."""

import gzip
import hashlib
import io
import subprocess
import sys
import threading

import pytest
from layerkit import item, tar_of

from kpy.errors import ContentError, StoreError
from kpy.layer.build import build_layer
from kpy.layer.compress import Compression
from kpy.layer.decompress import decompressor
from kpy.layer.entry import Entry, Kind, LayerItem
from kpy.layer.index import LayerTree, scan_layer

ITEMS = [item("etc", Kind.DIR), item("etc/passwd", content=b"root:x:0:0\n"), item("big", content=bytes(range(256)) * 20_000)]


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
def test_digests_sizes_and_index(kind):
    sink, index = io.BytesIO(), io.BytesIO()
    built = build_layer(ITEMS, sink, index, Compression(kind))
    blob, tar = sink.getvalue(), tar_of(*ITEMS)
    assert built.digest.hex == hashlib.sha256(blob).hexdigest() and built.size == len(blob)
    assert built.diff_id.hex == hashlib.sha256(tar).hexdigest() and built.uncompressed_size == len(tar)
    with decompressor(io.BytesIO(blob)) as stream:
        assert stream.read() == tar
    tree = LayerTree.decode(index.getvalue())
    assert tree == scan_layer(io.BytesIO(tar))
    assert tree.files == {"etc/passwd": b"root:x:0:0\n"}
    assert build_layer(ITEMS, io.BytesIO(), io.BytesIO(), Compression(kind), threads=3).digest == built.digest


def test_empty_layer():  # L06
    sink = io.BytesIO()
    built = build_layer([], sink, io.BytesIO(), Compression())
    assert str(built.diff_id) == "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    assert gzip.decompress(sink.getvalue()) == bytes(1024)


class FullDisk(io.RawIOBase):
    def write(self, data):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
def test_full_disk(kind):
    with pytest.raises(StoreError, match="cannot write the layer: no space left"):
        build_layer([item("f", content=bytes(range(256)) * 100_000)], FullDisk(), io.BytesIO(), Compression(kind))


def test_full_disk_for_the_index():
    items = [item(f"f{number}", content=b"x") for number in range(1000)]
    with pytest.raises(StoreError, match="cannot write the index of a layer: no space left"):
        build_layer(items, io.BytesIO(), FullDisk(), Compression())


def test_failing_item_ends_all_threads():
    before = threading.active_count()
    changed = LayerItem(Entry("f", Kind.FILE, size=5 << 20), lambda: io.BytesIO(bytes(4 << 20)))
    with pytest.raises(ContentError, match="changed"):
        build_layer([changed], io.BytesIO(), io.BytesIO(), Compression())
    assert threading.active_count() == before


def test_memory_stays_flat():
    script = """
import io, sys
sys.path[:0] = sys.argv[1:]
from kpy.layer.build import build_layer
from kpy.layer.compress import Compression
from kpy.layer.entry import Entry, Kind, LayerItem
class Null(io.RawIOBase):
    def write(self, data): return len(data)
class Zeros(io.RawIOBase):
    left = 400 << 20
    def read(self, size=-1):
        size = min(size, self.left); self.left -= size
        return bytes(size)
build_layer([LayerItem(Entry("f", Kind.FILE, size=400 << 20), Zeros)], Null(), io.BytesIO(), Compression())
print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""
    done = subprocess.run([sys.executable, "-c", script, *sys.path], capture_output=True, check=True)
    assert int(done.stdout) < 100_000  # KiB; HWM, for maxrss is inherited from who forked
