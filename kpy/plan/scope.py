"""ARG and ENV scoping (A01-A12): which value a name has where."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kpy.dockerfile.forms import FormError
from kpy.dockerfile.instructions import Arg, KeyValue
from kpy.dockerfile.span import Span
from kpy.dockerfile.words import brief, expand
from kpy.errors import DockerfileError
from kpy.oci.platform import Platform
from kpy.plan.effort import LARGEST_SCOPE, Effort

# Usable in RUN without an ARG; kept out of history and cache key unless declared (A08).
PROXY_ARGS = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY",
              "no_proxy", "ALL_PROXY", "all_proxy")  # fmt: skip

_ROW = 100  # bytes of a variable in a dict, about

# Read by the builder, not given to RUN (A10).
NON_ENV_ARGS = ("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE")


def platform_args(build: Platform, target: Platform, stage: str) -> dict[str, str]:
    """The predefined platform arguments (A09); `stage` is the name of the target stage, "" if it has none."""
    found: dict[str, str] = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}OSVERSION"] = platform.os_version
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    found["TARGETSTAGE"] = stage or "default"
    return found


@dataclass
class Globals:
    """The arguments before the first FROM, with the predefined ones; only FROM lines see them."""

    build_args: Mapping[str, str]
    values: dict[str, str] = field(default_factory=dict)
    declared: dict[str, Span] = field(default_factory=dict)

    @staticmethod
    def evaluate(
        args: tuple[Arg, ...], predefined: Mapping[str, str], build_args: Mapping[str, str], escape: str, effort: Effort | None = None
    ) -> "Globals":
        """Evaluate the global ARGs in order; --build-arg wins. Raises DockerfileError."""
        effort = effort or Effort()
        found = Globals(build_args, {key: build_args.get(key, value) for key, value in predefined.items()})
        for instruction in args:
            for item in instruction.args:
                found.declared[item.key] = instruction.span
                value = build_args.get(item.key)
                if value is None and item.value is not None:
                    value = expand_in(item.value, found.values, instruction.span, escape, effort)
                if value is not None:
                    found.values[item.key] = value
        return found


def expand_in(word: str, env: Mapping[str, str], span: Span, escape: str, effort: Effort) -> str:
    """Expand a word; a mistake becomes a DockerfileError at the span."""
    try:
        found = expand(word, env, escape=escape).text
    except FormError as error:
        raise unprocessed(word, span, error) from error
    effort.spend(len(found) - len(word), span)
    return found


def unprocessed(word: str, span: Span, error: FormError) -> DockerfileError:
    """The error for a word that cannot be expanded."""
    return span.error(f"failed to process {brief(word)!r}: {error.message}", hint=error.hint)


@dataclass
class Scope:
    """The variables of one stage at one point of it. Later declarations win, ENV or ARG (A04).

    `env` is what expansion and RUN see, in order of declaration. `args` are the declared ARGs with their values, in
    order, for the history (A13).
    """

    env: dict[str, str] = field(default_factory=dict)
    args: list[KeyValue] = field(default_factory=list)
    size: int = 0

    def __post_init__(self) -> None:
        self.size = sum(len(name) + len(value) for name, value in self.env.items())

    def child(self, image: Mapping[str, str], effort: Effort, span: Span) -> "Scope":
        """The scope of a stage that is built FROM this one (A03): what its image's ENV says is stronger there than an ARG
        that came later."""
        effort.spend((len(self.env) + len(self.args)) * _ROW, span)
        return Scope({**self.env, **image}, list(self.args))

    def set(self, name: str, value: str, span: Span) -> None:
        """Give a variable a value; its place stays. Raises DockerfileError if they are too many, or too long."""
        before = self.env.get(name)
        self.size += len(value) - len(before) if before is not None else len(name) + len(value)
        if self.size > LARGEST_SCOPE:
            raise span.error(
                f"with {brief(name)}, the variables of this stage have more than {LARGEST_SCOPE >> 20} MiB", hint="put large texts into files of the context"
            )
        self.env[name] = value

    def unset(self, name: str) -> None:
        """Forget a variable, and its place."""
        value = self.env.pop(name, None)
        if value is not None:
            self.size -= len(name) + len(value)

    def declare(self, item: KeyValue, outer: Globals, span: Span, escape: str, effort: Effort) -> KeyValue:
        """ARG: --build-arg, else the default, else the global value of that name, else not set (A01, A07)."""
        value = outer.build_args.get(item.key)
        if value is None:
            value = outer.values.get(item.key) if item.value is None else expand_in(item.value, self.env, span, escape, effort)
        if value is not None and item.key not in NON_ENV_ARGS:
            self.set(item.key, value, span)
        found = KeyValue(item.key, value)
        self.args.append(found)
        return found

    def run_prefix(self) -> list[str]:
        """`|N k=v …`, what RUN's history starts with when there are ARGs with values (A13)."""
        shown: dict[str, str] = {}
        for item in self.args:
            shown[item.key] = f"{item.key}={self.env.get(item.key, item.value or '')}"
        return [f"|{len(shown)}", *shown.values()] if shown else []
