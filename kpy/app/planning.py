"""Options and sources to a plan, with the build checks on the way: a build shows what they find, once each."""

from collections.abc import Iterable

from kpy.app.options import BuildOptions
from kpy.app.sources import Sources
from kpy.buildcontext.directory import DirectoryContext
from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.lint.checks import Checks, checks_of, select
from kpy.dockerfile.lint.rules import Finding
from kpy.dockerfile.lint.text import check_file
from kpy.dockerfile.model import Dockerfile
from kpy.dockerfile.span import suggest
from kpy.errors import UsageError
from kpy.events import Reporter, Warned
from kpy.oci import platform as platforms
from kpy.plan.convert import convert
from kpy.plan.effort import Effort
from kpy.plan.model import Notice, Plan, PlanOptions, ResolveImage
from kpy.plan.notes import Notes
from kpy.util.cancel import Cancel

_ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"


def plan_options(options: BuildOptions, sources: Sources, *, every_stage: bool = False) -> PlanOptions:
    """What the planner must know of the command line, and of the main context's .dockerignore."""
    files = sources.contexts[""].files
    return PlanOptions(
        build_args=options.build_args,
        target=options.target,
        labels=options.labels,
        build_platform=platforms.host(),
        platforms=options.platforms,
        contexts=sources.named,
        hosts=options.add_hosts,
        network=options.network if options.network != "default" else "",
        shm_size=options.shm_size,
        ulimits=options.ulimits,
        ignore=files.ignore if isinstance(files, DirectoryContext) else Ignore(),
        every_stage=every_stage,
    )


def chosen_checks(dockerfile: Dockerfile, options: BuildOptions) -> Checks:
    """Which checks are wanted. Raises UsageError, DockerfileError."""
    try:
        return checks_of(dockerfile, dict(options.build_args).get(_ARGUMENT))
    except FormError as error:
        raise UsageError(f"--build-arg {_ARGUMENT}: {error.message}", hint=error.hint) from error


def make_plan(options: BuildOptions, sources: Sources, resolve: ResolveImage, report: Reporter, cancel: Cancel) -> Plan:
    """The plan of a build. Raises DockerfileError also for findings, if the Dockerfile wants that (`error=true`)."""
    dockerfile, notes = sources.dockerfile, Notes()
    _check_stages(options.no_cache_filter, dockerfile)
    checks = chosen_checks(dockerfile, options)
    found: tuple[Finding, ...] = ()
    try:
        plan = convert(dockerfile, plan_options(options, sources), resolve, notes, Effort(cancel.check))
    finally:
        found = select(dockerfile, checks, [*check_file(dockerfile), *notes.findings])
        _warn(found, report)
    warn_of_notices(plan.warnings, report)
    if found and checks.error:
        names = sorted({item.rule.name for item in found})
        raise found[0].span.error(
            f"the build checks failed: {', '.join(names)}", hint="`# check=error=true` makes errors of warnings"
        )
    return plan


def _check_stages(names: Iterable[str], dockerfile: Dockerfile) -> None:
    known = [stage.name for stage in dockerfile.stages if stage.name]
    for name in names:
        if name.lower() not in known:
            hint = suggest(name.lower(), known) or (f"there are {', '.join(known)}" if known else "no stage has a name: FROM … AS NAME")
            raise UsageError(f"--no-cache-filter {name}: there is no such stage", hint=hint)


def _warn(found: tuple[Finding, ...], report: Reporter) -> None:
    """One warning for each; the last one says how many there are, and where to read about them."""
    count = f"{len(found)} warnings" if len(found) > 1 else "1 warning"
    for number, item in enumerate(found, 1):
        is_last = number == len(found)
        hint = f"{count} found; `{item.rule.help}` tells why, and what to do" if is_last else ""
        report(Warned(item.text, hint, item.span.source.name, item.span.first, item.span.last))


def warn_of_notices(notices: Iterable[Notice], report: Reporter) -> None:
    """What the planner has to say besides."""
    for notice in notices:
        where = f"{notice.span.source.name}:{notice.span.first}: " if notice.span else ""
        place = (notice.span.source.name, notice.span.first, notice.span.last) if notice.span else ("", 0, 0)
        report(Warned(where + notice.message, notice.hint, *place))
