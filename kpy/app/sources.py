"""The Dockerfile and the build contexts that the options name (section 1.10 of FEATURES)."""

import os
from dataclasses import dataclass
from typing import BinaryIO

from kpy.app.options import BuildOptions, Environment
from kpy.buildcontext.directory import DirectoryContext
from kpy.buildcontext.empty import EmptyContext
from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.model import Dockerfile
from kpy.dockerfile.parser import parse
from kpy.errors import ContextError, UsageError
from kpy.solver.values import Context
from kpy.util import fs

MAX_DOCKERFILE = 16 << 20
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True, slots=True)
class Sources:
    """What is built: the Dockerfile, its path for messages, and the contexts by name ("" is the main one).

    `images` are named contexts that are images: name -> reference.
    """

    dockerfile: Dockerfile
    path: str
    contexts: dict[str, Context]
    images: dict[str, str]


def read_sources(options: BuildOptions, environment: Environment) -> Sources:
    """Find and parse. Raises ContextError, DockerfileError, UsageError."""
    directory = _directory(options, environment)
    path, data = _dockerfile(options, environment, directory)
    contexts: dict[str, Context] = {}
    images: dict[str, str] = {}
    if directory:
        contexts[""] = _context(directory, [f"{path}.dockerignore" if path else "", os.path.join(directory, ".dockerignore")])
    else:
        contexts[""] = Context(EmptyContext())
    for name, value in options.build_contexts:
        _named(name, value, environment, contexts, images)
    shown = os.path.relpath(path, environment.directory) if path else "Dockerfile"
    if shown.startswith(".."):
        shown = os.path.basename(path)
    return Sources(parse(data, shown), path, contexts, images)


def _directory(options: BuildOptions, environment: Environment) -> str:
    """The main context's directory; "" when there is none."""
    context = options.context
    if context == "-":
        if options.file == "-":
            raise UsageError("both the context and the Dockerfile are standard input", hint="give a directory as context")
        return ""
    if "://" in context or context.startswith(("git@", "github.com/")):
        raise UsageError(f"the build context {context} is a URL, which is not supported yet", hint="check it out and give the directory")
    directory = os.path.join(environment.directory, context)
    if not os.path.isdir(directory):
        what = "is not a directory" if os.path.exists(directory) else "does not exist"
        raise ContextError(f"the build context {context!r} {what}", hint="the context is a directory, or - for a Dockerfile on standard input")
    return os.path.realpath(directory)


def _dockerfile(options: BuildOptions, environment: Environment, directory: str) -> tuple[str, bytes]:
    """Path ("" for standard input) and content."""
    if options.context == "-" and not options.file:
        return "", _from_stdin(environment.stdin)
    if options.file == "-":
        return "", _from_stdin(environment.stdin)
    if options.file:
        path = os.path.join(environment.directory, options.file)
        if not os.path.exists(path) and directory and os.path.exists(os.path.join(directory, options.file)):
            path = os.path.join(directory, options.file)
        return path, _read(path)
    path = os.path.join(directory, "Dockerfile")
    if not os.path.lexists(path) and os.path.lexists(os.path.join(directory, "dockerfile")):
        path = os.path.join(directory, "dockerfile")  # G09
    return path, _read(path)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_DOCKERFILE + 1)
    except OSError as error:
        raise ContextError(f"cannot read the Dockerfile {path}: {fs.reason(error)}", hint="-f names another file") from error
    if len(data) > MAX_DOCKERFILE:
        raise ContextError(f"the Dockerfile {path} is larger than {MAX_DOCKERFILE >> 20} MiB")
    return data


def _from_stdin(stdin: BinaryIO) -> bytes:
    data = stdin.read(MAX_DOCKERFILE + 1)
    if data.startswith(_ARCHIVES) or data[257:262] == b"ustar":
        raise UsageError("a tar on standard input is not supported yet as a build context", hint="unpack it and give the directory")
    if len(data) > MAX_DOCKERFILE:
        raise ContextError(f"the Dockerfile on standard input is larger than {MAX_DOCKERFILE >> 20} MiB")
    return data


def _context(directory: str, ignore_files: list[str]) -> Context:
    """A directory with the first ignore file that is there (G01)."""
    for path in ignore_files:
        if path and os.path.isfile(path):
            ignore = Ignore.parse(_read(path), os.path.basename(path))
            return Context(DirectoryContext(directory, ignore), "")
    return Context(DirectoryContext(directory), directory)


def _named(
    name: str, value: str, environment: Environment, contexts: dict[str, Context], images: dict[str, str]
) -> None:
    key = name.lower()
    if value.startswith("docker-image://"):
        images[key] = value.removeprefix("docker-image://")
        return
    if "://" in value or value.startswith("git@"):
        kind = value.partition(":")[0]
        raise UsageError(f"--build-context {name}: {kind} contexts are not supported yet", hint="use a directory or docker-image://")
    directory = os.path.join(environment.directory, value)
    if not os.path.isdir(directory):
        raise ContextError(f"--build-context {name}: {value} is not a directory")
    directory = os.path.realpath(directory)
    contexts[key] = _context(directory, [os.path.join(directory, ".dockerignore")])
