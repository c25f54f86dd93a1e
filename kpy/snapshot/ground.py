"""Where a directory snapshotter's one root is, and what has to be done there. Knows nothing of chains and steps."""

import os
import secrets
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from kpy.layer.entry import LayerItem
from kpy.layer.extract import ExtractOptions
from kpy.layer.tree import Tree
from kpy.linux.ledger import Ledger
from kpy.snapshot.diff import differences, text
from kpy.snapshot.recorder import Recorder
from kpy.snapshot.scan import Index, scan
from kpy.util.checkpoint import checkpoint
from kpy.util.erase import empty, remove
from kpy.util.mountinfo import mount_points

_TRIES = 20


class Ground(Protocol):
    """The place of a root. Paths in `keep` are relative to the root, for what is not the image's."""

    @property
    def root(self) -> str:
        """The root, as processes see it."""
        ...

    @property
    def home(self) -> str:
        """Where it is unpacked."""
        ...

    def mounts(self) -> AbstractSet[bytes]:
        """Mount points in the root that are not part of it."""
        ...

    def empty(self, keep: AbstractSet[bytes], /) -> list[bytes]:
        """Remove all but what is kept; what could not be removed."""
        ...

    def options(self, keep: AbstractSet[bytes], /) -> ExtractOptions:
        """How to unpack into it."""
        ...

    def settle(self, tree: Tree, keep: AbstractSet[bytes], /) -> None:
        """All of the tree is unpacked. Raises SandboxError if this root cannot hold it."""
        ...

    def scan(self, keep: AbstractSet[bytes], /) -> Index:
        """Index it."""
        ...

    def differences(self, before: Index, after: Index, tree: Tree, /) -> Iterator[LayerItem]:
        """What changed between two scans; `tree` is of the first."""
        ...


class Directory:
    """A directory of our own, or `/` where this process may do anything there. Implements Ground.

    `owners` is whether this process may give files any owner; with a `ledger`, what they are is written there. `own`: nothing
    in it is anybody else's, whatever `keep` names.
    """

    def __init__(self, root: str, *, owners: bool = True, ledger: Ledger | None = None, own: bool = False) -> None:
        self.root = self.home = os.path.realpath(root)
        self._owners = owners
        self._own = own
        self._ledger = ledger

    def mounts(self) -> AbstractSet[bytes]:
        """See Ground."""
        return frozenset(mount_points(self.root))

    def empty(self, keep: AbstractSet[bytes], /) -> list[bytes]:
        """See Ground."""
        os.makedirs(self.root, mode=0o755, exist_ok=True)
        stuck = empty(self.root, keep, look=checkpoint) if not self._own or self.mounts() else self._another()
        try:
            os.chown(self.root, 0, 0)
            os.chmod(self.root, 0o755)  # noqa: S103 - a directory of every image
        except PermissionError:
            pass  # not root: `/` stays as the runtime made it
        if self._ledger is not None:
            self._ledger.records.clear()
        return stuck

    def _another(self) -> list[bytes]:
        """Have an empty directory that is another one than before: a RUN of another build can have been handed a descriptor
        of that one (unix(7), SCM_RIGHTS), and nothing is to come into the next stage by it."""
        old = f"{self.root}.{secrets.token_hex(8)}"
        os.rename(self.root, old)
        os.mkdir(self.root)
        remove(old, look=checkpoint)
        return []

    def options(self, keep: AbstractSet[bytes], /) -> ExtractOptions:
        """See Ground."""
        return extract_options(keep, self._ledger, owners=self._owners)

    def settle(self, tree: Tree, keep: AbstractSet[bytes], /) -> None:
        """See Ground."""

    def scan(self, keep: AbstractSet[bytes], /) -> Index:
        """See Ground."""
        return scan(self.home, keep, ledger=self._ledger)

    def differences(self, before: Index, after: Index, tree: Tree, /) -> Iterator[LayerItem]:
        """See Ground."""
        return differences(self.home, before, after, tree.lookup, self._ledger)


def extract_options(
    keep: AbstractSet[bytes], ledger: Ledger | None, *, owners: bool = True, slots: Mapping[str, str] | None = None
) -> ExtractOptions:
    """To leave alone what is kept, and to write into the ledger."""
    skip = frozenset(text(path) for path in keep).__contains__
    notes = Recorder(ledger) if ledger is not None else None
    return ExtractOptions(skip=skip, owners=owners, notes=notes, slots=slots or {})


_: type[Ground] = Directory
