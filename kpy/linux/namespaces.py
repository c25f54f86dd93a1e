"""Namespaces: flags, and the id maps of user namespaces. Decides nothing about what to isolate."""

import os

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

Ranges = list[tuple[int, int, int]]
"""Lines of a uid_map or gid_map: first id inside, first id outside, how many."""


def parse_map(text: str) -> Ranges:
    """The content of /proc/PID/uid_map."""
    rows = [line.split() for line in text.splitlines()]
    return [(int(row[0]), int(row[1]), int(row[2])) for row in rows if len(row) == 3]


def subordinate(text: str, name: str, uid: int) -> list[tuple[int, int]]:
    """The ranges (first, how many) that a /etc/subuid or /etc/subgid gives a user, by name or number (subuid(5)).

    Lines that make no sense are skipped.
    """
    found = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) != 3 or fields[0] not in (name, str(uid)) or not fields[0]:
            continue
        if fields[1].isascii() and fields[1].isdigit() and fields[2].isascii() and fields[2].isdigit():
            first, count = int(fields[1]), int(fields[2])
            if 0 < first < 1 << 32 and 0 < count <= (1 << 32) - first:
                found.append((first, count))
    return found


def as_root(own: int, ranges: list[tuple[int, int]]) -> Ranges:
    """The map in which id 0 is `own`, and the ids from 1 on are the subordinate ranges, one after the other. An id that is
    in several of them is there once: the kernel takes no map that has one twice."""
    rows = [(0, own, 1)]
    following = 1
    for first, count in _apart(ranges, own)[:339]:  # the kernel takes 340 lines
        rows.append((following, first, count))
        following += count
    return rows


def _apart(ranges: list[tuple[int, int]], own: int) -> list[tuple[int, int]]:
    """The parts of each range that are in none before it, and are not `own`."""
    taken = [(own, own + 1)]
    found: list[tuple[int, int]] = []
    for first, count in ranges:
        start = first
        for begin, end in sorted(taken):
            if begin < first + count and start < end:
                found += [(start, begin - start)] if start < begin else []
                start = end
        if start < first + count:
            found.append((start, first + count - start))
        taken.append((first, first + count))
    return found


def identity(rows: Ranges) -> Ranges:
    """The map in which every id that exists in a namespace with the map `rows` is itself."""
    return [(inside, inside, count) for inside, _, count in rows]


def only(own: int) -> Ranges:
    """The map in which id 0 is `own`, and there is no other. Anybody may write it, who gives up setgroups(2)."""
    return [(0, own, 1)]


def has_others(uids: Ranges, gids: Ranges) -> bool:
    """Are there other ids than one's own, users and groups?"""
    return sum(row[2] for row in uids) > 1 and sum(row[2] for row in gids) > 1


def gives_owners() -> bool:
    """May this process give files to other users? Found by doing it: neither being root nor a map says so."""
    descriptor = os.memfd_create("owned", os.MFD_CLOEXEC)
    try:
        os.fchown(descriptor, 1, 1)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def dump_map(rows: Ranges) -> str:
    """As it is written to /proc/PID/uid_map."""
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows)
