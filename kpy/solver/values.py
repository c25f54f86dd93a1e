"""What a step gives to the next one: a chain of layers, or a tree of files. And what steps are run with."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from kpy.cache.base import Cache
from kpy.events import Reporter
from kpy.layer.compress import Compression
from kpy.layer.source import FileSource
from kpy.oci.image import Chain
from kpy.plan.model import GitOp, HttpOp
from kpy.sandbox.base import Sandbox
from kpy.snapshot.base import Snapshotter
from kpy.solver.content import Layers
from kpy.solver.hashing import ContentHashes
from kpy.store.store import Store
from kpy.util.cancel import Cancel


@dataclass(frozen=True, slots=True)
class ChainValue:
    """A root file system; the first `base` layers are those of an image that somebody else made."""

    chain: Chain
    base: int = 0


@dataclass(frozen=True, slots=True)
class FilesValue:
    """Files that are no root file system: a build context, a download. `root` is a directory that has exactly these
    files, if there is one. `local`: archives in it are unpacked by ADD."""

    source: FileSource
    root: str = ""
    local: bool = False


Value: TypeAlias = ChainValue | FilesValue


@dataclass(frozen=True, slots=True)
class Context:
    """A build context: its files, and the directory if nothing in it is excluded."""

    files: FileSource
    root: str = ""


class Strategy(Protocol):
    """How RUN is done here; made when the first RUN needs it. Raises SandboxError when no RUN can be done."""

    def __call__(self) -> tuple[Snapshotter, Sandbox]:
        """The snapshotter and the sandbox, the same each time."""
        ...


class SocketFor(Protocol):
    """An SSH agent of `--ssh`."""

    def __call__(self, *, uid: int, gid: int, mode: int) -> AbstractContextManager[str]:
        """The path of a socket of that owner and mode, behind which the agent is while the block runs. Raises
        SandboxError."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """All that steps need. `spool` is a directory for temporary files of
    this build. `secrets` give their value when asked; `ssh` are
    agents by id; `allow` are entitlements; `epoch` is SOURCE_DATE_EPOCH in seconds (A16); `no_cache_stages` are names."""

    store: Store
    cache: Cache
    layers: Layers
    hashes: ContentHashes
    strategy: Strategy
    contexts: Mapping[str, Context]
    report: Reporter
    cancel: Cancel
    compression: Compression
    fetch: Callable[[HttpOp | GitOp, str], FilesValue]
    spool: str
    secrets: Mapping[str, Callable[[], bytes]] = field(default_factory=dict, repr=False)
    ssh: Mapping[str, SocketFor] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    epoch: int | None = None
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    jobs: int = 4
