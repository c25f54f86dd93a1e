"""Every number that an archive gives is bounded: an absurd one is an error that names entry and field."""

import importlib.util
import io
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpy.buildcontext.archive import archive_context
from kpy.errors import ContentError
from kpy.layer.extract import ExtractOptions, extract
from kpy.layer.header import encode_header
from kpy.layer.index import scan_layer
from kpy.layer.tarread import read_tar
from kpy.util.cancel import Cancel
from tests.layer.layerkit import member, raw_tar


def _fuzzers_numbers():
    path = Path(__file__).resolve().parents[2] / "integration/fuzz/tarnumbers.py"
    spec = importlib.util.spec_from_file_location("tarnumbers", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


tarnumbers = _fuzzers_numbers()


def entries_of(data):
    return [entry for entry, _ in read_tar(io.BytesIO(data), layer=True)]


ABSURD = [
    ("uid", "99999999999999"), ("gid", "99999999999999"), ("uid", "4294967295"), ("gid", "4294967296"), ("uid", "9" * 19),
    ("size", "9999999999999999999"), ("mtime", "253402300800"), ("mtime", "-62135596801"), ("mtime", "9" * 18), ("uid", "-1"),
    ("size", "-1"), ("uid", "1" * 5000), ("mtime", "1" * 5000), ("size", "٣"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), ABSURD)
def test_an_absurd_number_of_a_record_is_an_error_with_entry_and_field(key, value):
    data = raw_tar(member("etc/passwd", content=b"x", pax={key: value}))
    with pytest.raises(ContentError, match=f"{key} is .*entry 'etc/passwd'"):
        entries_of(data)


@pytest.mark.parametrize("kind", [b"0", b"5", b"2"])
def test_extracting_with_owners_meets_no_overflow(tmp_path, kind):
    data = raw_tar(member("f", kind, link="x", pax={"uid": "99999999999999"}))
    with pytest.raises(ContentError, match="uid is 99999999999999.*entry 'f'"):
        extract(io.BytesIO(data), str(tmp_path), options=ExtractOptions(owners=True))


def test_a_context_archive_is_named(tmp_path):
    data = raw_tar(member("f", content=b"x", pax={"uid": "99999999999999"}))
    with (
        pytest.raises(ContentError, match=r"cannot read the context: .*uid is 99999999999999.*entry 'f'"),
        archive_context(io.BytesIO(data), str(tmp_path), Cancel(), what="the context"),
    ):
        pass


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("uid", "4294967294", 4294967294), ("gid", "0", 0), ("mtime", "-62135596800", -62135596800 * 10**9),
        ("mtime", "253402300799.5", 253402300799 * 10**9 + 10**9 // 2),
    ],
)  # fmt: skip
def test_the_last_good_numbers(tmp_path, key, value, expected):
    data = raw_tar(member("f", content=b"x", pax={key: value}))
    (entry,) = entries_of(data)
    assert getattr(entry, key) == expected
    extract(io.BytesIO(data), str(tmp_path), options=ExtractOptions(owners=os.getuid() == 0))
    assert (tmp_path / "f").read_bytes() == b"x"


@given(st.binary(min_size=9, max_size=60))
def test_whatever_the_numbers_are_they_can_be_used(data):
    archive = tarnumbers.from_bytes(data)
    try:
        found = entries_of(archive)
        scan = scan_layer(io.BytesIO(archive)) if sum(entry.size for entry in found) < 1 << 20 else None
    except ContentError as error:
        assert error.message
        return
    for entry in found:
        assert 0 <= entry.uid < (1 << 32) - 1
        assert 0 <= entry.gid < (1 << 32) - 1
        assert 0 <= entry.size < 1 << 63
        datetime.fromtimestamp(entry.mtime // 10**9, UTC)
        os.makedev(*entry.device)
        encode_header(entry)
    assert scan is None or len(scan.entries) == len(found)


@pytest.mark.parametrize("form", ["octal", "binary", "record"])
@pytest.mark.parametrize("place", ["uid", "gid", "size", "mtime", "mode", "devmajor", "devminor"])
def test_edges_of_every_field(tmp_path, place, form):
    refused = 0
    for number, value in enumerate(tarnumbers.EDGES):
        for kind in b"0", b"3", b"5":
            archive = tarnumbers.archive(kind, [tarnumbers.Change(0, place, value, form)])
            root = tmp_path / f"{number}-{kind.decode()}"
            root.mkdir()
            try:
                extract(io.BytesIO(archive), str(root), options=ExtractOptions(owners=os.getuid() == 0))
            except ContentError as error:
                refused += "entry 'f0'" in error.message
    absurd = {"binary": True, "record": place in ("uid", "gid", "size", "mtime"), "octal": place.startswith("dev")}
    assert bool(refused) == absurd[form]
