"""The Dockerfile and the main build context that the options name (section 1.10 of FEATURES)."""

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from kpy.app import incontext
from kpy.app.contexts import ignore_in, ignore_outside, local_context, read_named, with_ignore
from kpy.app.options import BuildOptions, Environment
from kpy.app.remotes import Remotes
from kpy.buildcontext.archive import HEAD, archive_context, looks_like_archive
from kpy.buildcontext.directory import DirectoryContext
from kpy.buildcontext.empty import EmptyContext
from kpy.buildcontext.http import Download
from kpy.buildcontext.objects import is_object
from kpy.dockerfile.dockerignore import Ignore
from kpy.dockerfile.forms import FormError
from kpy.dockerfile.model import Dockerfile
from kpy.dockerfile.parser import parse
from kpy.dockerfile.remotes import is_git, is_http, parse_bool, parse_git
from kpy.errors import ContextError, UsageError
from kpy.layer.source import FileSource
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
    """The main context. `directory` is that of a local one, without symlinks, and `named` as the user wrote it, absolute;
    `root` is a directory with exactly the files; `dockerfile` is the context, where it is a Dockerfile."""

    files: FileSource
    directory: str = ""
    named: str = ""
    root: str = ""
    dockerfile: bytes | None = None
    modified: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    """A Dockerfile: its content and its name for messages. `path` is that of a local one, absolute; `inside` is the path in
    the local context that it lies in."""

    data: bytes
    shown: str = "Dockerfile"
    path: str = ""
    inside: str = ""


def is_remote(context: str) -> bool:
    """Is it a URL, and no directory?"""
    return is_git(context) or is_http(context) or is_object(context) or context.startswith("github.com/")


def read_sources(
    options: BuildOptions, environment: Environment, remotes: Remotes, spool: str, cancel: Cancel, stack: ExitStack
) -> Sources:
    """Find, fetch and parse. What was fetched lives as long as `stack`. Raises ContextError, DockerfileError, UsageError."""
    opener = _Opener(options, environment, remotes, spool, cancel, stack)
    main = opener.main()
    file = opener.dockerfile(main)
    context = Context(main.files, main.root)
    if main.directory and isinstance(main.files, DirectoryContext):
        context = with_ignore(main.files, main.directory, _ignore(main.files, file))
    named = read_named(options, environment, stack)
    contexts = {"": context, **named.directories}
    return Sources(parse(file.data, file.shown), file.path or options.context, contexts, named.planned, main.modified)


def _ignore(files: DirectoryContext, file: _File) -> Ignore | None:
    """The patterns of the Dockerfile's own ignore file, which lies where it lies, else of the context's."""
    own = None
    if file.inside:
        own = ignore_in(files, f"{file.inside}.dockerignore")
    elif file.path:
        own = ignore_outside(f"{file.path}.dockerignore")
    return ignore_in(files) if own is None else own


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
            real = os.path.realpath(directory)
            return _Main(local_context(real, self._stack), real, os.path.abspath(directory), real)
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
        files, root = self._remotes.context(remote, keep_git_dir=keep)
        return _Main(files, root=root, modified=int(os.stat(root).st_mtime))

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

    def dockerfile(self, main: _Main) -> _File:
        """The Dockerfile. One that lies in the context is read as a file of the context: its author is not the user."""
        file = self._options.file
        if file == "-":
            return _File(_bounded(self._environment.stdin.read(MAX_DOCKERFILE + 1), "on standard input"))
        if is_http(file):
            found = self._remotes.file(file, "Dockerfile")
            with found.open_content() as stream:
                return _File(_bounded(stream.read(MAX_DOCKERFILE + 1), f"at {http.redact(file)}"))
        if main.dockerfile is not None:
            if not file:
                return _File(main.dockerfile)
            if not os.path.isabs(file):
                raise UsageError(f"the context {http.redact(self._options.context)} is a Dockerfile, and --file names another one")
        if not main.directory and not os.path.isabs(file):
            return _remote_file(main.files, [file] if file else ["Dockerfile", "dockerfile"])
        path, inside = self._place(main) if main.directory else (file, "")
        shown = self._shown(path)
        if not inside:
            return _File(_read(path), shown, path)
        data = _read_inside(main.files, inside, shown)
        if data is None:
            raise ContextError(f"cannot read the Dockerfile {shown}: no such file or directory", hint="-f names another file")
        return _File(data, shown, path, inside)

    def _place(self, main: _Main) -> tuple[str, str]:
        """The path of a Dockerfile of this machine, and its path in the local context, "" if it does not lie there.

        The absolute text decides, before links are followed: a link in the context is never the user's word. Links above
        the file that lead into the context are.
        """
        file = self._options.file
        if not file:
            is_lower = main.files.lookup("Dockerfile") is None and main.files.lookup("dockerfile") is not None
            file = "dockerfile" if is_lower else "Dockerfile"
            return os.path.join(main.directory, file), file
        path = os.path.abspath(os.path.join(self._environment.directory, file))
        other = os.path.abspath(os.path.join(main.directory, file))
        if not os.path.lexists(path) and os.path.lexists(other):
            path = other
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        for text, top in ((path, main.named), (path, main.directory), (real, main.directory)):
            if text.startswith(f"{top.rstrip('/')}/"):
                return path, os.path.relpath(text, top)
        return path, ""

    def _shown(self, path: str) -> str:
        shown = os.path.relpath(path, self._environment.directory)
        return os.path.basename(path) if shown.startswith("..") else shown


def _time(found: Download) -> int:
    """Last-Modified in seconds, 0 if the server said nothing."""
    entry = found.lookup(found.name)
    return entry.mtime // 1_000_000_000 if entry is not None else 0


def _read_inside(files: FileSource, path: str, shown: str) -> bytes | None:
    """The content of a Dockerfile that lies in a context; None if there is none."""
    return incontext.read(
        files, path, MAX_DOCKERFILE, what=f"the Dockerfile {shown}", hint="-f PATH names a Dockerfile outside of the context"
    )


def _remote_file(files: FileSource, names: list[str]) -> _File:
    """The first Dockerfile of these names, in a context that is no local directory."""
    for name in names:
        if (data := _read_inside(files, name, name)) is not None:
            return _File(data, name)
    raise ContextError(f"the build context has no {names[0]}", hint="-f names the Dockerfile in the context")


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
