"""The answer to `--call=context`: what the contexts hold, as text or as JSON (G10)."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from kpy.app.options import BuildOptions, Environment
from kpy.cli.failure import in_line
from kpy.cli.options import ProgressMode
from kpy.cli.progress import human
from kpy.cli.runners import unheard_json
from kpy.cli.terminal import Terminal
from kpy.cli.working import work
from kpy.dockerfile.dockerignore import Rule
from kpy.events import Reporter
from kpy.layer.entry import Entry, Kind
from kpy.util.cancel import Cancel
from kpy.util.http import redact

_LARGEST = 10
_TYPES = {Kind.FILE: "file", Kind.DIR: "directory", Kind.SYMLINK: "symlink", Kind.FIFO: "fifo", Kind.CHAR: "device",
          Kind.BLOCK: "device"}  # fmt: skip


class Out(Protocol):
    """What the command line needs of `kpy.buildcontext.leftout.LeftOut`."""

    @property
    def path(self) -> str: ...
    @property
    def rule(self) -> Rule: ...
    @property
    def is_directory(self) -> bool: ...
    @property
    def files(self) -> int: ...
    @property
    def size(self) -> int: ...


class Listed(Protocol):
    """What the command line needs of `kpy.app.listing.Listing`."""

    @property
    def name(self) -> str: ...
    @property
    def entries(self) -> Sequence[Entry]: ...
    @property
    def left_out(self) -> Sequence[Out]: ...
    @property
    def ignore_file(self) -> str: ...
    @property
    def rules(self) -> Sequence[Rule]: ...


Contexts: TypeAlias = Callable[[BuildOptions, Environment, Reporter, Cancel], Sequence[Listed]]


def answer(options: BuildOptions, mode: ProgressMode, terminal: Terminal, contexts: Contexts | None = None) -> int:
    """Look, and print. Raises KpyError."""
    ask = contexts or _app()
    found = work(mode, terminal, lambda report, cancel: ask(options, terminal.environment(), report, cancel))
    main = redact(options.context) if "://" in options.context else options.context
    if options.call.json:
        document = {"contexts": [_document(item, item.name or main) for item in found]}
        terminal.out(unheard_json(json.dumps(document, indent=2)))
    else:
        terminal.out("\n\n".join(text(item, item.name or main) for item in found))
    return 0


def _app() -> Contexts:
    from kpy.app.listing import contexts

    return contexts


def _files(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.kind is not Kind.DIR]


def _count(files: int, size: int) -> str:
    return f"{files} file{'' if files == 1 else 's'}, {human(size)}"


def text(found: Listed, shown: str) -> str:
    """All files in the order of a layer, the largest once more, and what each line of .dockerignore keeps out."""
    files = _files(found.entries)
    lines = [f"{'SIZE':>9}  PATH"]
    lines += [_row(entry.size, entry.path + (f" -> {entry.link}" if entry.link else "")) for entry in files]
    if len(files) > _LARGEST:
        largest = sorted(files, key=lambda entry: (-entry.size, entry.path))[:_LARGEST]
        lines += ["", f"{'LARGEST':>9}", *(_row(entry.size, entry.path) for entry in largest)]
    if found.ignore_file:
        lines += ["", f"{'LEFT OUT':>9}  BY"]
        for rule, number, size in _by_rule(found):
            what = _count(number, size).partition(",")[0] if number else "nothing"
            lines.append(_row(size, f"{found.ignore_file}:{rule.line}  {rule.text}  ({what})"))
    total = f"context {shown}: {_count(len(files), sum(entry.size for entry in files))}"
    if found.left_out:
        total += f"; left out: {_count(sum(item.files for item in found.left_out), sum(item.size for item in found.left_out))}"
    return "\n".join([*lines, "", in_line(total)])


def _row(size: int, what: str) -> str:
    return f"{human(size):>9}  {in_line(what)}"


def _by_rule(found: Listed) -> Sequence[tuple[Rule, int, int]]:
    """Files and bytes that each pattern keeps out; patterns that let in keep nothing out."""
    sums = {rule.line: (rule, 0, 0) for rule in found.rules if not rule.keep}
    for item in found.left_out:
        rule, files, size = sums[item.rule.line]
        sums[item.rule.line] = (rule, files + item.files, size + item.size)
    return list(sums.values())


def _document(found: Listed, shown: str) -> dict[str, Any]:
    files = _files(found.entries)
    document: dict[str, Any] = {
        "context": shown,
        "files": len(files),
        "size": sum(entry.size for entry in files),
        "entries": [_entry(entry) for entry in found.entries],
    }
    if found.ignore_file:
        document["ignoreFile"] = found.ignore_file
        document["patterns"] = [
            {"line": rule.line, "pattern": rule.text, "files": number, "size": size}
            for rule, number, size in _by_rule(found)
        ]
        document["leftOut"] = [
            {"path": item.path, "type": "directory" if item.is_directory else "file", "files": item.files,
             "size": item.size, "line": item.rule.line, "pattern": item.rule.text}
            for item in found.left_out
        ]  # fmt: skip
    return document


def _entry(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"path": entry.path, "type": _TYPES[entry.kind], "mode": f"{entry.mode:04o}", "size": entry.size}
    return {**row, "target": entry.link} if entry.kind is Kind.SYMLINK else row
