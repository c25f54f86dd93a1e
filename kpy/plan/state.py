"""One stage while it is being planned: what the instructions so far have made of it."""

from dataclasses import dataclass, field, replace

from kpy.dockerfile.model import Stage
from kpy.oci.config import DEFAULT_PATH, History, ImageConfig, RuntimeConfig
from kpy.oci.platform import Platform
from kpy.plan.history import entry
from kpy.plan.scope import Scope


@dataclass
class StageState:
    """Mutable on purpose, and private to the planner: it is handed from instruction to instruction."""

    stage: Stage
    platform: Platform
    step: str
    scope: Scope
    runtime: RuntimeConfig
    base: ImageConfig
    history: list[History] = field(default_factory=list)
    author: str = ""
    cmd_set: bool = False
    workdir_set: bool = False
    position: int = 1
    total: int = 1

    def note(self, text: str, *, layer: bool = False, marked: bool | None = None) -> None:
        """Add to the history; layers are marked, unless `marked` says otherwise."""
        self.history.append(entry(text, layer=layer, marked=layer if marked is None else marked))

    def next_name(self, text: str, *, alone: bool) -> str:
        """`[stage 2/5] TEXT` for the next step that touches files."""
        self.position += 1
        label = "" if alone and not self.stage.name else f"{self.stage.label} "
        return f"[{label}{self.position}/{max(self.total, self.position)}] {text}"

    @property
    def workdir(self) -> str:
        """The working directory, absolute."""
        return absolute("/", self.runtime.workdir or "/")

    @property
    def shell(self) -> tuple[str, ...]:
        """What shell forms are run with (I08)."""
        return self.runtime.shell or ("/bin/sh", "-c")


def absolute(workdir: str, path: str) -> str:
    """`path` from `workdir`, cleaned: no `.`, `..`, doubled or trailing slashes."""
    joined = path if path.startswith("/") else f"{workdir}/{path}"
    parts: list[str] = []
    for part in joined.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def with_default_path(runtime: RuntimeConfig) -> RuntimeConfig:
    """Every image has a PATH (A15)."""
    if runtime.getenv("PATH") is not None:
        return runtime
    return replace(runtime, env=(*runtime.env, f"PATH={DEFAULT_PATH}"))


def initial_env(runtime: RuntimeConfig) -> dict[str, str]:
    """The variables that a stage starts with: those of the image's configuration."""
    env: dict[str, str] = {}
    for item in runtime.env:
        name, equals, value = item.partition("=")
        if equals:
            env[name] = value
    return env
