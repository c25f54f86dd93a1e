"""A small runner of GitHub's composite actions: shell steps, as the runner's user would run them."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


@dataclass
class Ran:
    """What is left of an action: its outputs, and what each step wrote."""

    outputs: dict[str, str]
    logs: dict[str, str]


@dataclass
class Action:
    """An action.yml, and the directory that it is in. `spawn` are arguments of subprocess: user, environment."""

    path: Path
    spawn: Mapping[str, Any]
    temporary: Path
    _outputs: dict[str, dict[str, str]] = field(default_factory=dict)

    def __call__(self, cwd: Path, **inputs: str) -> Ran:
        """Run all steps. An input is given with _ for -."""
        document = yaml.safe_load(self.path.read_text())
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        assert given.keys() <= document["inputs"].keys()
        values = {name: given.get(name, item.get("default", "")) for name, item in document["inputs"].items()}
        assert document["runs"]["using"] == "composite"
        environment = dict(self.spawn["env"])
        logs = {}
        for number, step in enumerate(document["runs"]["steps"]):
            if "if" in step and self._value(step["if"], values) != "true":
                continue
            assert "uses" not in step, f"nobody runs {step['uses']} here"
            logs[step["name"]] = self._step(number, step, values, environment, cwd)
        outputs = {name: self._value(item["value"], values) for name, item in document["outputs"].items()}
        return Ran(outputs, logs)

    def _step(self, number: int, step: dict[str, Any], inputs: dict[str, str], environment: dict[str, str], cwd: Path) -> str:
        script, said, paths = (self.temporary / f"{name}-{number}" for name in ("script", "output", "path"))
        script.write_text(step["run"])
        assert not _EXPRESSION.search(step["run"]), "an input must not become part of a script"
        for path in (said, paths):
            path.write_text("")
            path.chmod(0o666)
        own = {name: self._value(text, inputs) for name, text in step.get("env", {}).items()}
        assert step["shell"] == "bash"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)], cwd=cwd, capture_output=True, text=True, check=False,
            **{**self.spawn, "env": {**environment, **own, "GITHUB_OUTPUT": str(said), "GITHUB_PATH": str(paths), "RUNNER_TEMP": str(self.temporary)}},
        )  # fmt: skip
        log = done.stdout + done.stderr
        if done.returncode:
            raise StepError(step["name"], done.returncode, log)
        for line in paths.read_text().splitlines():
            environment["PATH"] = f"{line}:{environment['PATH']}"
        if "id" in step:
            self._outputs[step["id"]] = _pairs(said.read_text())
        return log

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

    def __init__(self, name: str, code: int, log: str) -> None:
        super().__init__(f"step {name!r} ended with {code}:\n{log}")
        self.code = code
        self.log = log


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
