"""The plan: operations, steps, targets. A step's id is the digest of its operation and its inputs' ids.

Metadata instructions are never steps: they are folded into `Target.runtime`. Only FROM, WORKDIR, COPY, ADD and RUN
touch files.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.remotes import GitRemote
from kpy.dockerfile.span import Source, Span
from kpy.oci.config import History, ImageConfig, RuntimeConfig
from kpy.oci.digest import Digest
from kpy.oci.image import Image
from kpy.oci.platform import Platform
from kpy.util.keyed import beside

LINUX_AMD64 = Platform("linux", "amd64")


@dataclass(frozen=True, slots=True)
class BaseImage:
    """An image that a FROM, a --from or a named context means. `name` is how the user wrote it."""

    name: str
    image: Image
    digest: Digest
    other_platform: bool = False


@dataclass(frozen=True, slots=True)
class ImageOp:
    """An image of a registry or of the store, for one platform. `content` are the digests of its configuration and layers: that
    of the name may be an index's, which is one for all platforms."""

    content: tuple[str, ...]
    name: str = beside("how the user wrote it; `content` is what it means")
    base: BaseImage = beside("it is what `content` tells", compare=False, repr=False)

    @staticmethod
    def of(base: BaseImage) -> "ImageOp":
        """The operation that gives this image's files."""
        found = base.image.manifest
        return ImageOp(tuple(str(item.digest) for item in (found.config, *found.layers)), base.name, base)


@dataclass(frozen=True, slots=True)
class ScratchOp:
    """Nothing."""


@dataclass(frozen=True, slots=True)
class ContextOp:
    """A directory of files: the build context ("") or a named one."""

    name: str


@dataclass(frozen=True, slots=True)
class HttpOp:
    """One file from a URL (ADD, named contexts). `checksum` is what it must have, or "". `filename` "": as the server
    says, or the last part of the URL."""

    url: str
    checksum: str = ""
    filename: str = ""


@dataclass(frozen=True, slots=True)
class GitOp:
    """The checkout of a git repository (ADD, named contexts). `keep_git_dir`: with its .git."""

    remote: GitRemote
    keep_git_dir: bool = False


@dataclass(frozen=True, slots=True)
class MountOp:
    """A mount of a RUN. `input` is the position of its source among the step's inputs, -1 for none. `namespace`
    is that of a cache's id: caches of another one are others, whatever their ids."""

    kind: str
    target: str
    source: str = ""
    input: int = beside("the key has what is mounted, by content", in_steps=True, default=-1)
    read_only: bool = True
    id: str = ""
    sharing: str = "shared"
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    env: str = ""
    required: bool = False
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class RunOp:
    """A command. `hostname` "": buildkitsandbox.

    `script` is a heredoc with `#!`, as (name, content), seen below /dev/pipes (H07).
    """

    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    mounts: tuple[MountOp, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[str, ...] = ()
    script: tuple[str, str] | None = None
    hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0
    platform: str = ""
    proxies: tuple[str, ...] = beside("how the network is reached is no part of what is made", in_steps=True, default=())
    ulimits: tuple[tuple[str, int, int], ...] = ()
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class CopySource:
    """Where one group of sources of a COPY or ADD comes from.

    `input` is the position among the step's inputs. `unpack` None: archives of the local context are unpacked by ADD
    as C22 says; True and False are what `--unpack` says; COPY never unpacks (False).
    """

    input: int
    paths: tuple[str, ...]
    unpack: bool | None = False


@dataclass(frozen=True, slots=True)
class CopyOp:
    """COPY or ADD. Input 0 is the root file system that is copied to. `dest` is absolute; a trailing `/` counts.

    `heredocs` are (name, content). `keep_owner`: sources are of a stage or an image, and keep their owner (C07).
    """

    dest: str
    sources: tuple[CopySource, ...] = ()
    heredocs: tuple[tuple[str, str], ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    keep_owner: bool = False
    is_add: bool = False


@dataclass(frozen=True, slots=True)
class WorkdirOp:
    """Make the directory if it is not there, owned by `user` (I12)."""

    path: str
    user: str


Op: TypeAlias = ImageOp | ScratchOp | ContextOp | HttpOp | GitOp | RunOp | CopyOp | WorkdirOp


@dataclass(frozen=True, slots=True)
class Step:
    """One operation. `name` is what progress shows, such as `[builder 2/5] RUN make`."""

    id: str
    op: Op
    inputs: tuple[str, ...]
    name: str
    stage: str = ""
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The result for one platform: the step whose chain it is, its configuration, and the history of what this build
    added to the base's. `base` is the configuration that the stage started from (scratch: an empty one)."""

    platform: Platform
    step: str
    runtime: RuntimeConfig
    history: tuple[History, ...]
    base: ImageConfig
    author: str = ""
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know of the Dockerfile."""

    message: str
    span: Span | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in an order in which inputs come first, and one target for each platform. `source` is the Dockerfile's text,
    which the triggers of a base image are not from."""

    steps: tuple[Step, ...]
    targets: tuple[Target, ...]
    warnings: tuple[Notice, ...] = ()
    source: Source | None = field(default=None, compare=False, repr=False)


ResolveImage: TypeAlias = Callable[[str, Platform], BaseImage]
"""Find an image by the name in the Dockerfile. Raises RegistryError, UsageError, ContentError."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the command line adds. `build_args` values None: not set in the environment (A05).

    `ignore` and `every_stage` are for the build checks: the main context's .dockerignore, and whether stages that the
    target does not need are planned too.

    `contexts` are the named contexts: (name, kind, value), where the value of `image` is a reference, of `git` and
    `http` a URL, and of `local` nothing.
    """

    build_args: tuple[tuple[str, str], ...] = ()
    target: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    build_platform: Platform = LINUX_AMD64
    platforms: tuple[Platform, ...] = ()
    contexts: tuple[tuple[str, str, str], ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()
    network: str = ""
    shm_size: int = 0
    ulimits: tuple[tuple[str, int, int], ...] = ()
    ignore: Ignore = field(default_factory=Ignore)
    every_stage: bool = False
