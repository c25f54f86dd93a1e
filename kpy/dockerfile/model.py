"""A parsed Dockerfile as values: spans, stages, the whole. Knows nothing of how text is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kpy.dockerfile.instructions import Arg, From, Instruction
from kpy.dockerfile.span import Source, Span


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM and what follows. `name` is lower case, or empty; `index` counts from 0."""

    index: int
    name: str
    start: From
    instructions: tuple[Instruction, ...]

    @property
    def label(self) -> str:
        """The name, or `stage-N` as BuildKit prints unnamed stages."""
        return self.name or f"stage-{self.index}"


@dataclass(frozen=True, slots=True)
class Directives:
    """Parser directives: `# syntax=`, `# escape=`, `# check=` (P02-P05)."""

    syntax: str = ""
    escape: str = "\\"
    check: str = ""
    spans: Mapping[str, Span] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A whole Dockerfile. `global_args` are the ARGs before the first FROM, in order."""

    source: Source
    directives: Directives
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
