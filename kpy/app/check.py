"""`kpy build --check` and `--call`: what the build checks find, and what a Dockerfile offers. Nothing is built."""

from contextlib import ExitStack
from dataclasses import dataclass

from kpy.app.inputs import open_inputs
from kpy.app.options import BuildOptions, Environment
from kpy.app.planning import chosen_checks, plan_options, warn_of_notices
from kpy.dockerfile.lint.checks import select
from kpy.dockerfile.lint.rules import Finding
from kpy.dockerfile.lint.text import check_file
from kpy.dockerfile.span import Source
from kpy.errors import DockerfileError, InterruptedBuildError, KpyError
from kpy.events import Reporter
from kpy.plan import outline as outlines
from kpy.plan.convert import convert
from kpy.plan.effort import Effort
from kpy.plan.notes import Notes
from kpy.util.cancel import Cancel


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found, in the order of the file; and why a build would fail before its first step, if it would.

    `source` is None when the Dockerfile could not be parsed.
    """

    findings: tuple[Finding, ...]
    source: Source | None = None
    error: KpyError | None = None


def check(options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel) -> Checked:
    """Plan the target, or every stage if none is named, and say what is odd.

    Raises KpyError only for what has nothing to do with the Dockerfile: a missing context, an interruption.
    """
    with ExitStack() as stack:
        try:
            inputs = open_inputs(options, environment, report, cancel, stack)
        except DockerfileError as error:
            return Checked((), error=error)
        dockerfile, notes = inputs.sources.dockerfile, Notes()
        try:
            checks = chosen_checks(dockerfile, options)
        except DockerfileError as error:
            return Checked((), dockerfile.source, error)
        failure: KpyError | None = None
        try:
            planned = plan_options(options, inputs.sources, every_stage=not options.target)
            warn_of_notices(convert(dockerfile, planned, inputs.resolve, notes, Effort(cancel.check)).warnings, report)
        except InterruptedBuildError:
            raise
        except KpyError as error:
            failure = error
    found = select(dockerfile, checks, [*check_file(dockerfile), *notes.findings])
    return Checked(found, dockerfile.source, failure)


def outline(
    options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel
) -> tuple[outlines.Outline, Source]:
    """What the build of the target can be told. Raises KpyError."""
    with ExitStack() as stack:
        sources = open_inputs(options, environment, report, cancel, stack).sources
        return outlines.outline(sources.dockerfile, plan_options(options, sources), Effort(cancel.check)), sources.dockerfile.source


def targets(
    options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel
) -> tuple[tuple[outlines.TargetStage, ...], Source]:
    """The stages of the Dockerfile. Raises KpyError."""
    with ExitStack() as stack:
        dockerfile = open_inputs(options, environment, report, cancel, stack).sources.dockerfile
        return outlines.targets(dockerfile), dockerfile.source
