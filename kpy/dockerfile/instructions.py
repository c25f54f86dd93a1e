"""Every instruction as a type. Values are as written: variables are not yet expanded.

`span` says where it stands; `original` is the instruction's text as one line with continuations joined and
comments dropped (heredoc bodies not included), as BuildKit's parser keeps it.
"""

from dataclasses import dataclass
from typing import TypeAlias

from kpy.dockerfile.span import Span


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document (H01-H09). `content` is after `<<-` chomping; `expand` is False for quoted delimiters.

    `fd` is the prefix digits as a number (0 when there are none). `raw` is the content before chomping.
    """

    name: str
    content: str
    expand: bool
    chomp: bool
    fd: int = 0
    raw: str = ""


@dataclass(frozen=True, slots=True)
class ShellForm:
    """The text after the keyword, for a shell. For RUN with heredocs, `text` is the first line as written."""

    text: str


@dataclass(frozen=True, slots=True)
class ExecForm:
    """A JSON array of strings."""

    argv: tuple[str, ...]


Command: TypeAlias = ShellForm | ExecForm


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One `key=value`, both as written (quotes included); `value` None for an ARG without `=`."""

    key: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Mount:
    """One `--mount` of RUN (R13-R18), as written after CSV splitting. None: the key was not given.

    `kind` is bind, cache, tmpfs, secret or ssh. Values may hold variables (all keys but `from`).
    """

    kind: str = "bind"
    source: str | None = None
    target: str | None = None
    from_: str | None = None
    id: str | None = None
    read_only: bool | None = None
    required: bool | None = None
    sharing: str | None = None
    mode: str | None = None
    uid: str | None = None
    gid: str | None = None
    size: str | None = None
    env: str | None = None


@dataclass(frozen=True, slots=True)
class From:
    """FROM [--platform=] image [AS name]. `name` is lower-cased; `name_written` is as in the file."""

    span: Span
    original: str
    image: str
    platform: str = ""
    name: str = ""
    name_written: str = ""
    as_keyword: str = ""
    keyword: str = "FROM"


@dataclass(frozen=True, slots=True)
class Arg:
    """ARG a b=c …"""

    span: Span
    original: str
    args: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class Env:
    """ENV a=b c=d, or the legacy form `ENV a b c` (`legacy`, whose value is one piece)."""

    span: Span
    original: str
    pairs: tuple[KeyValue, ...]
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Label:
    """LABEL, in the same forms as ENV."""

    span: Span
    original: str
    pairs: tuple[KeyValue, ...]
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """RUN [--mount= --network= --security= --device=] command, with its heredocs."""

    span: Span
    original: str
    command: Command
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY. `sources` without the heredocs that `heredocs` holds; `dest` is the last word."""

    span: Span
    original: str
    sources: tuple[str, ...]
    dest: str
    heredocs: tuple[Heredoc, ...] = ()
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Add:
    """ADD. `unpack` and `keep_git_dir` are None when the flag was not given."""

    span: Span
    original: str
    sources: tuple[str, ...]
    dest: str
    heredocs: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None


@dataclass(frozen=True, slots=True)
class Cmd:
    """CMD."""

    span: Span
    original: str
    command: Command


@dataclass(frozen=True, slots=True)
class Entrypoint:
    """ENTRYPOINT."""

    span: Span
    original: str
    command: Command


@dataclass(frozen=True, slots=True)
class HealthcheckInstruction:
    """HEALTHCHECK. `command` None is NONE. Durations in ns, 0 = not given."""

    span: Span
    original: str
    command: Command | None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Workdir:
    """WORKDIR."""

    span: Span
    original: str
    path: str


@dataclass(frozen=True, slots=True)
class User:
    """USER."""

    span: Span
    original: str
    user: str


@dataclass(frozen=True, slots=True)
class Expose:
    """EXPOSE."""

    span: Span
    original: str
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Volume:
    """VOLUME."""

    span: Span
    original: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StopSignal:
    """STOPSIGNAL."""

    span: Span
    original: str
    signal: str


@dataclass(frozen=True, slots=True)
class Shell:
    """SHELL."""

    span: Span
    original: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Maintainer:
    """MAINTAINER."""

    span: Span
    original: str
    name: str


@dataclass(frozen=True, slots=True)
class Onbuild:
    """ONBUILD. `expression` is the inner instruction's text, heredoc bodies included, as the config stores it; `problem` is
    why it will fail, if it will."""

    span: Span
    original: str
    expression: str
    problem: str = ""


Instruction: TypeAlias = (
    Arg | Env | Label | Run | Copy | Add | Cmd | Entrypoint | HealthcheckInstruction | Workdir | User | Expose
    | Volume | StopSignal | Shell | Maintainer | Onbuild
)  # fmt: skip
