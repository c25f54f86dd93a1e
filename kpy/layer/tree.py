"""The tree of a chain: every path of its layers merged, whiteouts applied, without anything on disk.

Trees are immutable; `apply` shares what a layer leaves alone. Contents are elsewhere (treesource.py), but for the
few files that rules need.
"""

from collections.abc import Iterator

from kpy.errors import ContentError
from kpy.layer.entry import Entry, Kind
from kpy.layer.index import LayerTree, scan_layer
from kpy.layer.merge import MAX_HOPS, Node, find, implied, merge
from kpy.oci.digest import Digest
from kpy.util import paths
from kpy.util.checkpoint import checkpoint

__all__ = ["LayerTree", "Tree", "scan_layer"]

_EMPTY_ROOT = Node(implied(""), object(), None, -1)


class Tree:
    """What a root file system of the chain would hold. Paths are in Entry's form; kinds are never WHITEOUT, OPAQUE
    or HARDLINK: each name of a file is the file, with equal `link_id`."""

    __slots__ = ("_root",)

    def __init__(self, root: Node) -> None:
        self._root = root

    @staticmethod
    def empty() -> "Tree":
        """The tree of the empty chain: a root with mode 0755."""
        return Tree(_EMPTY_ROOT)

    def apply(self, tree: LayerTree, layer: Digest) -> "Tree":
        """The tree with one more layer, whose diff_id is `layer`.

        Its whiteouts act on what lower layers brought only, wherever they stand. Symlinks in the directories of an entry are
        followed inside the merged tree; directories that are missing are made, 0755 of root. A directory on a
        directory changes its metadata, anything else replaces what was there. Raises ContentError for a hard link
        to what is not there.
        """
        return Tree(merge(self._root, tree, layer))

    def _exact(self, path: str) -> Node | None:
        node = self._root
        for part in path.split("/") if path else ():
            child = node.children.get(part) if node.children is not None else None
            if child is None:
                return None
            node = child
        return node

    def lookup(self, path: str, /) -> Entry | None:
        """The entry at exactly this path, no symlink followed at all."""
        node = self._exact(path)
        return node.entry if node is not None else None

    def children(self, path: str, /) -> list[str]:
        """The sorted names in the directory at exactly this path."""
        node = self._exact(path)
        return sorted(node.children) if node is not None and node.children else []

    def link_id(self, entry: Entry, /) -> object | None:
        """Equal for the names of one file; None for a file that never had a second name."""
        node = self._exact(entry.path)
        return (str(node.layer), node.position) if node is not None and node.shared else None

    def where(self, entry: Entry, /) -> tuple[Digest, int]:
        """The diff_id of the layer that an entry of this tree is from, and its number among the layer's entries.

        The number is -1 for a directory that the layer only implies. Raises ContentError for what is not there,
        and for the root that no layer made.
        """
        node = self._exact(entry.path)
        if node is None or node.layer is None:
            raise ContentError(f"no layer has {entry.path!r}")
        return node.layer, node.position

    def resolve(self, path: str, *, follow_last: bool = True) -> str | None:
        """The path without symlinks, inside the root, of what is there; None if nothing is, or symlinks loop."""
        node = find(self._root, path, follow_last=follow_last)
        return node.entry.path if node is not None else None

    def resolve_missing(self, path: str) -> tuple[str, list[str]]:
        """Follow the path as far as there are directories: the last one, without symlinks, and what remains.

        What remains is empty if the path is a directory; its first component is missing or no directory. A
        dangling symlink is followed into what is missing. Raises ContentError when symlinks loop.
        """
        stack = [self._root]
        rest: list[str] = []
        todo = paths.split(path)[::-1]
        hops = 0
        while todo:
            part = todo.pop()
            if rest:
                if part == "..":
                    rest.pop()
                else:
                    rest.append(part)
                continue
            if part == "..":
                if len(stack) > 1:
                    stack.pop()
                continue
            assert stack[-1].children is not None
            node = stack[-1].children.get(part)
            if node is None or (node.children is None and node.entry.kind is not Kind.SYMLINK):
                rest.append(part)
            elif node.entry.kind is Kind.SYMLINK:
                hops += 1
                if hops > MAX_HOPS:
                    raise ContentError(f"too many symlinks on the way to {path[:200]!r}")
                if node.entry.link.startswith("/"):
                    del stack[1:]
                todo += paths.split(node.entry.link)[::-1]
            else:
                stack.append(node)
        return stack[-1].entry.path, rest

    def content(self, path: str) -> bytes | None:
        """The content of one of the files that indexes keep (etc/passwd, etc/group), symlinks followed."""
        node = find(self._root, path, follow_last=True)
        if node is None or node.entry.kind is not Kind.FILE:
            return None
        return node.data

    def walk(self, path: str = "") -> Iterator[Entry]:
        """The entry at exactly this path and all below it, in the order of `sort_key`."""
        start = self._exact(path)
        todo = [start] if start is not None else []
        while todo:
            checkpoint()
            node = todo.pop()
            yield node.entry
            if node.children:
                children = node.children
                todo += [children[name] for name in sorted(children, reverse=True)]
