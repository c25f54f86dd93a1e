"""A small runner of GitHub's composite actions: shell steps, as the runner's user would run them."""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
# What GitHub's runner takes for a command (ActionCommandManager).
_KNOWN = frozenset(
    "add-mask add-matcher add-path debug echo endgroup error group notice remove-matcher save-state set-env set-output stop-commands warning".split()
)
_UNESCAPED = {"%25": "%", "%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ","}


@dataclass(frozen=True)
class Command:
    """A workflow command that the runner obeyed."""

    name: str
    properties: Mapping[str, str]
    text: str


@dataclass
class Job:
    """What a runner knows in a job: what to hide, and what it was told, and directories put on the PATH."""

    masks: list[str] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    stopped: str = ""
    path: list[str] = field(default_factory=list)

    def hear(self, text: str) -> str:
        """Obey the commands in what a step wrote; the log that people see."""
        shown = []
        for line in re.split(r"\r\n|\r|\n", text):
            if self.stopped:
                if line.strip() == f"::{self.stopped}::":
                    self.stopped = ""
                else:
                    shown.append(line)
                continue
            command = _parsed(line)
            if command is None:
                shown.append(line)
                continue
            self.commands.append(command)
            if command.name == "stop-commands":
                self.stopped = command.text
            elif command.name == "add-mask":
                self.masks.append(command.text)
        log = "\n".join(shown)
        for mask in self.masks:
            log = log.replace(mask, "***")
        return log

    def told(self, name: str) -> list[Command]:
        """The commands of this name."""
        return [command for command in self.commands if command.name == name]


def _parsed(line: str) -> Command | None:
    """`::name key=value,…::text` at the start of a line, or `##[name key=value;…]text` anywhere in it."""
    start = re.match(r"\s*\ufeff?::([^ :]+)(?: (.*?))?::(.*)", line)
    old = re.search(r"##\[([^ \]]+)(?: (.*?))?\](.*)", line)
    for match, separator in ((start, ","), (old, ";")):
        if match and match[1] in _KNOWN:
            properties = dict(part.split("=", 1) for part in (match[2] or "").split(separator) if "=" in part)
            return Command(match[1], {key: _unescaped(value) for key, value in properties.items()}, _unescaped(match[3]))
    return None


def _unescaped(text: str) -> str:
    for escaped, plain in reversed(_UNESCAPED.items()):
        text = text.replace(escaped, plain)
    return text


@dataclass
class Ran:
    """What is left of an action: its outputs, what each step wrote as people see it, the summary, and the job."""

    outputs: dict[str, str]
    logs: dict[str, str]
    summary: str
    job: Job


@dataclass
class Action:
    """An action.yml, and the directory that it is in. `spawn` are arguments of subprocess: user, environment. `cache` is the
    archive that actions/cache would have at its server."""

    path: Path
    spawn: Mapping[str, Any]
    temporary: Path
    cache: Path | None = None
    job: Job = field(default_factory=Job)
    _outputs: dict[str, dict[str, str]] = field(default_factory=dict)

    def __call__(self, cwd: Path, **inputs: str) -> Ran:
        """Run all steps. An input is given with _ for -."""
        document = yaml.safe_load(self.path.read_text())
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        assert given.keys() <= document["inputs"].keys()
        values = {name: given.get(name, item.get("default", "")) for name, item in document["inputs"].items()}
        assert document["runs"]["using"] == "composite"
        environment = {**self.spawn["env"], "GITHUB_ACTIONS": "true", "CI": "true", "GITHUB_WORKSPACE": str(cwd), "RUNNER_TEMP": str(self.temporary)}
        logs, kept = {}, []
        for number, step in enumerate(document["runs"]["steps"]):
            if "if" in step and self._value(step["if"], values) != "true":
                continue
            if "uses" in step:
                assert step["uses"] == "actions/cache@v4", f"nobody runs {step['uses']} here"
                kept = self._value(step["with"]["path"], values).split()
                self._tar(cwd, "-xPf", str(self.cache)) if self.cache and self.cache.exists() else None
                continue
            logs[step["name"]] = self._step(number, step, values, environment, cwd)
        if kept:
            found = [path for path in kept if os.path.lexists(path)]
            self._tar(cwd, "--posix", "-cPf", str(self.cache), *found)
        outputs = {name: self._value(item["value"], values) for name, item in document["outputs"].items()}
        return Ran(outputs, logs, self._read("summary"), self.job)

    def _tar(self, cwd: Path, *words: str) -> None:
        """As actions/cache does it: as the runner's user, with no flags for owners."""
        done = subprocess.run(["tar", *words], cwd=cwd, capture_output=True, text=True, check=False, **self.spawn)
        assert done.returncode == 0, done.stderr

    def _step(self, number: int, step: dict[str, Any], inputs: dict[str, str], environment: dict[str, str], cwd: Path) -> str:
        script = self.temporary / f"script-{number}"
        script.write_text(step["run"])
        assert not _EXPRESSION.search(step["run"]), "an input must not become part of a script"
        files = {"GITHUB_OUTPUT": "output", "GITHUB_PATH": "path", "GITHUB_STEP_SUMMARY": "summary"}
        for name in files.values():
            path = self.temporary / name
            path.write_text("" if name != "summary" else self._read(name))
            path.chmod(0o666)
        own = {name: self._value(text, inputs) for name, text in step.get("env", {}).items()}
        assert step["shell"] == "bash"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)], cwd=cwd, capture_output=True, text=True, check=False,
            errors="replace", **{**self.spawn, "env": {**environment, **own, **{key: str(self.temporary / name) for key, name in files.items()}}},
        )  # fmt: skip
        # The runner keeps no order between the two: what is on standard error may be obeyed before all the rest.
        log = self.job.hear(done.stderr) + self.job.hear(done.stdout)
        assert not self.job.stopped, "commands are still stopped"
        if "id" in step:
            self._outputs[step["id"]] = _pairs(self._read("output"))
        if done.returncode:
            raise StepError(step["name"], done.returncode, log, Ran(self._outputs.get(step.get("id", ""), {}), {}, self._read("summary"), self.job))
        for line in self._read("path").splitlines():
            self.job.path.append(line)
            environment["PATH"] = f"{line}:{environment['PATH']}"
        return log

    def _read(self, name: str) -> str:
        path = self.temporary / name
        return path.read_text() if path.exists() else ""

    def _value(self, text: str, inputs: dict[str, str]) -> str:
        return _EXPRESSION.sub(lambda match: self._evaluate(match[1], inputs), text)

    def _evaluate(self, expression: str, inputs: dict[str, str]) -> str:
        left, equals, right = expression.partition(" == ")
        if equals:
            return "true" if self._evaluate(left, inputs) == right.strip("'") else "false"
        match expression.split("."):
            case ["inputs", name]:
                return inputs[name]
            case ["github", "action_path"]:
                return str(self.path.parent)
            case ["steps", ident, "outputs", name]:
                return self._outputs[ident].get(name, "")
        raise AssertionError(f"unknown expression {expression!r}")


class StepError(AssertionError):
    """A step ended with another code than 0."""

    def __init__(self, name: str, code: int, log: str, ran: Ran) -> None:
        super().__init__(f"step {name!r} ended with {code}:\n{log}\n{ran.job.commands}")
        self.name = name
        self.code = code
        self.log = log
        self.ran = ran


def _pairs(text: str) -> dict[str, str]:
    """NAME=VALUE lines, and NAME<<MARK blocks."""
    found = {}
    lines = iter(text.splitlines())
    for line in lines:
        name, block, mark = line.partition("<<")
        if block and "=" not in name:
            rows = []
            while (row := next(lines)) != mark:
                rows.append(row)
            found[name] = "\n".join(rows)
        else:
            name, _, value = line.partition("=")
            found[name] = value
    return found
