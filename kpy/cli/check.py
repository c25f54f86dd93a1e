"""The answers to `--check` and `--call`, as text or as the JSON that buildx prints."""

import base64
import json
from collections.abc import Sequence
from typing import Any, Protocol

from kpy.app.options import BuildOptions, Environment
from kpy.cli.failure import harmless, in_line, one_line
from kpy.cli.options import ProgressMode
from kpy.cli.record import recorded
from kpy.cli.runners import unheard_json
from kpy.cli.terminal import Terminal
from kpy.cli.working import work
from kpy.dockerfile.lint.rules import Finding
from kpy.dockerfile.span import Source, Span
from kpy.errors import KpyError
from kpy.events import Reporter, Warned
from kpy.plan.outline import Argument, Needed, Outline, TargetStage
from kpy.util.cancel import Cancel

FOUND = 1  # exit code when there are findings, as buildx's
_RULE = "-" * 20


class Checked(Protocol):
    """What the command line needs of `kpy.app.check.Checked`."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """In the order of the file."""
        ...

    @property
    def source(self) -> Source | None:
        """The Dockerfile."""
        ...

    @property
    def error(self) -> KpyError | None:
        """Why a build would fail."""
        ...


class Answers(Protocol):
    """What the command line needs of `kpy.app.check`."""

    def check(self, options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel, /) -> Checked:
        """See `kpy.app.check`."""
        ...

    def outline(
        self, options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel, /
    ) -> tuple[Outline, Source]:
        """See `kpy.app.check`."""
        ...

    def targets(
        self, options: BuildOptions, environment: Environment, report: Reporter, cancel: Cancel, /
    ) -> tuple[tuple[TargetStage, ...], Source]:
        """See `kpy.app.check`."""
        ...


def answer(options: BuildOptions, mode: ProgressMode, terminal: Terminal, answers: Answers | None = None) -> int:
    """Ask, and print the answer. Raises KpyError, after the answer if there is one."""
    asked = answers or _app()
    environment = terminal.environment()
    match options.call.name:
        case "targets":
            stages, source = work(mode, terminal, lambda report, cancel: asked.targets(options, environment, report, cancel))
            _print(terminal, targets_json(stages, source) if options.call.json else targets_text(stages))
        case "outline":
            found, source = work(mode, terminal, lambda report, cancel: asked.outline(options, environment, report, cancel))
            _print(terminal, outline_json(found, source) if options.call.json else outline_text(found))
        case _:
            with recorded(options, terminal.directory) as record:
                checked = work(mode, terminal, lambda report, cancel: asked.check(options, environment, report, cancel), record)
                if record:
                    for item in checked.findings:
                        record(Warned(item.text, "", item.span.source.name, item.span.first, item.span.last))
                _print(terminal, check_json(checked) if options.call.json else check_text(checked))
                if checked.error is not None:
                    raise checked.error
            return FOUND if checked.findings and not options.call.ignore_status else 0
    return 0


def _print(terminal: Terminal, text: str) -> None:
    if text:
        terminal.out(text)


def _app() -> Answers:
    from kpy.app import check

    return check


# --- text ---------------------------------------------------------------------


def check_text(checked: Checked) -> str:
    """As buildx prints it; nothing when there is an error only."""
    count = len(checked.findings)
    if not count:
        return "" if checked.error else "Check complete, no warnings found."
    lines = [f"Check complete, {'1 warning has' if count == 1 else f'{count} warnings have'} been found!"]
    for item in checked.findings:
        lines += ["", f"WARNING: {item.rule.name} - {item.rule.help}", one_line(item.detail)]
        lines += [in_line(f"{item.span.source.name}:{item.span.first}"), _RULE, harmless(item.span.excerpt()), _RULE]
    return "\n".join(lines)


def outline_text(found: Outline) -> str:
    """Tables, each only if it has rows."""
    parts = []
    if found.name or found.description:
        head = [("TARGET:", found.name or "(default)")]
        head += [("DESCRIPTION:", found.description)] if found.description else []
        parts.append(_table(head, gap=1))
    if found.arguments:
        rows = [(item.name, item.value, item.description) for item in found.arguments]
        parts.append(_table([("BUILD ARG", "VALUE", "DESCRIPTION"), *rows]))
    for title, needed in (("SECRET", found.secrets), ("SSH", found.ssh)):
        if needed:
            rows_needed = [(item.name, "true" if item.required else "") for item in needed]
            parts.append(_table([(title, "REQUIRED"), *rows_needed]))
    return "\n\n".join(parts)


def targets_text(stages: Sequence[TargetStage]) -> str:
    """One row for each stage; what to give to --target comes first."""
    rows = [("TARGET", "DESCRIPTION")]
    for item in stages:
        name = item.name or ("" if item.is_default else str(item.index))
        shown = " ".join(part for part in (name, "(default)" if item.is_default else "") if part)
        rows.append((shown, item.description))
    return _table(rows)


def _table(rows: Sequence[Sequence[str]], gap: int = 3) -> str:
    clean = [[" ".join(harmless(cell).split()) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in clean) + gap for column in range(len(clean[0]) - 1)]
    lines = ["".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) + row[-1] for row in clean]
    return "\n".join(line.rstrip() for line in lines)


# --- JSON ---------------------------------------------------------------------


def check_json(checked: Checked) -> str:
    """`warnings`, `sources`, and `buildError` if a build would fail."""
    error = checked.error
    document: dict[str, Any] = {"warnings": [_warning(item) for item in checked.findings]}
    document["sources"] = [_source(checked.source)] if checked.source else []
    if error is not None:
        document["buildError"] = {"message": error.message}
        if error.first_line and (checked.source is None or error.file == checked.source.name):
            if checked.source is None:
                document["sources"] = [{"filename": error.file, "data": "", "language": "Dockerfile"}]
            document["buildError"]["location"] = _lines(error.first_line, error.last_line)
    return unheard_json(json.dumps(document, indent=2))


def _warning(item: Finding) -> dict[str, Any]:
    return {
        "ruleName": item.rule.name,
        "description": item.rule.description,
        "url": item.rule.help,
        "detail": item.detail,
        "location": _location(item.span),
    }


def outline_json(found: Outline, source: Source) -> str:
    """What is empty is left out."""
    document = {
        "name": found.name,
        "description": found.description,
        "args": [_argument(item) for item in found.arguments],
        "secrets": [_needed(item) for item in found.secrets],
        "ssh": [_needed(item) for item in found.ssh],
        "sources": [_data(source)],
    }
    return unheard_json(json.dumps(_filled(document), indent=2))


def targets_json(stages: Sequence[TargetStage], source: Source) -> str:
    """Every stage, and the file."""
    rows = [
        _filled(
            {
                "name": item.name,
                "default": item.is_default,
                "description": item.description,
                "base": item.base,
                "platform": item.platform,
                "location": _location(item.span),
            }
        )
        for item in stages
    ]
    return unheard_json(json.dumps({"targets": rows, "sources": [_data(source)]}, indent=2))


def _argument(item: Argument) -> dict[str, Any]:
    row = {"name": item.name, "description": item.description, "value": item.value}
    return _filled({**row, "location": _location(item.span)})


def _needed(item: Needed) -> dict[str, Any]:
    return _filled({"name": item.name, "required": item.required, "location": _location(item.span)})


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value}


def _location(span: Span) -> dict[str, Any]:
    return _lines(span.first, span.last)


def _lines(first: int, last: int) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": first}, "end": {"line": last}}]}


def _source(source: Source) -> dict[str, Any]:
    return {"filename": source.name, "data": _data(source), "language": "Dockerfile"}


def _data(source: Source) -> str:
    text = "".join(f"{line}\n" for line in source.lines)
    return base64.b64encode(text.encode("utf-8", "replace")).decode()
