"""Id maps as text: subuid(5), /proc/PID/uid_map."""

from hypothesis import given
from hypothesis import strategies as st

from kpy.linux.namespaces import as_root, dump_map, has_others, identity, only, parse_map, subordinate

FILE = """# comment
dev:100000:65536
1001:300000:10
other:200000:65536
dev:zero:1
dev:0:5
dev:5:0
dev:4294967295:2
dev:500000:5

dev:1
"""


def test_subordinate_ranges_by_name_and_number():
    assert subordinate(FILE, "dev", 1001) == [(100000, 65536), (300000, 10), (500000, 5)]
    assert subordinate(FILE, "", 1001) == [(300000, 10)]
    assert subordinate(FILE, "nobody", 65534) == []
    assert subordinate("", "dev", 1) == []
    assert subordinate(":100:5\n", "", 7) == []


def test_as_root_is_one_row_after_the_other():
    assert as_root(1001, [(100000, 65536), (300000, 10)]) == [(0, 1001, 1), (1, 100000, 65536), (65537, 300000, 10)]
    assert len(as_root(1, [(number, 1) for number in range(2, 1000)])) == 340


def test_no_id_is_in_a_map_twice():
    """Whatever /etc/subuid says: lines that are there twice, that overlap, or that have the user's own id."""
    assert as_root(1001, [(100000, 65536), (100000, 65536)]) == [(0, 1001, 1), (1, 100000, 65536)]
    assert as_root(1001, [(1000, 10)]) == [(0, 1001, 1), (1, 1000, 1), (2, 1002, 8)]
    assert as_root(5, [(20, 10), (40, 10), (10, 50)]) == [
        (0, 5, 1), (1, 20, 10), (11, 40, 10), (21, 10, 10), (31, 30, 10), (41, 50, 10)
    ]  # fmt: skip


@given(st.integers(0, 40), st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20)), max_size=6))
def test_maps_have_each_id_of_the_ranges_once(own, ranges):
    rows = as_root(own, ranges)
    ids = [number for _, first, count in rows for number in range(first, first + count)]
    assert sorted(ids) == sorted({own}.union(*(range(first, first + count) for first, count in ranges)))
    assert [row[0] for row in rows] == [sum(row[2] for row in rows[:number]) for number in range(len(rows))]


def test_identity_keeps_what_exists():
    rows = parse_map("         0     100000      65536\n     65536 5 1\n")
    assert identity(rows) == [(0, 0, 65536), (65536, 65536, 1)]


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1))))
def test_round_trip(rows):
    assert parse_map(dump_map(rows)) == rows


def test_one_id_and_others():
    many = as_root(1001, [(100000, 65536)])
    assert dump_map(only(1001)) == "0 1001 1\n"
    assert has_others(many, many)
    assert not has_others(only(1001), many)
    assert not has_others(many, only(1001))
