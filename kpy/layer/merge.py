"""One layer laid over a tree, entry by entry. Knows nothing of how the result is asked.

Nodes are shared between trees: a node belongs to the merge that made it (`owner`), and is copied before another
changes it.
"""

from kpy.errors import ContentError
from kpy.layer.entry import Entry, Kind
from kpy.layer.index import LayerTree
from kpy.oci.digest import Digest
from kpy.util import paths
from kpy.util.checkpoint import checked

MAX_HOPS = 255


class Node:
    """One name in a merged tree. `position` is the number of its entry in the index of `layer`."""

    __slots__ = ("children", "data", "entry", "layer", "owner", "position", "shared")

    def __init__(self, entry: Entry, owner: object, layer: Digest | None, position: int) -> None:
        self.entry = entry
        self.owner = owner
        self.layer = layer
        self.position = position
        self.children: dict[str, Node] | None = {} if entry.kind is Kind.DIR else None
        self.shared = False  # has it, or had it, another name?
        self.data: bytes | None = None

    def copy(self, owner: object, entry: Entry) -> "Node":
        """The same for another owner, perhaps with other metadata."""
        node = Node(entry, owner, self.layer, self.position)
        if self.children is not None:
            node.children = dict(self.children)
        node.shared = self.shared
        node.data = self.data
        return node


def implied(path: str) -> Entry:
    """The entry of a directory that a layer uses without having it."""
    return Entry(path, Kind.DIR, 0o755)


def at_path(entry: Entry, path: str) -> Entry:
    """The entry under another path."""
    if entry.path == path:
        return entry
    return Entry(path, entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime, entry.link,
                 entry.device, entry.xattrs, entry.sha256)  # fmt: skip


def find(root: Node, path: str, *, follow_last: bool) -> Node | None:
    """The node at a path, symlinks in its directories followed inside the root; None if there is none."""
    stack = [root]
    todo = paths.split(path)[::-1]
    hops = 0
    while todo:
        part = todo.pop()
        if part == "..":
            if len(stack) > 1:
                stack.pop()
            continue
        children = stack[-1].children
        node = children.get(part) if children is not None else None
        if node is None:
            return None
        if node.entry.kind is Kind.SYMLINK and (todo or follow_last):
            hops += 1
            if hops > MAX_HOPS:
                return None
            if node.entry.link.startswith("/"):
                del stack[1:]
            todo += paths.split(node.entry.link)[::-1]
        else:
            stack.append(node)
    return stack[-1]


def merge(root: Node, tree: LayerTree, layer: Digest) -> Node:
    """The root of a new tree: what the layer's entries make of it, in the order of its tar, as when it is unpacked (extract.py).

    A whiteout removes what is there from below, never what the layer itself has brought. Raises ContentError for a hard link to
    nothing or to a directory, and for a loop of symlinks.
    """
    work = _Merge(root, tree, layer)
    for position, entry in enumerate(checked(tree.entries)):
        if entry.kind is Kind.WHITEOUT or entry.kind is Kind.OPAQUE:
            work.remove(entry)
        elif entry.kind is Kind.HARDLINK:
            work.link(entry)
        else:
            work.add(entry, position)
    return work.root


class _Merge:
    def __init__(self, root: Node, tree: LayerTree, layer: Digest) -> None:
        self._owner = object()
        self._files = tree.files
        self._layer = layer
        self.root = root.copy(self._owner, root.entry)
        self._directories: dict[str, Node] = {"": self.root}  # by path as written, symlinks resolved
        # The paths of what the layer has brought; remembered only where a whiteout may ask.
        self._made: set[str] | None = set() if tree.removes else None
        self._above: set[str] = set()  # the directories that they are in

    def _forget(self) -> None:
        """A directory or symlink went: what was found through it may be gone."""
        self._directories = {"": self.root}

    def _own(self, parent: Node, name: str, node: Node) -> Node:
        if node.owner is not self._owner:
            node = node.copy(self._owner, node.entry)
            assert parent.children is not None
            parent.children[name] = node
        return node

    def _directory(self, path: str) -> Node:
        """The directory at a path, ours to change; made where it is missing, also in place of a file."""
        known = self._directories.get(path)
        if known is not None:
            return known
        parent, _, last = path.rpartition("/")
        above = self._directories.get(parent)
        if above is not None:
            stack, todo = [self.root, above], [last]  # `..` of a symlink is handled below by starting afresh
            assert above.children is not None
            child = above.children.get(last)
            if child is not None and child.entry.kind is Kind.SYMLINK:
                stack, todo = [self.root], paths.split(path)[::-1]
        else:
            stack, todo = [self.root], paths.split(path)[::-1]
        hops = 0
        while todo:
            part = todo.pop()
            if part == "..":
                if len(stack) > 1:
                    stack.pop()
                continue
            children = stack[-1].children
            assert children is not None
            node = children.get(part)
            if node is not None and node.entry.kind is Kind.SYMLINK:
                hops += 1
                if hops > MAX_HOPS:
                    raise ContentError(f"layer has too many symlinks on the way to {path[:200]!r}")
                if node.entry.link.startswith("/"):
                    del stack[1:]
                todo += paths.split(node.entry.link)[::-1]
                continue
            if node is None or node.children is None:
                node = Node(implied(paths.join(stack[-1].entry.path, part)), self._owner, self._layer, -1)
                children[part] = node
                self._bring(node.entry.path)
            stack.append(self._own(stack[-1], part, node))
        self._directories[path] = stack[-1]
        return stack[-1]

    def _bring(self, path: str) -> None:
        if self._made is None:
            return
        self._made.add(path)
        above = path.rpartition("/")[0]
        while above and above not in self._above:
            self._above.add(above)
            above = above.rpartition("/")[0]

    def remove(self, entry: Entry) -> None:
        """Apply a whiteout to what is there from lower layers."""
        opaque = entry.kind is Kind.OPAQUE
        if not entry.path:
            self._purge("", opaque=True)
            return
        above = find(self.root, entry.parent, follow_last=True)
        node = above.children.get(entry.name) if above is not None and above.children is not None else None
        if above is None or node is None:
            return
        path = paths.join(above.entry.path, entry.name)
        if node.children is not None:
            self._purge(path, opaque=opaque)
        elif not opaque and not self._is_made(path):
            self._drop(path)

    def _is_made(self, path: str) -> bool:
        return self._made is not None and path in self._made

    def _is_from_below(self, path: str) -> bool:
        """Is all of a directory?"""
        return not self._is_made(path) and path not in self._above

    def _drop(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        children = self._directory(parent).children
        assert children is not None
        if children[name].entry.kind in (Kind.DIR, Kind.SYMLINK):
            self._forget()
        del children[name]

    def _purge(self, path: str, *, opaque: bool) -> None:
        """Remove what is from below in a directory and, unless `opaque`, that itself. A directory that only holds what the layer
        has brought is implied by it."""
        kept: set[str] = set()  # something of the layer is in it
        todo = [(path, not opaque and self._is_from_below(path))]
        while todo:
            here, emptied = todo.pop()
            above = here.rpartition("/")[0]
            if not emptied:
                todo.append((here, True))
                node = self._exactly(here)
                for name, child in (node.children or {}).items():
                    inner = paths.join(here, name)
                    if child.children is None and self._is_made(inner):
                        kept.add(here)
                    else:
                        todo.append((inner, child.children is None or self._is_from_below(inner)))
            elif here == path and opaque:
                continue
            elif self._is_made(here):
                kept.add(above)
            elif here in kept:
                kept.add(above)
                self._imply(here)
            else:
                self._drop(here)

    def _exactly(self, path: str) -> Node:
        """The node at a path whose components are all directories but the last."""
        node = self.root
        for part in path.split("/") if path else ():
            assert node.children is not None
            node = node.children[part]
        return node

    def _imply(self, path: str) -> None:
        node = self._directory(path)
        node.entry, node.layer, node.position = implied(path), self._layer, -1
        self._bring(path)

    def add(self, entry: Entry, position: int) -> None:
        """Put anything but a whiteout or hard link in its place."""
        if not entry.path:
            self.root.entry = entry
            self.root.layer = self._layer
            self.root.position = position
            return
        parent_path, _, name = entry.path.rpartition("/")
        parent = self._directory(parent_path)
        children = parent.children
        assert children is not None
        old = children.get(name)
        above = parent.entry.path
        placed = entry if above == parent_path else at_path(entry, paths.join(above, name))
        self._bring(placed.path)
        if old is not None and old.children is not None and entry.kind is Kind.DIR:
            old = self._own(parent, name, old)
            old.entry, old.layer, old.position = placed, self._layer, position
            return
        if old is not None and (old.children is not None or old.entry.kind is Kind.SYMLINK):
            self._forget()
        node = Node(placed, self._owner, self._layer, position)
        if entry.path in self._files and entry.kind is Kind.FILE:
            node.data = self._files[entry.path]
        children[name] = node

    def link(self, entry: Entry) -> None:
        """Give a file a further name. Its metadata is the file's, not the entry's."""
        parent_path, _, name = entry.path.rpartition("/")
        parent = self._directory(parent_path)
        path = paths.join(parent.entry.path, name)
        target = find(self.root, entry.link, follow_last=False)
        if target is None:
            raise ContentError(f"{entry.path!r} is a hard link to {entry.link!r}, which is not there")
        if target.entry.kind is Kind.DIR:
            raise ContentError(f"{entry.path!r} is a hard link to the directory {entry.link!r}")
        self._bring(path)
        if path == target.entry.path:
            return
        if not target.shared:
            parent_of_target = self._directory(target.entry.parent)
            assert parent_of_target.children is not None
            target = target.copy(self._owner, target.entry)
            target.shared = True
            parent_of_target.children[target.entry.name] = target
        assert parent.children is not None
        old = parent.children.get(name)
        if old is not None and (old.children is not None or old.entry.kind is Kind.SYMLINK):
            self._forget()
        parent.children[name] = target.copy(self._owner, at_path(target.entry, path))
