"""The Dockerfile and the main build context that the options name (section 1.10 of FEATURES)."""

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from kpy.app.contexts import directory_context, read_named
from kpy.app.options import BuildOptions, Environment
from kpy.app.remotes import Remotes
from kpy.buildcontext.archive import HEAD, archive_context, looks_like_archive
from kpy.buildcontext.directory import DirectoryContext
from kpy.buildcontext.empty import EmptyContext
from kpy.buildcontext.http import Download
from kpy.buildcontext.objects import is_object
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.model import Dockerfile
from kpy.dockerfile.parser import parse
from kpy.dockerfile.remotes import is_git, is_http, parse_bool, parse_git
from kpy.errors import ContextError, UsageError
from kpy.layer.entry import Kind
from kpy.layer.source import FileSource
from kpy.solver.lookup import parts_of, resolve
from kpy.solver.values import Context
from kpy.util import fs, http
from kpy.util.cancel import Cancel

MAX_DOCKERFILE = 16 << 20
_KEEP_GIT_DIR = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
_REMOTE_FILE = "context"  # what BuildKit calls the one file of a URL that is no archive


@dataclass(frozen=True, slots=True)
class Sources:
    """What is built: the Dockerfile, its path for messages, and the contexts by name ("" is the main one).

    `named` are all named contexts, as the plan wants them: (name, kind, value). `modified` is the time of a remote
    main context: the commit's, or Last-Modified; 0 if it has none.
    """

    dockerfile: Dockerfile
    path: str
    contexts: dict[str, Context]
    named: tuple[tuple[str, str, str], ...]
    modified: int = 0


@dataclass(frozen=True, slots=True)
class _Main:
    """The main context. `directory` is that of a local one; `dockerfile` is the context, where it is a Dockerfile."""

    files: FileSource
    directory: str = ""
    root: str = ""
    dockerfile: bytes | None = None
    modified: int = 0


def is_remote(context: str) -> bool:
    """Is it a URL, and no directory?"""
    return is_git(context) or is_http(context) or is_object(context) or context.startswith("github.com/")


def read_sources(
    options: BuildOptions, environment: Environment, remotes: Remotes, spool: str, cancel: Cancel, stack: ExitStack
) -> Sources:
    """Find, fetch and parse. What was fetched lives as long as `stack`. Raises ContextError, DockerfileError, UsageError."""
    opener = _Opener(options, environment, remotes, spool, cancel, stack)
    main = opener.main()
    path, shown, data = opener.dockerfile(main)
    if main.directory:
        context = directory_context(
            main.directory, [f"{path}.dockerignore" if path else "", os.path.join(main.directory, ".dockerignore")]
        )
    else:
        context = Context(main.files, main.root)
    named = read_named(options, environment)
    return Sources(parse(data, shown), path or options.context, {"": context, **named.directories}, named.planned, main.modified)


class _Opener:
    """Opens what the options name."""

    def __init__(
        self, options: BuildOptions, environment: Environment, remotes: Remotes, spool: str, cancel: Cancel, stack: ExitStack
    ) -> None:
        self._options = options
        self._environment = environment
        self._remotes = remotes
        self._spool = spool
        self._cancel = cancel
        self._stack = stack

    # --- the context

    def main(self) -> _Main:
        """The main context."""
        context = self._options.context
        if context == "-":
            return self._stdin()
        directory = os.path.join(self._environment.directory, context)
        if os.path.isdir(directory):
            directory = os.path.realpath(directory)
            return _Main(DirectoryContext(directory), directory, directory)
        if is_git(context) or context.startswith("github.com/"):
            return self._git(context)
        if is_http(context) or is_object(context):
            return self._http(context)
        if "://" in context:
            raise UsageError(
                f"unsupported build context {http.redact(context)!r}",
                hint="use a directory, -, a git or http(s) URL, or s3://, gs:// or azblob://",
            )
        what = "is not a directory" if os.path.exists(directory) else "does not exist"
        raise ContextError(
            f"the build context {context!r} {what}", hint="the context is a directory, a URL, or - for standard input"
        )

    def _stdin(self) -> _Main:
        """A tar, or else the Dockerfile."""
        if self._options.file == "-":
            raise UsageError("both the context and the Dockerfile are standard input", hint="give a directory as context")
        stdin = self._environment.stdin
        head = _first(stdin)
        if looks_like_archive(head):
            return self._archive(cast("BinaryIO", _Prepended(head, stdin)), "the context on standard input")
        if self._options.file:
            raise UsageError(
                "ambiguous Dockerfile source: standard input is no tar, so it is the Dockerfile, and so is --file",
                hint="leave out --file, or give a tar as context",
            )
        data = head + stdin.read(MAX_DOCKERFILE + 1 - len(head))
        return _Main(EmptyContext(), dockerfile=_bounded(data, "on standard input"))

    def _archive(self, stream: BinaryIO, what: str) -> _Main:
        return _Main(self._stack.enter_context(archive_context(stream, self._spool, self._cancel, what=what)))

    def _git(self, context: str) -> _Main:
        try:
            remote = parse_git(context)
            argument = dict(self._options.build_args).get(_KEEP_GIT_DIR, "")
            keep = bool(remote.keep_git_dir) or (bool(argument) and parse_bool(argument))
        except FormError as error:
            raise UsageError(f"build context: {error.message}", hint=error.hint) from error
        except ValueError as error:
            raise UsageError(f"--build-arg {_KEEP_GIT_DIR}: {error} is neither true nor false") from error
        root = self._remotes.repository(remote, keep_git_dir=keep)
        return _Main(DirectoryContext(root), root=root, modified=int(os.stat(root).st_mtime))

    def _http(self, context: str) -> _Main:
        found = self._remotes.file(context, _REMOTE_FILE)
        with found.open_content() as stream:
            is_archive = looks_like_archive(_first(stream))
        if is_archive:
            with found.open_content() as stream:
                return replace(self._archive(stream, "the downloaded context"), modified=_time(found))
        with found.open_content() as stream:
            data = _bounded(stream.read(MAX_DOCKERFILE + 1), f"at {http.redact(context)}")
        return _Main(found, dockerfile=data, modified=_time(found))

    # --- the Dockerfile

    def dockerfile(self, main: _Main) -> tuple[str, str, bytes]:
        """Path on this machine ("" when it has none), name for messages, content."""
        file = self._options.file
        if file == "-":
            return "", "Dockerfile", _bounded(self._environment.stdin.read(MAX_DOCKERFILE + 1), "on standard input")
        if is_http(file):
            found = self._remotes.file(file, "Dockerfile")
            with found.open_content() as stream:
                return "", "Dockerfile", _bounded(stream.read(MAX_DOCKERFILE + 1), f"at {http.redact(file)}")
        if main.dockerfile is not None:
            if not file:
                return "", "Dockerfile", main.dockerfile
            if not os.path.isabs(file):
                raise UsageError(f"the context {http.redact(self._options.context)} is a Dockerfile, and --file names another one")
        if main.directory or os.path.isabs(file):
            path = self._local_path(main.directory)
            return path, self._shown(path), _read(path)
        return ("", *_inside(main.files, file))

    def _local_path(self, directory: str) -> str:
        if self._options.file:
            path = os.path.join(self._environment.directory, self._options.file)
            inside = os.path.join(directory, self._options.file)
            return inside if directory and not os.path.exists(path) and os.path.exists(inside) else path
        path = os.path.join(directory, "Dockerfile")
        lower = os.path.join(directory, "dockerfile")
        return lower if not os.path.lexists(path) and os.path.lexists(lower) else path  # G09

    def _shown(self, path: str) -> str:
        shown = os.path.relpath(path, self._environment.directory)
        return os.path.basename(path) if shown.startswith("..") else shown


def _time(found: Download) -> int:
    """Last-Modified in seconds, 0 if the server said nothing."""
    entry = found.lookup(found.name)
    return entry.mtime // 1_000_000_000 if entry is not None else 0


def _inside(files: FileSource, file: str) -> tuple[str, bytes]:
    """The name and content of a Dockerfile in a context that is no local directory; links stay inside."""
    for name in [file] if file else ["Dockerfile", "dockerfile"]:
        entry = files.lookup(resolve(files, "/".join(parts_of(name))))
        if entry is None:
            continue
        if entry.kind is not Kind.FILE:
            raise ContextError(f"cannot read the Dockerfile {name}: it is no file")
        if entry.size > MAX_DOCKERFILE:
            raise ContextError(f"the Dockerfile {name} is larger than {MAX_DOCKERFILE >> 20} MiB")
        with files.reading([entry]) as opener, opener(entry) as stream:
            return name, _all(stream)
    raise ContextError(f"the build context has no {file or 'Dockerfile'}", hint="-f names the Dockerfile in the context")


def _all(stream: BinaryIO) -> bytes:
    parts = []
    while data := stream.read(1 << 20):
        parts.append(data)
    return b"".join(parts)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return _bounded(stream.read(MAX_DOCKERFILE + 1), path)
    except OSError as error:
        raise ContextError(f"cannot read the Dockerfile {path}: {fs.reason(error)}", hint="-f names another file") from error


def _bounded(data: bytes, where: str) -> bytes:
    if len(data) > MAX_DOCKERFILE:
        raise ContextError(f"the Dockerfile {where} is larger than {MAX_DOCKERFILE >> 20} MiB")
    return data


def _first(stream: BinaryIO) -> bytes:
    """The first bytes, as many as tell an archive."""
    head = b""
    while len(head) < HEAD and (more := stream.read(HEAD - len(head))):
        head += more
    return head


class _Prepended:
    """A stream with its first bytes put back. Does not close it."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if self._head:
            data, self._head = (self._head, b"") if size < 0 else (self._head[:size], self._head[size:])
            return data
        return self._stream.read(size if size >= 0 else 1 << 20)

    def close(self) -> None:
        """Nothing: the stream is the caller's."""
