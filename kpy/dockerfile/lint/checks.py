"""Which checks are wanted (P04): `# check=` at the top, above an instruction, or given with the build.

`skip=A,B` or `skip=all`, `error=true`, `experimental=A,B` or `experimental=all`, joined by `;`. An experimental check
runs when it is asked for, whatever is skipped.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from kpy.dockerfile.comments import checks_above
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.lint.rules import RULES, UNKNOWN_CHECK, Finding, Rule
from kpy.dockerfile.model import Dockerfile
from kpy.dockerfile.span import Span, suggest

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_KEYS = ("skip", "experimental", "error")


@dataclass(frozen=True, slots=True)
class Checks:
    """What to leave out, what to add; with `error` a finding ends the build. `all` in a set means every check."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    @staticmethod
    def parse(text: str) -> "Checks":
        """Read the value of a directive; what follows ` //` is a comment. Raises FormError."""
        found = Checks()
        for part in text.partition(" //")[0].strip().split(";") if text.strip() else ():
            key, equals, value = (word.strip() for word in part.partition("="))
            if not equals or key not in _KEYS:
                hint = suggest(key, _KEYS) or "write skip=CHECK,…, experimental=CHECK,… or error=true, joined by ;"
                raise FormError(f"invalid check option {part.strip()!r}", hint=hint)
            names = frozenset(name.strip() for name in value.split(","))
            match key:
                case "skip":
                    found = replace(found, skip=names)
                case "experimental":
                    found = replace(found, experimental=names)
                case _:
                    found = replace(found, error=_boolean(value, part))
        return found

    def wants(self, rule: Rule) -> bool:
        """Is the check on?"""
        chosen = self.experimental if rule.experimental else self.skip
        return (rule.name in chosen or "all" in chosen) is rule.experimental

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names that no check has, sorted."""
        return tuple(sorted((self.skip | self.experimental) - RULES.keys() - {"all", ""}))


def _boolean(value: str, part: str) -> bool:
    if value not in _TRUE + _FALSE:
        raise FormError(f"invalid check option {part.strip()!r}: error is true or false")
    return value in _TRUE


def checks_of(dockerfile: Dockerfile, given: str | None) -> Checks:
    """What the build was `given` (BUILDKIT_DOCKERFILE_CHECK), else what the directive says.

    Raises FormError for the first, DockerfileError for the second.
    """
    if given is not None:
        return Checks.parse(given)
    try:
        return Checks.parse(dockerfile.directives.check)
    except FormError as error:
        raise dockerfile.directives.spans["check"].error(error.message, hint=error.hint) from error


def select(dockerfile: Dockerfile, checks: Checks, found: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that are wanted, each once, in the order of the file.

    What ONBUILD of a base image brought stands in another file, and is not this one's fault.
    """
    spans = [item.span for item in dockerfile.global_args]
    spans += [item.span for stage in dockerfile.stages for item in (stage.start, *stage.instructions)]
    starts = [span.first for span in spans]
    directive = dockerfile.directives.spans.get("check")
    local: dict[int, list[Checks]] = {}

    def wanted(finding: Finding) -> bool:
        at = bisect_right(starts, finding.span.first) - 1
        if at not in local:
            local[at] = _local(spans[at], directive) if at >= 0 else []
        if any({finding.rule.name, "all"} & item.skip for item in local[at]):
            return False
        return checks.wants(finding.rule) or (
            finding.rule.experimental and any(item.wants(finding.rule) for item in local[at])
        )

    mine = {item for item in found if item.span.source is dockerfile.source}
    chosen = [item for item in mine | set(_unknown(dockerfile, checks)) if wanted(item)]
    return tuple(sorted(chosen, key=lambda item: (item.span.first, item.span.last, item.rule.name, item.detail)))


def _local(span: Span, directive: Span | None) -> list[Checks]:
    """What the comments above an instruction say. A comment that says nothing we know is just a comment."""
    found = []
    for place, text in checks_above(span):
        try:
            if place != directive:
                found.append(Checks.parse(text))
        except FormError:
            continue
    return found


def _unknown(dockerfile: Dockerfile, checks: Checks) -> Iterator[Finding]:
    """Names in the directive at the top that no check has. Those given with a build are for all its Dockerfiles."""
    span = dockerfile.directives.spans.get("check")
    if span is None or Checks.parse(dockerfile.directives.check) != checks:
        return
    for name in checks.unknown:
        near = suggest(name, RULES)
        yield UNKNOWN_CHECK.found(f"no check is named {name!r}" + (f" ({near})" if near else ""), span)
