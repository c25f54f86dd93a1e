"""`kpy doctor`: what this place allows, and what to change. The answers are `kpy.app.doctor`'s."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TypeAlias

from kpy.app.doctor import Diagnosis, Probe
from kpy.app.options import Environment
from kpy.app.remedies import Remedy, remedies
from kpy.app.walls import describe
from kpy.cli.failure import in_line
from kpy.cli.flags import Flag, parse, usage
from kpy.cli.terminal import Terminal
from kpy.errors import SandboxError, UsageError

TARGETS = ("kubernetes", "docker", "podman", "github")
_FLAGS = (
    Flag("fix", "value", f"show what to paste: {', '.join(TARGETS)}", "", "TARGET"),
    Flag("format", "value", "table or json (default: table)", "", "FORMAT"),
    Flag("registry", "list", "also see whether this registry can be reached with your login", "", "HOST"),
)

HELP = f"""\
usage: kpy doctor [flags]

Tell what this place allows, by trying it, how `kpy build` would do a RUN here, and what each missing permission would
add. Nothing is changed, and the network is used for --registry only. The exit code is 0 when RUN is possible, 8 when it
is not; COPY, ADD and all else work in either case.

{usage(_FLAGS)}
"""

Diagnose: TypeAlias = Callable[[Environment, tuple[str, ...]], Diagnosis]


def run(argv: Sequence[str], terminal: Terminal, diagnose: Diagnose | None = None) -> int:
    """Tell. Raises UsageError."""
    parsed = parse(_FLAGS, argv, "doctor")
    if parsed.arguments:
        raise UsageError(f"kpy doctor takes no arguments, got {parsed.arguments[0]!r}")
    target, form = parsed.one("fix"), parsed.one("format", "table")
    if target and target not in TARGETS:
        raise UsageError(f"invalid value {target!r} for --fix", hint=f"it is one of {', '.join(TARGETS)}")
    if form not in ("table", "json"):
        raise UsageError(f"invalid value {form!r} for --format", hint="it is table or json")
    found = (diagnose or _app())(terminal.environment(), parsed.all("registry"))
    advice = remedies(found, target) if target else ()
    if form == "json":
        terminal.out(json.dumps(as_json(found, advice), indent=2))
    else:
        for line in fix(advice) if target else table(found):
            terminal.out(line)
    return 0 if found.outlook.possible else SandboxError.exit_code


def as_json(found: Diagnosis, advice: Sequence[Remedy] = ()) -> dict[str, object]:
    """The whole diagnosis. Names are stable."""
    document: dict[str, object] = {
        "environment": {"id": found.place[0], "name": found.place[1]},
        "run": {"possible": found.outlook.possible, **asdict(found.outlook)},
        "probes": [{"name": probe.name, "works": probe.works, "error": _error(probe), "detail": probe.detail, "gives": probe.gives} for probe in found.probes],
        "facts": asdict(found.facts),
        "registries": dict(found.registries),
    }
    if advice:
        document["fix"] = [asdict(remedy) for remedy in advice]
    return document


def table(found: Diagnosis) -> list[str]:
    """For people."""
    return [in_line(line) for line in _table(found)]


def _table(found: Diagnosis) -> list[str]:
    facts, outlook = found.facts, found.outlook
    lines = [f"This looks like {found.place[0]}: {found.place[1]} (uid {facts.uid}, gid {facts.gid})."]
    if outlook.possible:
        lines.append(f"RUN works: --isolation={outlook.isolation}" + (f", {outlook.how}" if outlook.how else "") + ".")
        lines += [f"  {note}" for note in outlook.notes]
    else:
        lines.append(f"RUN does not work: {outlook.problem}.")
        lines += [f"  {outlook.hint}"] if outlook.hint else []
        lines.append("  `kpy doctor --fix kubernetes` (or docker, podman, github) shows what to change.")
    lines.append("")
    width = max(len(probe.what) for probe in found.probes) + 2
    answer = max(len(_answer(probe)) for probe in found.probes) + 2
    for probe in found.probes:
        lines.append(f"  {probe.what:<{width}}{_answer(probe):<{answer}}{'' if probe.works or probe.gives[0] == '(' else 'would give: '}{probe.gives}")
    lines += ["", f"  disk      {_size(facts.disk_free)} free in {facts.state}" + _few(facts.inodes_free)]
    limit = f"{_size(facts.memory_limit)} allowed, " if facts.memory_limit else ""
    lines.append(f"  memory    {limit}{_size(facts.memory_free)} free")
    lines.append(f"  landlock  {describe(facts.landlock)}")
    lines += [f"  registry  {host}: {problem or 'reached'}" for host, problem in found.registries.items()]
    return lines


def fix(advice: Sequence[Remedy]) -> list[str]:
    """What to paste: comments say why, the rest is to be used as it is."""
    lines: list[str] = []
    for remedy in advice:
        lines += ([""] if lines else []) + [f"# {remedy.why}", *remedy.lines]
    return lines


def _answer(probe: Probe) -> str:
    return "yes" if probe.works else f"no ({_error(probe)})"


def _error(probe: Probe) -> str:
    return os.strerror(probe.errno).lower() if probe.errno else ""


def _few(inodes: int) -> str:
    return f", only {inodes} inodes" if 0 <= inodes < 100_000 else ""


def _size(number: int) -> str:
    return f"{number / (1 << 30):.1f} GB" if number >= 1 << 30 else f"{number >> 20} MB"


def _app() -> Diagnose:
    from kpy.app.doctor import diagnose

    return diagnose
