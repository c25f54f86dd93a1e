"""Build checks that depend on variables, images, .dockerignore: asked by the planner at what it plans anyway."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Protocol

from kpy.dockerfile import instructions as ins
from kpy.dockerfile.dockerignore import Ignore, clean
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.lint import rules
from kpy.dockerfile.lint.rules import Finding
from kpy.dockerfile.model import Dockerfile, Stage
from kpy.dockerfile.span import Span
from kpy.dockerfile.words import expand, expand_heredoc
from kpy.errors import DockerfileError, UsageError
from kpy.oci.platform import Platform
from kpy.oci.reference import Reference
from kpy.plan.effort import Effort
from kpy.plan.scope import NON_ENV_ARGS, Globals, Scope

_TARGET = "TARGETPLATFORM"


class Planner(Protocol):
    """What the checks of FROM need of the planner of a whole Dockerfile."""

    dockerfile: Dockerfile
    globals: Globals
    effort: Effort
    escape: str


class _Asked(Mapping[str, str]):
    """Variables that remember which of them were asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values_of = values
        self.names: dict[str, bool] = {}

    def __getitem__(self, name: str) -> str:
        self.names[name] = name in self.values_of
        return self.values_of[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_of)

    def __len__(self) -> int:
        return len(self.values_of)


def variables_in(word: str, values: Mapping[str, str], escape: str) -> dict[str, bool]:
    """The variables that a word uses, and whether each is set. A word that cannot be expanded uses none."""
    asked = _Asked(values)
    try:
        expand(word, asked, escape=escape)
    except FormError:
        return {}
    return asked.names


# --- FROM ---------------------------------------------------------------------


def check_froms(planner: Planner, predefined: Mapping[str, str], named: Collection[str]) -> Iterator[Finding]:
    """Every FROM, also of stages that are not needed. `named` are the contexts that stand for images."""
    yield from _defaults(planner, predefined)
    earlier: set[str] = set()
    for stage in planner.dockerfile.stages:
        planner.effort.check()
        yield from _undeclared(planner, stage.start)
        yield from _platform(planner, stage)
        yield from _unpinned(planner, stage.start, earlier, named)
        earlier.add(stage.name)


def _undeclared(planner: Planner, start: ins.From) -> Iterator[Finding]:
    known = {**planner.globals.values, **dict.fromkeys(planner.globals.declared, "")}
    for word in (start.image, start.platform):
        try:
            unset = expand(word, planner.globals.values, escape=planner.escape).unset
        except FormError:
            continue
        for name in sorted(unset - known.keys()):
            yield rules.UNDEFINED_ARG_IN_FROM.found(
                f"the variable {name} in FROM is not declared{_near(name, known)}", start.span
            )


def _platform(planner: Planner, stage: Stage) -> Iterator[Finding]:
    written, span = stage.start.platform, stage.start.span
    if not written:
        return
    values = planner.globals.values
    used = variables_in(written, values, planner.escape)
    try:
        text = expand(written, values, escape=planner.escape).text
        platform = Platform.parse(text)
    except (FormError, UsageError):
        return
    if used == {_TARGET: True} and text == values[_TARGET]:
        yield rules.REDUNDANT_TARGET_PLATFORM.found(f"--platform={written} is what FROM does anyway", span)
    # A stage that is named after its platform is for that platform alone.
    if not used and platform.os not in stage.name and platform.architecture not in stage.name:
        yield rules.FROM_PLATFORM_FLAG_CONST_DISALLOWED.found(f'--platform="{text}" is a constant', span)


def _defaults(planner: Planner, predefined: Mapping[str, str]) -> Iterator[Finding]:
    """As if no build argument were given."""
    try:
        values = Globals.evaluate(planner.dockerfile.global_args, predefined, {}, planner.escape, planner.effort).values
    except DockerfileError:
        return
    for stage in planner.dockerfile.stages:
        image, span = stage.start.image, stage.start.span
        planner.effort.check()
        if "$" not in image:
            continue  # as wrong as it may be, defaults have no part in it
        try:
            Reference.parse(expand(image, values, escape=planner.escape).text)
        except (FormError, UsageError):
            yield rules.INVALID_DEFAULT_ARG_IN_FROM.found(
                f"with the defaults of its arguments, {image} is no valid image name", span
            )


def _unpinned(
    planner: Planner, start: ins.From, earlier: Collection[str], named: Collection[str]
) -> Iterator[Finding]:
    try:
        image = expand(start.image, planner.globals.values, escape=planner.escape).text
        known = image == "scratch" or image.lower() in earlier or image.lower() in named
        if known or Reference.parse(image).digest is not None:
            return
    except (FormError, UsageError):
        return
    yield rules.UNPINNED_BASE.found(f"{image} may be another image tomorrow: add its @sha256 digest", start.span)


# --- variables ----------------------------------------------------------------


def check_variables(unset: Iterable[str], scope: Scope, span: Span) -> Iterator[Finding]:
    """Variables that an instruction used and nothing defines. An ARG without a value is a definition."""
    declared = {item.key for item in scope.args}
    for name in sorted(unset):
        if name not in declared and name not in NON_ENV_ARGS:
            near = _near(name, [*scope.env, *declared], "$")
            yield rules.UNDEFINED_VAR.found(f"the variable ${name} is not defined{near}", span)


def _near(name: str, known: Iterable[str], mark: str = "") -> str:
    """` (did you mean …?)`, if something is near."""
    by_lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    return f" (did you mean {mark}{by_lower[near[0]]}?)" if near and by_lower[near[0]] != name else ""


# --- instructions -------------------------------------------------------------


def check_command(item: ins.Cmd | ins.Entrypoint, *, has_shell: bool) -> Iterator[Finding]:
    """Shell form; unless a SHELL says that it is meant."""
    if isinstance(item.command, ins.ShellForm) and not has_shell:
        keyword = item.original.split(maxsplit=1)[0]
        yield rules.JSON_ARGS_RECOMMENDED.found(
            f"{keyword} is in shell form: a shell runs it, and does not pass signals on", item.span
        )


def check_trigger(item: ins.Onbuild) -> Iterator[Finding]:
    """It is stored as it is, and fails where somebody builds on this image."""
    if item.problem:
        yield rules.BROKEN_TRIGGER.found(f"{item.expression.splitlines()[0][:60]!r} will fail where it runs: {item.problem}", item.span)


def check_workdir(item: ins.Workdir, path: str, *, is_first: bool) -> Iterator[Finding]:
    """The first WORKDIR of a stage and the stages it is built from; the others stand on it."""
    if is_first and not path.startswith("/"):
        yield rules.WORKDIR_RELATIVE_PATH.found(
            f'WORKDIR "{path}" is relative to whatever the base image has', item.span
        )


def check_expose(words: Iterable[str], span: Span) -> Iterator[Finding]:
    """Expanded words of EXPOSE."""
    for word in words:
        port, _, protocol = word.partition("/")
        if protocol != protocol.lower():
            yield rules.EXPOSE_PROTO_CASING.found(f'the protocol of "{word}" should be lower case', span)
        if ":" in port:
            yield rules.EXPOSE_INVALID_FORMAT.found(
                f'"{word}" names an address or port of the host, which EXPOSE cannot set', span
            )


def check_copy(
    item: ins.Copy | ins.Add, scope: Scope, escape: str, ignore: Ignore, *, is_empty: bool
) -> Iterator[Finding]:
    """COPY and ADD: files of the context, heredocs, owners. What cannot be expanded is the planner's to say."""
    try:
        sources = [expand(word, scope.env, escape=escape).text for word in item.sources]
        chown = expand(item.chown, scope.env, escape=escape).text
        bodies = [expand_heredoc(doc.content, scope.env) for doc in item.heredocs if doc.expand]
    except FormError:
        return
    for body in bodies:
        yield from check_variables(body.unset, scope, item.span)
    if isinstance(item, ins.Add) or not item.from_:
        yield from _ignored(item, sources, ignore)
    names = [part for part in chown.partition(":")[::2] if part and not part.isdecimal()]
    if is_empty and names:
        yield rules.UNKNOWN_CHOWN_USER.found(
            f"--chown={chown}: the image is still empty, no /etc/passwd in it could know {names[0]!r}", item.span
        )


def _ignored(item: ins.Copy | ins.Add, sources: Iterable[str], ignore: Ignore) -> Iterator[Finding]:
    """Sources that .dockerignore leaves out. With `!` patterns only the files themselves could tell."""
    if any(rule.keep for rule in ignore.rules):
        return
    for source in sources:
        path = clean(source).lstrip("/")
        is_remote = "://" in source or source.startswith("git@")
        if path not in ("", ".") and not is_remote and ignore.matches(path):
            keyword = "ADD" if isinstance(item, ins.Add) else "COPY"
            yield rules.COPY_IGNORED_FILE.found(f'{keyword} of "{path}", which .dockerignore excludes', item.span)
