"""`kpy explain`: the page of a build check, from `kpy/rules`; without a name, the list of them."""

from collections.abc import Sequence
from importlib import resources

from kpy.cli.flags import parse
from kpy.cli.terminal import Terminal
from kpy.dockerfile.lint.rules import RULES
from kpy.dockerfile.span import suggest
from kpy.errors import UsageError

HELP = """\
usage: kpy explain [CHECK]

Tell about one of the build checks, which `kpy build` and `kpy build --check` make: why it matters, and how to mend
what it finds. Without a name, list all checks; those with a star run only when they are asked for, with a comment
`# check=experimental=CHECK` at the top of the Dockerfile.
"""


def run(argv: Sequence[str], terminal: Terminal) -> int:
    """Show it. Raises UsageError."""
    arguments = parse((), argv, "explain").arguments
    if len(arguments) > 1:
        raise UsageError("kpy explain takes one check", hint="`kpy explain` lists them")
    if not arguments:
        width = max(map(len, RULES)) + 3
        for rule in RULES.values():
            terminal.out(f"{rule.name + (' *' if rule.experimental else ''):<{width}}{rule.description}")
        return 0
    by_lower = {name.lower(): name for name in RULES}
    name = by_lower.get(arguments[0].lower())
    if name is None:
        near = suggest(arguments[0], RULES)
        raise UsageError(f"no check is named {arguments[0]!r}", hint=near or "`kpy explain` lists them")
    terminal.out(page(name).rstrip("\n"))
    return 0


def page(name: str) -> str:
    """The page of a check that there is."""
    return resources.files("kpy").joinpath("rules", f"{name}.md").read_text(encoding="utf-8")
