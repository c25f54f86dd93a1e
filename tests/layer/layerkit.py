"""Shared pieces of the layer tests: hand-made tars, directories as data, strategies."""

import hashlib
import io
import os
import stat
import tarfile

from hypothesis import strategies as st

from kpy.layer.entry import Entry, Kind, LayerItem
from kpy.layer.write import write_tar

T = 1_577_836_800 * 10**9


def item(path, kind=Kind.FILE, content=b"", **more):
    if kind is Kind.FILE:
        more["size"] = len(content)
    more.setdefault("mode", 0o755 if kind is Kind.DIR else 0o644)
    more.setdefault("mtime", T)
    return LayerItem(Entry(path, kind, **more), (lambda: io.BytesIO(content)) if kind is Kind.FILE else None)


def tar_of(*items):
    out = io.BytesIO()
    write_tar(items, out.write)
    return out.getvalue()


def raw_tar(*members):
    """A tar of (TarInfo, content), names as they stand, by Python's tarfile."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            info.size = len(content) or info.size
            info.mtime = info.mtime or T // 10**9
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def member(name, kind=tarfile.REGTYPE, content=b"", mode=0o644, link="", pax=None):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = mode
    info.linkname = link
    info.size = len(content)
    info.pax_headers = pax or {}
    return info, content


def sha(content):
    return hashlib.sha256(content).hexdigest()


def on_disk(root):
    """What a directory holds, without owners: path -> what a tree says of it."""
    found = {}
    todo = [""]
    while todo:
        here = todo.pop()
        place = os.path.join(root, here)
        info = os.lstat(place)
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISDIR(info.st_mode):
            found[here] = ("d", mode, info.st_mtime_ns if here else 0)
            todo += [os.path.join(here, name) for name in os.listdir(place)]
        elif stat.S_ISLNK(info.st_mode):
            found[here] = ("l", os.readlink(place), info.st_mtime_ns)
        elif stat.S_ISFIFO(info.st_mode):
            found[here] = ("p", mode, info.st_mtime_ns)
        else:
            with open(place, "rb") as file:
                found[here] = ("f", mode, info.st_mtime_ns, sha(file.read()))
    return found


def in_tree(tree):
    found = {}
    for entry in tree.walk():
        if entry.kind is Kind.DIR:
            found[entry.path] = ("d", entry.mode, entry.mtime if entry.path else 0)
        elif entry.kind is Kind.SYMLINK:
            found[entry.path] = ("l", entry.link, entry.mtime)
        elif entry.kind is Kind.FIFO:
            found[entry.path] = ("p", entry.mode, entry.mtime)
        else:
            found[entry.path] = ("f", entry.mode, entry.mtime, entry.sha256)
    return found


def link_groups_on_disk(root):
    groups = {}
    for path in on_disk(root):
        info = os.lstat(os.path.join(root, path))
        if not stat.S_ISDIR(info.st_mode) and info.st_nlink > 1:
            groups.setdefault(info.st_ino, set()).add(path)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def link_groups_in_tree(tree):
    groups = {}
    for entry in tree.walk():
        ident = tree.link_id(entry)
        if ident is not None:
            groups.setdefault(ident, set()).add(entry.path)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


_name = st.sampled_from(["a", "b", "c", "d"])
_path = st.lists(_name, min_size=1, max_size=3).map("/".join)
_target = st.one_of(
    st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=3).map("/".join),
    st.lists(_name, max_size=2).map(lambda parts: "/" + "/".join(parts)),
)
_mode = st.sampled_from([0o755, 0o700, 0o644, 0o4755, 0o2775, 0o1777, 0o500])
_mtime = st.sampled_from([T, T + 5, 0, 1])


@st.composite
def small_item(draw):
    """An item among few names, so that entries meet each other."""
    kind = draw(st.sampled_from([Kind.FILE, Kind.FILE, Kind.DIR, Kind.DIR, Kind.SYMLINK, Kind.HARDLINK, Kind.FIFO]))
    more = {"mode": draw(_mode), "mtime": draw(_mtime)}
    if kind is Kind.DIR and os.getuid():
        more["mode"] |= 0o700  # who is not root could not put anything in
    if kind is Kind.SYMLINK:
        more["link"] = draw(_target)
        more["mode"] = 0o777
    if kind is Kind.HARDLINK:
        more["link"] = draw(_path)
    return item(draw(_path), kind, draw(st.binary(max_size=3)) if kind is Kind.FILE else b"", **more)


@st.composite
def small_layer(draw):
    whiteouts = draw(
        st.lists(
            st.builds(lambda kind, path: item(path, kind, mode=0), st.sampled_from([Kind.WHITEOUT, Kind.OPAQUE]), _path),
            max_size=3,
        )
    )
    return whiteouts, draw(st.lists(small_item(), max_size=10))
