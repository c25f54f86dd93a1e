"""The action's own program: inputs to a command line, and what kpy says to what GitHub shows.

    python3 -I action.py inputs     look at the inputs before anything is done
    python3 -I action.py build      build; the step's outputs, annotations and summary

The standard library only, and isolated (-I): the working directory is the checkout, perhaps a stranger's. Everything is
written to standard output, kpy's standard error too: GitHub's runner keeps no order between two streams, and what stops
its commands must come before what they are stopped for.
"""

import base64
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

PREFIX = "KPY_INPUT_"
USAGE = 2
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
_NAME = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:/@\[\]-]*")  # of an image; what the runner would obey is none
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SEVERAL = 'a value of several lines, or with a quote at its start, is quoted as a whole: "NAME=value"'
_ANNOTATIONS = 10  # of a kind; GitHub shows no more of a step
_STEPS = 300
_SHORTEST = 4  # of a line of a secret that is hidden by itself: shorter ones (braces) are all over a log


class InputError(Exception):
    """What is wrong with an input, in words that do not show its value."""


# --- lists, as docker/build-push-action takes them: CSV with quotes that are relaxed


def records(text: str, *, quotes: bool = True) -> list[list[str]]:
    """The fields of each line that is not empty. A quote at the start of a field keeps commas and line ends until the next
    one; doubled, it is itself; anywhere else, too. Raises InputError for one that has no end."""
    rows: list[list[str]] = []
    row: list[str] = []
    found, quoting, quoted, place = "", False, False, 0
    while place < len(text):
        letter, after = text[place], text[place + 1 : place + 2]
        place += 1
        if quoting:
            if letter != '"':
                found += letter
            elif after == '"':
                found += '"'
                place += 1
            else:
                quoting, quoted = False, True
                if after not in ("", ",", "\n", "\r"):  # no quoted field after all
                    found = f'"{found}"'
        elif letter == '"' and not found and not quoted and quotes:
            quoting = True
        elif letter == ",":
            row, found, quoted = [*row, found], "", False
        elif letter in "\r\n":
            if row or found or quoted:
                rows.append([*row, found])
            row, found, quoted = [], "", False
        else:
            found += letter
    if quoting:
        raise InputError("a quote has no end")
    if row or found or quoted:
        rows.append([*row, found])
    return rows


def items(text: str, *, commas: bool = False, quotes: bool = True) -> list[str]:
    """The items of a list, one a line; with `commas`, these part them, too."""
    found: list[str] = []
    for row in records(text.strip(), quotes=quotes):
        if commas:
            found += row[0].split(",") if len(row) == 1 else row
        else:
            found.append(",".join(row))
    return [item.strip() for item in found if item.strip()]


def pairs(text: str, *, value_needed: bool = False, ident: re.Pattern[str] | None = None) -> list[tuple[str, str]]:
    """NAME=VALUE. Raises InputError that says which item is none, and never what it is: it may be a secret."""
    found = []
    for number, item in enumerate(items(text), 1):
        name, equals, value = item.partition("=")
        if not equals or not name.strip() or (ident and not ident.fullmatch(name)):
            raise InputError(f"item {number} is not NAME=value; {_SEVERAL}")
        # The last line of what is in base64, most likely: `bGluZQ==`.
        if value_needed and not value.strip("="):
            raise InputError(f"item {number} has no value; {_SEVERAL}")
        found.append((name, value))
    return found


def truth(text: str) -> bool:
    """A boolean of YAML. Raises InputError."""
    if text.strip() in ("true", "True", "TRUE"):
        return True
    if text.strip() in ("false", "False", "FALSE"):
        return False
    raise InputError("it is neither true nor false" if text.strip() else "it is empty: it must be true or false")


def lines(text: str) -> list[str]:
    """Lines without the blanks around them, and without empty ones."""
    return [line.strip() for line in text.splitlines() if line.strip()]


# --- inputs


@dataclass(frozen=True)
class Inputs:
    """The inputs, read."""

    words: tuple[str, ...]
    context: str
    file: str
    tags: tuple[str, ...]
    platforms: tuple[str, ...]
    cache: bool
    secrets: tuple[tuple[str, str], ...] = field(repr=False)
    login: tuple[str, str, str] | None = field(repr=False)

    @property
    def hidden(self) -> list[str]:
        """What must not be seen in the log."""
        found = [value for _, value in self.secrets]
        if self.login:
            found += [self.login[2], encoded(self.login)]
        return found


def encoded(login: tuple[str, str, str]) -> str:
    """User and password as docker keeps them."""
    return base64.b64encode(":".join(login[1:]).encode()).decode()


def read(variables: Mapping[str, str]) -> Inputs:
    """Raises InputError that names the input."""

    def value(name: str) -> str:
        return variables.get(PREFIX + name.upper().replace("-", "_"), "")

    def taken(name: str, how: Callable[..., Any], **more: Any) -> Any:
        try:
            return how(value(name), **more)
        except InputError as error:
            raise InputError(f"input {name}: {error}") from None

    context, file = value("context").strip() or ".", value("file").strip()
    outputs, flags = taken("outputs", _outputs), taken("flags", _flags)
    files = taken("secret-files", pairs, value_needed=True, ident=_SECRET)
    for name, paths in (
        ("context", [context]), ("file", [file, os.path.join(context, file)]), ("secret-files", [path for _, path in files]),
        ("outputs", pieces(outputs)), ("flags", pieces(flags)),
    ):  # fmt: skip
        if any(leads_out(path, variables.get("GITHUB_WORKSPACE", "")) for path in paths):
            raise InputError(f"input {name}: a link in the checkout leads out of it, to what is no part of the repository; name that path itself")
    tags = taken("tags", _tags)
    platforms = tuple(taken("platforms", items, commas=True))
    # What a name means is what its registry says: a build that pushed nothing may have given it to anything in the store.
    words = ["--pull", *(f"--tag={tag}" for tag in tags)]
    words += [f"--build-arg={name}={text}" for name, text in taken("build-args", pairs)]
    words += [f"--label={name}={text}" for name, text in taken("labels", pairs)]
    words += [f"--output={item}" for item in outputs]
    words += [f"--secret={_record(f'id={name}', f'src={path}')}" for name, path in files]
    words += flags
    words += [f"--platform={','.join(platforms)}"] if platforms else []
    words += [f"--{name}={value(name).strip()}" for name in ("file", "target") if value(name).strip()]
    words += [f"--{name}" for name in ("push", "no-cache") if taken(name, truth)]
    return Inputs(
        tuple(words), context, file, tags, platforms, taken("cache", truth),
        tuple(taken("secrets", pairs, value_needed=True, ident=_SECRET)), _login(value),
    )  # fmt: skip


def leads_out(path: str, checkout: str) -> bool:
    """Does a path that by its text lies in the checkout lead out of it? Its links are a stranger's."""
    top = os.path.realpath(checkout)

    def below(text: str, directory: str) -> bool:
        return f"{text}/".startswith(f"{directory.rstrip('/')}/")

    text = os.path.abspath(path)
    named = below(text, os.path.abspath(checkout)) or below(text, top)
    return bool(checkout and path) and named and not below(os.path.realpath(path), top)


def pieces(words: Iterable[str]) -> list[str]:
    """All that could be a path in flags and records: `--output=type=local,dest=PATH`, `-fPATH`."""
    return [piece for word in words for piece in (word, word[2:], *re.split("[=,]", word.replace('"', "")))]


def _login(value: Callable[[str], str]) -> tuple[str, str, str] | None:
    user, password, registry = value("username").strip(), value("password"), value("registry").strip()
    if not user:
        if password:
            raise InputError("input password: it needs input username, too")
        return None
    if not password:
        raise InputError("input password: it is empty; in a pull request from a fork there are no secrets")
    if not registry:
        raise InputError("input registry: it is empty; the login is for a registry, such as ghcr.io")
    return registry, user, password


def _tags(text: str) -> tuple[str, ...]:
    found = tuple(_lowered(tag) for tag in items(text, commas=True))
    for number, tag in enumerate(found, 1):
        if not _NAME.fullmatch(tag):
            raise InputError(f"item {number} is not the name of an image, such as ghcr.io/owner/app:1")
    return found


def _lowered(tag: str) -> str:
    """The name of a repository has no capitals, but those of GitHub may: `ghcr.io/${{ github.repository }}`."""
    slash = tag.rfind("/") + 1
    end = slash + len(tag[slash:].partition(":")[0])
    return tag[:end].lower() + tag[end:]


def _outputs(text: str) -> list[str]:
    found = items(text, quotes=False)
    for item in found:
        _no_stdout(item)
    return found


def _no_stdout(output: str) -> None:
    """Raises InputError for an output that would go there: what is in it is no log."""
    if output == "-" or "dest=-" in [part.strip() for part in output.replace('"', "").split(",")]:
        raise InputError("an action has no standard output: give dest a file")


def _flags(text: str) -> list[str]:
    found = [word for line in lines(text) for word in _flag(line)]
    for word, after in zip(found, [*found[1:], ""], strict=False):
        # Switches of one letter may come before -o in a word, and its value after it.
        short = re.fullmatch(r"-[A-Za-z]*?o=?(.*)", word)
        if word in ("--output", "-o"):
            _no_stdout(after)
        elif word.startswith("--output=") or short:
            _no_stdout(short[1] if short else word.partition("=")[2])
    return found


def _flag(line: str) -> list[str]:
    """`--name value` as two words, `--name=some value` as one."""
    match = re.fullmatch(r"(--?[A-Za-z][A-Za-z-]*)\s+(.+)", line)
    return [match[1], match[2]] if match else [line]


def _record(*fields: str) -> str:
    """A record of CSV, as kpy takes it."""
    return ",".join('"' + text.replace('"', '""') + '"' if re.search('[",]', text) else text for text in fields)


# --- what the runner understands


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def command(name: str, text: str, **properties: object) -> None:
    """A workflow command, which nothing in it can end."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    given = ",".join(
        f"{key}=" + str(value).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A").replace(":", "%3A").replace(",", "%2C")
        for key, value in properties.items()
        if value
    )
    say(f"::{name}{' ' if given else ''}{given}::{escaped}")


def mask(values: Iterable[str]) -> None:
    """Hide them in the log, as they are and line by line."""
    for value in values:
        rows = [row.strip() for row in value.splitlines()]
        several = len([row for row in rows if row]) > 1
        for row in rows:
            if row and (not several or len(row) >= _SHORTEST):
                command("add-mask", row)


def set_outputs(**values: str) -> None:
    """Outputs of the step. Of several lines: no value can have the end."""
    with open(os.environ["GITHUB_OUTPUT"], "a", encoding="utf-8") as file:
        for name, value in values.items():
            end = f"kpy-{secrets.token_hex(16)}"
            file.write(f"{name}<<{end}\n{value}\n{end}\n")


# --- the build


def build(inputs: Inputs) -> int:
    """Build, and tell GitHub. Gives kpy's exit code."""
    place = Path(tempfile.mkdtemp(prefix="kpy-private-", dir=os.environ.get("RUNNER_TEMP")))
    try:
        metadata, progress = place / "metadata.json", place / "progress.json"
        words = ["kpy", "build", "--progress=plain", f"--metadata-file={metadata}", f"--progress-file={progress}", *inputs.words]
        for number, (name, value) in enumerate(inputs.secrets):
            (place / f"secret-{number}").write_text(value, encoding="utf-8")  # the directory is ours alone
            words.append(f"--secret={_record(f'id={name}', f'src={place}/secret-{number}')}")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        if inputs.login:
            # Beside the logins that are there: kpy asks this file first.
            (place / "auth.json").write_text(json.dumps({"auths": {inputs.login[0]: {"auth": encoded(inputs.login)}}}), encoding="utf-8")
            environment["REGISTRY_AUTH_FILE"] = str(place / "auth.json")
        code, said = run([*words, "--", inputs.context], environment)
        events = _events(progress)
        made = json.loads(metadata.read_text(encoding="utf-8")) if metadata.exists() else {}
    finally:
        shutil.rmtree(place, ignore_errors=True)
    last = said.strip().rpartition("\n")[2]
    digest = last if _DIGEST.fullmatch(last) else ""
    set_outputs(digest=digest, imageid=made.get("containerimage.config.digest", digest), metadata=json.dumps(made))
    annotate(events, inputs, code)
    summarize(events, inputs, made, digest, code)
    return code


def run(words: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run it, while the runner obeys nothing. Gives the exit code, as a shell does, and standard output."""
    end = secrets.token_hex(24)
    running: list[subprocess.Popen[bytes]] = []
    stopped: list[int] = []

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        for child in running:
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    code = 1
    say(f"::stop-commands::{end}")
    try:
        if stopped:
            return 128 + stopped[0], ""
        child = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sys.stdout.fileno())
        running.append(child)
        for early in stopped[:1]:  # it came before there was a child
            child.send_signal(early)
        data, _ = child.communicate()
        code = child.returncode if child.returncode >= 0 else 128 - child.returncode
        sys.stdout.buffer.write(data)
        return code, data.decode(errors="replace")
    finally:
        # What was written last may have no line end: that of whoever was killed, or a file's.
        say(f"\n::{end}::")


def _events(path: Path) -> list[dict[str, Any]]:
    """What kpy wrote down; nothing of a last line that was cut."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def annotate(events: Iterable[Mapping[str, Any]], inputs: Inputs, code: int) -> None:
    """Warnings and the error, at their lines of the Dockerfile."""
    warnings = [item for event in events for item in event.get("warnings", ()) if item.get("range")]
    for item in warnings[:_ANNOTATIONS]:
        text = base64.b64decode(item["short"]).decode(errors="replace")
        start, end = (item["range"][0][side]["line"] for side in ("start", "end"))
        command("warning", text, title="kpy", file=_file(item["sourceInfo"]["filename"], inputs), line=start, endLine=end)
    errors = [event["error"] for event in events if "error" in event]
    if errors:
        error = errors[-1]
        text = "\n".join(filter(None, (error["message"], error["hint"])))
        where = _file(error["file"], inputs) if error.get("line") else ""
        command("error", text, title="kpy", file=where, line=error.get("line"), endLine=error.get("endLine"))
    elif code and not warnings:
        command("error", f"kpy build ended with exit code {code}: the log says why", title="kpy")


def _file(name: str, inputs: Inputs) -> str:
    """A Dockerfile as GitHub knows it, from the top of the repository; nothing for one that is elsewhere."""
    if "://" in inputs.context or inputs.context == "-":
        return ""
    asked = inputs.file or os.path.join(inputs.context, "Dockerfile")
    path = asked if os.path.basename(asked) == os.path.basename(name) else name
    top = os.environ.get("GITHUB_WORKSPACE") or os.getcwd()
    found = os.path.relpath(os.path.realpath(path), os.path.realpath(top))
    return "" if found.startswith("..") or not os.path.exists(path) else found


def summarize(events: Iterable[Mapping[str, Any]], inputs: Inputs, made: Mapping[str, Any], digest: str, code: int) -> None:
    """The summary of the job: what was made, and how long each step took."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    steps = [item for event in events for item in event.get("vertexes", ()) if item.get("completed")]
    title = "the build failed" if code else "the image is built" if digest else "done"
    rows = [f"### kpy: {title}", "", "| | |", "|---|---|"]
    names = made.get("image.name", "").split(",") if made.get("image.name") else inputs.tags
    facts = [("digest", [digest]), ("tags", names), ("platforms", made.get("kpy.platforms", inputs.platforms))]
    facts += [("error", [event["error"]["message"]]) for event in events if "error" in event]
    rows += [f"| {name} | {'<br>'.join(map(cell, values))} |" for name, values in facts if any(values)]
    if steps:
        cached = sum(1 for item in steps if item.get("cached"))
        rows += ["", f"<details><summary>{len(steps)} steps, {cached} from the cache</summary>", "", "| step | time |", "|---|---:|"]
        rows += [f"| {cell(item['name'])} | {_time(item)} |" for item in steps[:_STEPS]]
        rows += [f"| {len(steps) - _STEPS} more | |"] if len(steps) > _STEPS else []
        rows += ["", "</details>"]
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n".join([*rows, "", ""]))


def _time(item: Mapping[str, Any]) -> str:
    if item.get("error") is not None:
        return "failed"
    if item.get("cached"):
        return "cached"
    began, ended = (datetime.fromisoformat(item[name]) for name in ("started", "completed"))
    return f"{(ended - began).total_seconds():.1f} s"


def cell(text: str) -> str:
    """Text in a table of Markdown, of which nothing means anything there."""
    plain = "".join(" " if letter.isspace() else letter for letter in text if letter.isspace() or unicodedata.category(letter)[0] != "C")
    short = plain if len(plain) <= 200 else plain[:199] + "…"
    return "".join(letter if letter.isalnum() or letter == " " else f"&#{ord(letter)};" for letter in short)


def main(words: Sequence[str]) -> int:
    """The program."""
    os.dup2(1, 2)  # one stream, and what goes wrong in it as well
    try:
        inputs = read(os.environ)
    except InputError as error:
        command("error", str(error), title="kpy")
        return USAGE
    if words == ["inputs"]:
        mask(inputs.hidden)
        for tag in inputs.tags:
            say(f"tag {tag}")
        set_outputs(cache="true" if inputs.cache else "false")
        return 0
    mask(inputs.hidden)
    return build(inputs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
