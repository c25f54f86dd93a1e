"""SOURCE_DATE_EPOCH (A16): seconds, or the name of something remote that has a time of its own.

`context` is the main build context, else it is a named context, else a stage: FROM scratch with ARGs and exactly one
remote ADD. A git repository has the time of its commit, a URL its Last-Modified, and an archive without that the
newest time of a file in it. What has none of these (a local directory, an image) leaves it unset, as in BuildKit.
"""

import re
from dataclasses import replace

from kpy.app.options import BuildOptions, Environment
from kpy.app.remotes import Remotes
from kpy.app.sources import Sources
from kpy.buildcontext.http import Download
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.instructions import Add, Arg, KeyValue
from kpy.dockerfile.model import Dockerfile, Stage
from kpy.dockerfile.remotes import is_git, is_http, parse_checksum, parse_git, url_filename
from kpy.dockerfile.span import suggest
from kpy.errors import ContentError, UsageError
from kpy.events import Reporter, Warned, step
from kpy.layer.decompress import decompressor
from kpy.layer.entry import Kind
from kpy.layer.source import FileSource
from kpy.layer.tarread import read_tar
from kpy.oci import platform as platforms
from kpy.plan.effort import Effort
from kpy.plan.model import GitOp, HttpOp
from kpy.plan.names import NamedContexts
from kpy.plan.scope import Globals, expand_in, platform_args
from kpy.solver.lookup import walk

NAME = "SOURCE_DATE_EPOCH"
_NUMBER = re.compile(r"[0-9]{1,12}")
_SECOND = 1_000_000_000
_MAX_ARCHIVE = 64 << 30


def settle(
    options: BuildOptions, environment: Environment, sources: Sources, remotes: Remotes, report: Reporter
) -> tuple[BuildOptions, Sources, int | None]:
    """The epoch in seconds, None if there is none; and options and sources in which it is a number wherever it was
    a name: --build-arg, the environment, or the default of a global ARG. Raises UsageError, DockerfileError."""
    given = dict(options.build_args)
    if NAME not in given and environment.variables.get(NAME):
        given[NAME] = environment.variables[NAME]  # buildx passes it on as a build argument
        options = replace(options, build_args=tuple(given.items()))
    scope = _global_scope(sources.dockerfile, options)
    text = scope.values.get(NAME, "") if NAME in scope.declared else given.get(NAME, "")
    if not text:
        return options, sources, None
    if _NUMBER.fullmatch(text):
        return options, sources, int(text)
    seconds = _Named(options, sources, remotes, report, scope).seconds(text)
    if seconds is None:
        report(Warned(f"{NAME}={text}: it has no time of its own", "a git or http(s) URL has; without one it stays unset"))
    number = "" if seconds is None else str(seconds)
    if NAME in given:
        given[NAME] = number
        return replace(options, build_args=tuple(given.items())), sources, seconds
    return options, replace(sources, dockerfile=_with_default(sources.dockerfile, number)), seconds


def _global_scope(dockerfile: Dockerfile, options: BuildOptions) -> Globals:
    platform = options.platforms[0] if options.platforms else platforms.host()
    predefined = platform_args(platforms.host(), platform, options.target)
    return Globals.evaluate(dockerfile.global_args, predefined, dict(options.build_args), dockerfile.directives.escape)


def _with_default(dockerfile: Dockerfile, number: str) -> Dockerfile:
    """The Dockerfile with another default of the global ARG."""
    arguments = tuple(
        replace(item, args=tuple(KeyValue(NAME, number) if arg.key == NAME else arg for arg in item.args))
        for item in dockerfile.global_args
    )
    return replace(dockerfile, global_args=arguments)


class _Named:
    """Finds what a name means, and its time."""

    def __init__(
        self, options: BuildOptions, sources: Sources, remotes: Remotes, report: Reporter, scope: Globals
    ) -> None:
        self._options = options
        self._sources = sources
        self._remotes = remotes
        self._report = report
        self._scope = scope

    def seconds(self, name: str) -> int | None:
        """The time of what has this name; None if it has none."""
        if name == "context":
            return self._sources.modified or _newest(self._sources.contexts[""].files)
        platform = self._options.platforms[0] if self._options.platforms else platforms.host()
        found = NamedContexts(self._sources.named).find(name, platform)
        if found is not None:
            kind, value = found
            if kind == "http":
                return self._time_of(HttpOp(value, "", url_filename(value)))
            return self._time_of(GitOp(parse_git(value))) if kind == "git" else None
        stages = self._sources.dockerfile.stages
        for stage in stages:
            if stage.name == name.lower():
                return self._time_of(self._source_of(stage))
        known = [stage.name for stage in stages if stage.name]
        raise UsageError(
            f"invalid {NAME} {name!r}: it is no number of seconds, and no stage or named context",
            hint=suggest(name.lower(), ["context", *known]) or "it may be `context` too",
        )

    def _time_of(self, op: HttpOp | GitOp) -> int | None:
        with step(self._report, "epoch", f"resolve {NAME}"):
            source = self._remotes.fetch(op, "epoch").source
        if isinstance(source, Download):
            return _time_of_download(source)
        entry = source.lookup("")
        return entry.mtime // _SECOND if entry is not None else None

    def _source_of(self, stage: Stage) -> HttpOp | GitOp:
        """The one remote ADD of a stage that has nothing else."""
        escape, effort = self._sources.dockerfile.directives.escape, Effort()
        values = {key: value for key, value in self._scope.values.items() if key != NAME}
        rule = f"a stage that is {NAME} must be FROM scratch with exactly one remote ADD"
        if expand_in(stage.start.image, values, stage.start.span, escape, effort) != "scratch":
            raise stage.start.span.error(f"{NAME} stage must use FROM scratch", hint=rule)
        found: HttpOp | GitOp | None = None
        for item in stage.instructions:
            if isinstance(item, Arg):
                for arg in item.args:
                    value = self._scope.build_args.get(arg.key)
                    if value is None and arg.value is not None:
                        value = expand_in(arg.value, values, item.span, escape, effort)
                    if value is not None:
                        values[arg.key] = value
            elif isinstance(item, Add) and found is None:
                found = _remote(item, values, escape, effort, rule)
            else:
                raise item.span.error(f"{NAME} stage does not meet source-only requirements", hint=rule)
        if found is None:
            raise stage.start.span.error(f"{NAME} stage must contain exactly one remote ADD", hint=rule)
        return found


def _remote(item: Add, values: dict[str, str], escape: str, effort: Effort, rule: str) -> HttpOp | GitOp:
    words = [expand_in(word, values, item.span, escape, effort) for word in item.sources]
    if len(words) != 1 or item.heredocs or not (is_http(words[0]) or is_git(words[0])):
        raise item.span.error(f"{NAME} stage must contain exactly one remote ADD source", hint=rule)
    checksum = expand_in(item.checksum, values, item.span, escape, effort) if item.checksum else ""
    if is_http(words[0]):
        return HttpOp(words[0], checksum, url_filename(words[0]))
    try:
        remote = parse_git(words[0])
        if checksum:
            remote = replace(remote, checksum=parse_checksum(checksum))
    except FormError as error:
        raise item.span.error(error.message, hint=error.hint) from error
    return GitOp(remote, keep_git_dir=bool(item.keep_git_dir))


def _time_of_download(file: Download) -> int | None:
    entry = file.lookup(file.name)
    if entry is not None and entry.mtime:
        return entry.mtime // _SECOND
    newest = None
    try:
        with decompressor(file.open_content(), limit=_MAX_ARCHIVE, read_ahead=False) as plain:
            for found, _ in read_tar(plain, layer=False):
                if found.kind is Kind.FILE:
                    newest = max(newest or 0, found.mtime // _SECOND)
    except ContentError:
        return None  # no archive
    return newest


def _newest(files: FileSource) -> int | None:
    """The newest time of a file in an archive; None for what is no archive."""
    from kpy.buildcontext.archive import ArchiveContext

    if not isinstance(files, ArchiveContext):
        return None
    return max((entry.mtime // _SECOND for entry in walk(files, "") if entry.kind is Kind.FILE), default=None)
